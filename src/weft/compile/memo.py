"""Results of pure functions, found again by the very inputs they were given.

A key is made of what was passed: plain values by value, everything else by identity. Nobody lists
inputs by hand, so none can be forgotten; a function that needs more must be given more.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from enum import Enum
from typing import Any, Final, ParamSpec, TypeVar, cast

from weft.ir import Attachment, Standpoint

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V")

_VALUES: Final = (str, int, float, bytes, timedelta, frozenset, Enum, Attachment, Standpoint, type(None))
_BY_VALUE: Final[dict[type, bool]] = {}


def _keys(values: tuple[object, ...]) -> list[object]:
    # By far the most frequent of all calls: objects of a kind that was met before are judged right here.
    known = _BY_VALUE.get
    return [
        id(value) if (by_value := known(type(value))) is False else value if by_value else _key(value)
        for value in values
    ]


def _key(value: object) -> object:
    kind = type(value)
    if kind is tuple:
        return tuple(_keys(cast("tuple[object, ...]", value))) if value else value
    by_value = _BY_VALUE.setdefault(kind, isinstance(value, _VALUES))
    return value if by_value else id(value)


class Memo:
    """A bounded memory of results.

    Two generations: what is asked for moves into the young one; when that is full the old one is
    forgotten. Inputs are held as long as their result, so that an identity is never used twice.
    """

    def __init__(self, capacity: int = 200_000) -> None:
        self._capacity = capacity
        self._young: dict[object, tuple[object, Any]] = {}
        self._old: dict[object, tuple[object, Any]] = {}

    def __call__(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """``function(*args)``, computed at most once. ``function`` must be pure; keywords are refused."""
        assert not kwargs, "inputs are positional, so that the key is the inputs"
        key = (function, *_keys(args))
        found = self._young.get(key)
        if found is None:
            found = self._old.pop(key, None) or (args, function(*args, **kwargs))
            if len(self._young) >= self._capacity:
                self._old, self._young = self._young, {}
            self._young[key] = found
        return cast("R", found[1])

    def same(self, value: V) -> V:
        """The first of all values that equal this one, so that it is known again by its identity.

        ``value`` is hashable, and shallow: all of it is looked at.
        """
        key = ("same", value)
        found = self._young.get(key)
        if found is None:
            found = self._old.pop(key, None) or ((), value)
            if len(self._young) >= self._capacity:
                self._old, self._young = self._young, {}
            self._young[key] = found
        return cast("V", found[1])

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
