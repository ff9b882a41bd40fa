"""The files of the audit log: one JSON object a line, each with the hash of the line before.

``seq`` counts the lines, ``prev`` is the SHA-256 of the line before (without its end of line), 64 zeros
for the first of all. A line that was changed, taken away or put in breaks the chain at the next one; whoever
keeps the newest hash elsewhere also notices a log that was cut or written anew.

``audit.log`` is written to; full, it is renamed to ``audit.log.N``, N being its last line's number with 12
digits. The chain goes on from file to file. The oldest files go when there are too many.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from weft.errors import WeftError

NOTHING: Final = "0" * 64
NAME: Final = "audit.log"

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Link:
    """The end of a chain: the number and the hash of its last line."""

    seq: int = 0
    hash: str = NOTHING

    def append(self, about: Mapping[str, Any]) -> tuple[bytes, Link]:
        """The next line (with its end) and the end of the chain after it."""
        line = json.dumps({"seq": self.seq + 1, **about, "prev": self.hash}, separators=(",", ":")).encode()
        return line + b"\n", Link(self.seq + 1, digest(line))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a verification found. ``fault`` is empty when the chain holds.

    ``first`` is the number of the first line: 1, unless the oldest files are gone. ``found``: the hash that
    was asked for is there.
    """

    lines: int
    first: int
    last: Link
    fault: str = ""
    found: bool = True


def digest(line: bytes) -> str:
    """The hash of a line without its end."""
    return hashlib.sha256(line).hexdigest()


def files(path: Path) -> list[Path]:
    """All files of a log, the oldest first; ``path`` itself is the last."""
    old = sorted(one for one in path.parent.glob(f"{path.name}.*") if one.suffix[1:].isdigit())
    return [*old, *([path] if path.exists() else [])]


def raw_lines(path: Path) -> Iterator[tuple[Path, int, bytes]]:
    """Every line of every file: the file, the line's number in it, and its text without the end.

    Raises:
        WeftError: when they cannot be read.
    """
    for file in files(path):
        try:
            with file.open("rb") as opened:
                for number, line in enumerate(opened, 1):
                    yield file, number, line.rstrip(b"\n")
        except OSError as error:
            hint = "read it as the user of the control plane, on its host"
            raise WeftError(f"cannot read {file}: {error.strerror}", hint=hint) from error


def end_of(path: Path) -> Link:
    """The end of the chain as the files have it.

    Raises:
        WeftError: when the last line is no line of an audit log.
    """
    for file in reversed(files(path)):
        if line := _last_line(file):
            try:
                return Link(int(json.loads(line)["seq"]), digest(line))
            except (ValueError, KeyError, TypeError) as error:
                raise WeftError(
                    f"the last line of {file} is no line of an audit log",
                    hint="see 'weft audit verify', move the file away, and start again",
                ) from error
    return Link()


def _last_line(file: Path) -> bytes:
    size = 1 << 16
    with file.open("rb") as opened:
        end = opened.seek(0, os.SEEK_END)
        while True:
            opened.seek(max(0, end - size))
            lines = opened.read().rstrip(b"\n").split(b"\n")
            if len(lines) > 1 or size >= end:
                return lines[-1]
            size *= 4


def verify(path: Path, *, known: str = "") -> Verdict:
    """Walk the whole chain. ``known`` is a hash that was noted elsewhere and must be in it.

    Raises:
        WeftError: when the files cannot be read.
    """
    link: Link | None = None
    first = count = 0
    found = not known
    for file, number, text in raw_lines(path):
        place = f"{file}:{number}"
        try:
            line = json.loads(text)
            seq, before = int(line["seq"]), str(line["prev"])
        except (ValueError, KeyError, TypeError):
            return Verdict(
                lines=count, first=first, last=link or Link(), fault=f"{place}: this is no line of the log"
            )
        if link is None:
            first = seq
            if seq == 1 and before != NOTHING:
                return Verdict(
                    lines=0, first=1, last=Link(), fault=f"{place}: something stood before the first line"
                )
            found = found or before == known
        elif seq != link.seq + 1 or before != link.hash:
            fault = f"{place}: the line before it is not the one that was written"
            return Verdict(lines=count, first=first, last=link, fault=fault)
        count += 1
        link = Link(seq, digest(text))
        found = found or link.hash == known
    return Verdict(lines=count, first=first, last=link or Link(), found=found)
