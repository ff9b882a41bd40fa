"""The names that applications may resolve, with a revision; nodes follow it by increments."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Table = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamesUpdate:
    """``full``: forget what was before. Names are fully qualified, addresses are texts."""

    revision: int
    full: bool
    put: Table = field(default_factory=dict)
    removed: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The message to a node."""
        return {
            "type": "names",
            "revision": self.revision,
            "full": self.full,
            "put": {name: list(addresses) for name, addresses in self.put.items()},
            "removed": list(self.removed),
        }


class NameTable:
    """The newest table. The difference to the one before is made once, however many nodes follow."""

    def __init__(self) -> None:
        self._table: Table = {}
        self._latest = NamesUpdate(revision=0, full=True)
        self._changed = asyncio.Event()

    @property
    def table(self) -> Table:
        """All names."""
        return self._table

    def set(self, table: Table) -> None:
        """Replace the table; the same again is no change."""
        old = self._table
        put = {name: addresses for name, addresses in table.items() if old.get(name) != addresses}
        removed = tuple(sorted(name for name in old if name not in table))
        if not put and not removed and self._latest.revision:
            return
        self._table = dict(table)
        self._latest = NamesUpdate(revision=self._latest.revision + 1, full=False, put=put, removed=removed)
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(self) -> AsyncIterator[NamesUpdate]:
        """The whole table (once there is one), then each change; a slow reader gets the whole table again."""
        sent = 0
        while True:
            changed, latest = self._changed, self._latest
            if sent == latest.revision:
                await changed.wait()
                continue
            if sent and sent == latest.revision - 1:
                update = latest
            else:
                update = NamesUpdate(revision=latest.revision, full=True, put=self._table)
            sent = update.revision
            yield update
