"""Log files that other processes append to: reading their end, following them, keeping them small."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

LIMIT_BYTES: Final = 8 * 1024 * 1024
_FOLLOW_POLL_S: Final = 0.2
_BLOCK: Final = 64 * 1024


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a file, without their ends; empty when there is no file."""
    return _tail(path, lines)[0]


def _tail(path: Path, lines: int) -> tuple[list[str], int]:
    """And how long the file was then."""
    try:
        with path.open("rb") as file:
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
            size = path.stat().st_size
            if size < offset:
                offset, rest = 0, b""
            if size == offset:
                continue
            with path.open("rb") as file:
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
        if path.stat().st_size <= limit:
            return False
        shutil.copyfile(path, path.with_name(path.name + ".1"))
        with path.open("r+b") as file:
            file.truncate(0)
    except OSError:
        return False
    return True
