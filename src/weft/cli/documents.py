"""Files, directories and standard input, as commands take them: read into resources."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weft.errors import Problem, Severity, UsageError, WeftError

if TYPE_CHECKING:
    from weft.model.resource import Resource
    from weft.yaml import Document

_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
STDIN: Final = "-"


def files_of(path: str) -> Iterator[Path]:
    """``path`` itself, or the YAML and JSON files below it, in the order of their names.

    Raises:
        UsageError: when there is no such path.
    """
    root = Path(path)
    if root.is_dir():
        for file in sorted(root.rglob("*")):
            if file.suffix in _SUFFIXES and file.is_file():
                yield file
    elif root.exists():
        yield root
    else:
        raise UsageError(f"there is no file or directory {path!r}", hint="write '-' to read standard input")


def read_documents(paths: Iterable[str]) -> tuple[tuple[Document, ...], tuple[Problem, ...]]:
    """Every document of the paths, and what is no YAML.

    Raises:
        UsageError: when a path does not exist or cannot be read.
    """
    from weft.yaml import load

    documents: list[Document] = []
    problems: list[Problem] = []
    for name, text in _texts(paths):
        found, wrong = load(text, name)
        documents += found
        problems += wrong
    return tuple(documents), tuple(problems)


def _texts(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    for path in paths:
        if path == STDIN:
            yield "<stdin>", sys.stdin.read()
            continue
        for file in files_of(path):
            try:
                yield str(file), file.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise UsageError(f"{file} is not UTF-8 text (byte {error.start})") from error
            except OSError as error:
                raise UsageError(f"cannot read {file}: {error.strerror}") from error


def read_resources(
    paths: Iterable[str], namespace: str = "default"
) -> tuple[tuple[Resource, ...], tuple[Problem, ...]]:
    """Every resource of the paths with its namespace filled in, and all problems, whatever their severity."""
    from weft.model.parse import parse, unwrap

    documents, problems = read_documents(paths)
    resources: list[Resource] = []
    found = list(problems)
    for document in documents:
        parts, wrong = unwrap(document)
        found += wrong
        for part in parts:
            resource, wrong = parse(part, namespace)
            found += wrong
            if resource is not None:
                resources.append(resource)
    return tuple(resources), tuple(found)


def refuse_errors(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The problems that are no errors.

    Raises:
        WeftError: with every error, when there is one.
    """
    known = tuple(problems)
    errors = [problem for problem in known if problem.severity is Severity.ERROR]
    if errors:
        count = f"{len(errors)} errors" if len(errors) > 1 else "an error"
        raise WeftError(f"the configuration has {count}", problems=errors)
    return known
