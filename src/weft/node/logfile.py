"""Log files that other processes append to: reading their end, following them, keeping them small.

They may lie in a directory of the proxy's own user: root follows no link there, and waits for no pipe.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, Final

LIMIT_BYTES: Final = 8 * 1024 * 1024
_FOLLOW_POLL_S: Final = 0.2
_BLOCK: Final = 64 * 1024


def _open(path: Path, flags: int = os.O_RDONLY) -> BinaryIO:
    """A regular file.

    Raises:
        OSError: there is none, or what is there is a link, a pipe, a directory.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise OSError(f"{path} is no file of its own")
        return os.fdopen(descriptor, "rb" if flags == os.O_RDONLY else "r+b")
    except OSError:
        os.close(descriptor)
        raise


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a file, without their ends; empty when there is no file."""
    return _tail(path, lines)[0]


def _tail(path: Path, lines: int) -> tuple[list[str], int]:
    """And how long the file was then."""
    try:
        with _open(path) as file:
            size = end = file.seek(0, 2)
            body = b""
            while end > 0 and body.count(b"\n") <= lines:
                start = max(0, end - _BLOCK)
                file.seek(start)
                body, end = file.read(end - start) + body, start
    except OSError:
        return [], 0
    found = body.decode(errors="replace").splitlines()
    return found[-lines:] if lines else [], size


async def follow(path: Path, lines: int) -> AsyncIterator[str]:
    """The last lines, then each new one, for ever. A file cut short is read from its start again."""
    last, offset = _tail(path, lines)
    for line in last:
        yield line
    rest = b""
    while True:
        await asyncio.sleep(_FOLLOW_POLL_S)
        try:
            with _open(path) as file:
                size = os.fstat(file.fileno()).st_size
                if size < offset:
                    offset, rest = 0, b""
                if size == offset:
                    continue
                file.seek(offset)
                fresh = file.read()
        except OSError:
            continue
        offset += len(fresh)
        *whole, rest = (rest + fresh).split(b"\n")
        for part in whole:
            yield part.decode(errors="replace")


def bound(path: Path, limit: int = LIMIT_BYTES) -> bool:
    """Cut a file that has outgrown ``limit`` bytes: its content moves to ``NAME.1``. True if it was cut.

    The writers hold it open for appending, so it is emptied in place; lines written between the copy and
    the cut (microseconds) are lost, which a bounded log may.
    """
    try:
        if path.lstat().st_size <= limit:
            return False
        old = path.with_name(path.name + ".1")
        with _open(path, os.O_RDWR) as file:
            old.unlink(missing_ok=True)
            with _open(old, os.O_RDWR | os.O_CREAT | os.O_EXCL) as copy:
                shutil.copyfileobj(file, copy)
            file.truncate(0)
    except OSError:
        return False
    return True
