"""One resource as it travels: serialised once, shared by every proxy that gets it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar
from weakref import WeakValueDictionary

from weft.protos import listener_v3
from weft.protos.wire import any_of

if TYPE_CHECKING:
    from google.protobuf.message import Message

_VERSION_BYTES: Final = 8


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Packed:
    """``body`` is a serialised ``google.protobuf.Any``; ``version`` is a hash of it, in hex.

    ``bound``: a listener with a socket of its own, so that its port is free only when it is gone.
    """

    name: str
    version: str
    body: bytes = field(repr=False)
    unit: object = field(default=None, repr=False, compare=False)
    bound: bool = False


# By content: equal bytes are held once, however they came about.
_by_content: Final[WeakValueDictionary[tuple[str, str], Packed]] = WeakValueDictionary()
# By the very IR object: a Packed holds its unit, so an id in here is never that of another object.
_by_unit: Final[WeakValueDictionary[tuple[Hashable, ...], Packed]] = WeakValueDictionary()


def pack(name: str, message: Message, unit: object = None) -> Packed:
    """``message`` as a shared resource; equal messages give the very same object."""
    body = any_of(message)
    version = hashlib.blake2b(body, digest_size=_VERSION_BYTES).hexdigest()
    bound = isinstance(message, listener_v3.Listener) and _is_bound(message)
    return _by_content.setdefault((name, version), Packed(name, version, body, unit, bound))


def _is_bound(listener: listener_v3.Listener) -> bool:
    """Envoy binds unless it is told not to; one without an address is reached from inside alone."""
    return listener.HasField("address") and (
        listener.bind_to_port.value if listener.HasField("bind_to_port") else True
    )


def packed_once(unit: object, name: str, build: Callable[..., Message], *context: Hashable) -> Packed:
    """``build(unit, *context)`` packed as ``name``; not built again while somebody holds the result.

    ``context`` is whatever else ``build`` reads: it is part of the key because it is part of the call.
    """
    key = (build, id(unit), *context)
    known = _by_unit.get(key)
    if known is not None and known.unit is unit:
        return known
    made = pack(name, build(unit, *context), unit)
    if made.unit is unit:
        _by_unit[key] = made
    return made


U = TypeVar("U")
R = TypeVar("R")


class Once(Generic[U, R]):
    """Results of ``build`` by the very unit that they are of, for results that nobody else holds.

    Bounded by two generations: what is asked for moves into the young one; when that is full, the old one
    is forgotten. Units are held as long as their result, so that an identity is never used twice.
    """

    def __init__(self, build: Callable[[U], R], capacity: int = 20_000) -> None:
        self._build = build
        self._capacity = capacity
        self._young: dict[int, tuple[U, R]] = {}
        self._old: dict[int, tuple[U, R]] = {}

    def __call__(self, unit: U) -> R:
        """``build(unit)``."""
        found = self._young.get(id(unit))
        if found is None:
            found = self._old.pop(id(unit), None) or (unit, self._build(unit))
            if len(self._young) >= self._capacity:
                self._old, self._young = self._young, {}
            self._young[id(unit)] = found
        return found[1]
