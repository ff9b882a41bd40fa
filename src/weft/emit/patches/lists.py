"""Patches of the parts of an ordered list: filters, routes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from weft.emit.patches.value import value_of
from weft.ir.patch import Operation, Patch

if TYPE_CHECKING:
    from google.protobuf.message import Message

Parts = Any
"""A repeated field of messages."""

Matches = Callable[["Message"], bool]


def keep(parts: Parts, wanted: Callable[[Message], bool]) -> None:
    """Leave only the parts that are ``wanted``."""
    for index in reversed(range(len(parts))):
        if not wanted(parts[index]):
            del parts[index]


def patch_list(parts: Parts, patch: Patch, matches: Matches | None) -> None:
    """Put something into a list, in another's place, or take something away.

    ``matches`` tells the part that the patch is about, None when it names none: then it is put at the end
    or, for INSERT_BEFORE, at the start, and nothing is replaced or removed (Istio: listener_patch.go).

    Raises:
        PatchError: the value cannot be read.
    """
    operation = patch.operation
    if operation is Operation.REMOVE:
        if matches is not None:
            keep(parts, lambda part: not matches(part))
        return
    value = value_of(patch)
    if value is None:
        return
    first = None if matches is None else _first(parts, matches)
    match operation:
        case Operation.ADD:
            parts.append(value)
        case Operation.INSERT_FIRST:
            parts.insert(0, value)
        case Operation.INSERT_BEFORE if matches is None:
            parts.insert(0, value)
        case Operation.INSERT_AFTER if matches is None:
            parts.append(value)
        case Operation.INSERT_BEFORE if first is not None:
            parts.insert(first, value)
        case Operation.INSERT_AFTER if first is not None:
            parts.insert(first + 1, value)
        case Operation.REPLACE if first is not None:
            parts[first].CopyFrom(value)


def _first(parts: Iterable[Message], matches: Matches) -> int | None:
    return next((index for index, part in enumerate(parts) if matches(part)), None)
