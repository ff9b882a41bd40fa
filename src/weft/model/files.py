"""Reads YAML and JSON files, directories and standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from weft.errors import Origin, Problem, UsageError
from weft.yaml import SYNTAX, Document, load

SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
STDIN: Final = "-"
MAX_BYTES: Final = 64 << 20


def read_paths(paths: Iterable[str]) -> tuple[tuple[Document, ...], tuple[Problem, ...]]:
    """All documents of files, of directories (recursively, ``*.yaml *.yml *.json``) and of ``-``.

    Raises:
        UsageError: for a path that does not exist or may not be read.
    """
    documents: list[Document] = []
    problems: list[Problem] = []
    for file in _files(paths):
        found, wrong = read_file(file)
        documents += found
        problems += wrong
    return tuple(documents), tuple(problems)


def read_file(file: str) -> tuple[tuple[Document, ...], tuple[Problem, ...]]:
    """All documents of one file, or of ``-``.

    Raises:
        UsageError: when it does not exist, may not be read, or is larger than ``MAX_BYTES``.
    """
    text = decode(_bytes(file), file)
    return ((), (text,)) if isinstance(text, Problem) else load(text, file)


def decode(data: bytes, file: str) -> str | Problem:
    """Text from UTF-8, or from UTF-16 that says so by its first bytes."""
    encoding = "utf-16" if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        where = Origin(file, line, column)
        return Problem(SYNTAX, "this is not UTF-8", where, f"convert it: iconv -t UTF-8 {file}")


def _files(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        place = Path(path)
        if path == STDIN or not os.path.isdir(path):  # noqa: PTH112  (Path's raises for a name too long)
            yield path
            continue
        found = sorted(item for item in place.rglob("*") if item.suffix in SUFFIXES and item.is_file())
        if not found:
            raise UsageError(
                f"{path} holds no .yaml, .yml or .json file", hint="name a file or another folder"
            )
        yield from map(str, found)


def _bytes(file: str) -> bytes:
    if file == STDIN:
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
    else:
        try:
            with Path(file).open("rb") as source:
                data = source.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:  # a name that no file can have
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise UsageError(f"cannot read {file}: {why}", hint="check the path") from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{file} is larger than {MAX_BYTES >> 20} MiB", hint="divide it")
    return data
