"""Reads JSON values of any shape: what is not there, or is of another type, is empty and never an error.

Analyzers look at resources as they are written, also at those that weft does not accept or does not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def at(value: Any, *path: str | int) -> Any:
    """The value at a path, or None."""
    for part in path:
        if isinstance(part, str):
            value = value.get(part) if isinstance(value, dict) else None
        else:
            value = value[part] if isinstance(value, list) and part < len(value) else None
    return value


def table(value: Any, *path: str | int) -> dict[str, Any]:
    """The mapping at a path."""
    found = at(value, *path)
    return found if isinstance(found, dict) else {}


def rows(value: Any, *path: str | int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The mappings in the list at a path, each with its index."""
    found = at(value, *path)
    for index, item in enumerate(found if isinstance(found, list) else ()):
        if isinstance(item, dict):
            yield index, item


def word(value: Any, *path: str | int) -> str:
    """The text at a path; a number or a boolean as it is written."""
    found = at(value, *path)
    if isinstance(found, bool):
        return "true" if found else "false"
    return str(found) if isinstance(found, str | int | float) else ""


def words(value: Any, *path: str | int) -> list[str]:
    """The texts in the list at a path."""
    found = at(value, *path)
    return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []


def number(value: Any, *path: str | int) -> int | None:
    """The whole number at a path."""
    found = at(value, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def pairs(value: Any, *path: str | int) -> dict[str, str]:
    """The mapping of texts at a path: labels, annotations, a selector."""
    found = table(value, *path)
    return {key: word(found, key) for key in found}
