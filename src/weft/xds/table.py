"""An immutable map of resources that shares what did not change, so that a change copies little.

A thousand streams may each hold an older state than the newest. As plain dicts, 10,000 endpoint sets would
cost half a megabyte for each such state; here a state costs what changed, and two states are compared by
looking only where they differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Protocol, TypeVar

_BUCKETS: Final = 256


class Resource(Protocol):
    """One resource as it travels: ``body`` is a serialised ``google.protobuf.Any``, empty for none."""

    @property
    def name(self) -> str:
        """What Envoy knows it by."""

    @property
    def version(self) -> str:
        """A hash of the content: equal versions are equal resources."""

    @property
    def body(self) -> bytes:
        """The bytes that all streams share."""

    @property
    def bound(self) -> bool:
        """Whether it is a listener that holds a port, which no other can have meanwhile."""


R = TypeVar("R", bound=Resource, covariant=True)


class Table(Mapping[str, R]):
    """A persistent mapping from name to resource, divided by the hash of the name."""

    __slots__ = ("_buckets", "_size")

    def __init__(self, buckets: tuple[Mapping[str, R], ...] | None = None) -> None:
        self._buckets: tuple[Mapping[str, R], ...] = buckets or ({},) * _BUCKETS
        self._size = sum(map(len, self._buckets))

    def __getitem__(self, name: str) -> R:
        return self._buckets[hash(name) % _BUCKETS][name]

    def __contains__(self, name: object) -> bool:
        return name in self._buckets[hash(name) % _BUCKETS]

    def __iter__(self) -> Iterator[str]:
        for bucket in self._buckets:
            yield from bucket

    def __len__(self) -> int:
        return self._size

    def replace(self, put: Mapping[str, R], removed: Iterable[str] = ()) -> Table[R]:
        """This table with ``put`` in it and without ``removed``; itself when that changes nothing."""
        fresh: dict[int, dict[str, R]] = {}

        def bucket(name: str) -> dict[str, R]:
            index = hash(name) % _BUCKETS
            if index not in fresh:
                fresh[index] = dict(self._buckets[index])
            return fresh[index]

        for name, resource in put.items():
            known = self.get(name)
            if known is None or known.version != resource.version:
                bucket(name)[name] = resource
        for name in removed:
            if name in self and name not in put:
                del bucket(name)[name]
        if not fresh:
            return self
        return Table(tuple(fresh.get(index, old) for index, old in enumerate(self._buckets)))

    def buckets(self) -> tuple[Mapping[str, R], ...]:
        """The parts; parts that are the same object hold the same."""
        return self._buckets


def difference(old: Mapping[str, Resource], new: Mapping[str, Resource]) -> tuple[str, ...]:
    """Names whose resource is not the same in both, sorted; those present in only one included."""
    if old is new:
        return ()
    if isinstance(old, Table) and isinstance(new, Table):
        names: list[str] = []
        for before, after in zip(old.buckets(), new.buckets(), strict=True):
            if before is not after:
                names += _differing(before, after)
    else:
        names = _differing(old, new)
    return tuple(sorted(names))


def _differing(old: Mapping[str, Resource], new: Mapping[str, Resource]) -> list[str]:
    names = [name for name in old if name not in new]
    for name, resource in new.items():
        known = old.get(name)
        if known is not resource and (known is None or known.version != resource.version):
            names.append(name)
    return names
