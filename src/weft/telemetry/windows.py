"""Windows of time: what every series counted since then, out of memory or from the disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from weft.telemetry.calls import DESTINATION, Came, Edge, Edges, counted, in_memory
from weft.telemetry.rollups import MINUTE_MS
from weft.telemetry.series import SLOT_MS, TOTAL, SeriesKey
from weft.units import parse_duration

if TYPE_CHECKING:
    from weft.telemetry.store import Store

Parameters = Mapping[str, str]

_LONGEST: Final = timedelta(days=30)
# Up to which window (minutes) which sums on disk do.
_SUMS: Final = ((30, 1), (360, 15))
_COARSEST: Final = 60


class BadQuestionError(Exception):
    """A parameter cannot be read; says which, and what to write."""


@dataclass(frozen=True)
class Window:
    """From, to: ms since the epoch. ``came``: of each series, also of those without anything in it."""

    from_ms: int
    to_ms: int
    came: tuple[Came, ...]

    @property
    def length_ms(self) -> int:
        """How long it is."""
        return self.to_ms - self.from_ms

    def header(self) -> dict[str, Any]:
        """What every answer about it begins with."""
        return {"from": self.from_ms, "to": self.to_ms, "window": self.length_ms}

    @cached_property
    def counted(self) -> list[Came]:
        """Of each call one series alone (``calls.counted``)."""
        told = {(each.key.namespace, each.key.workload) for each in self.came if each.key.side == DESTINATION}

        def tells(namespace: str, workload: str) -> bool:
            return (namespace, workload) in told

        return [each for each in self.came if each.row and counted(each.key, tells)]

    @cached_property
    def once(self) -> frozenset[SeriesKey]:
        """The series that count."""
        return frozenset(each.key for each in self.counted)

    @cached_property
    def edges(self) -> list[Edge]:
        """Who calls whom. Not to be changed."""
        return Edges(self.came).edges


class Windows:
    """Windows that were looked at within ``kept_s``: one page asks several questions about each of them."""

    def __init__(self, kept_s: float = 0.0) -> None:
        self.kept_s = kept_s
        self._known: dict[int, tuple[float, Window]] = {}
        self._looking = asyncio.Lock()

    async def get(self, store: Store, length_ms: int) -> Window:
        """What came in so long a time until now, or a little longer."""
        if not self.kept_s:
            return await _window(store, length_ms)
        async with self._looking:
            now = time.monotonic()
            self._known = {each: seen for each, seen in self._known.items() if now - seen[0] < self.kept_s}
            if length_ms not in self._known:
                self._known[length_ms] = now, await _window(store, length_ms)
            return self._known[length_ms][1]

    def forget(self) -> None:
        """Let go of the memory that they take."""
        self._known.clear()


def duration_ms(asked: Parameters, name: str, default: str) -> int:
    """A parameter that is a duration.

    Raises:
        BadQuestionError: it is none, or not between 10 s and 30 days.
    """
    text = asked.get(name) or default
    try:
        found = parse_duration(text)
    except ValueError as error:
        raise BadQuestionError(f"{name}: {error}") from error
    if not timedelta(milliseconds=SLOT_MS) <= found <= _LONGEST:
        raise BadQuestionError(f"{name}: {text!r} is not between 10s and 720h: write a duration, like '5m'")
    return int(found.total_seconds() * 1_000)


async def window(store: Store, length_ms: int) -> Window:
    """What came in so long a time until now, or a little longer."""
    return await store.windows.get(store, length_ms)


async def _window(store: Store, length_ms: int) -> Window:
    table, now_ms = store.series, store.now_ms()
    table.advance(now_ms)
    slot = (now_ms - length_ms) // SLOT_MS
    alive = store.tellers.alive(now_ms)
    if slot >= table.horizon:
        came = tuple(_living(in_memory(table, slot), alive, now_ms))
        return Window(slot * SLOT_MS, now_ms, came)
    wanted = length_ms // MINUTE_MS
    minutes = next((step for most, step in _SUMS if wanted <= most), _COARSEST)
    since = (now_ms - length_ms) // MINUTE_MS // minutes * minutes
    rows, waiting = await store.with_unwritten(lambda archive: dict(archive.rollups.sums(minutes, since)))
    for key, minute, row in waiting:
        if minute >= since:
            rows[key] = rows.get(key, 0) + row
    known = {each.key: each for each in in_memory(table, table.newest)}
    found = [
        Came(key, row, known[key].open if key in known else 0, known[key].last if key in known else 0)
        for key, row in rows.items()
        if key.side != TOTAL
    ]
    found += [each._replace(row=0) for key, each in known.items() if key not in rows]
    return Window(since * MINUTE_MS, now_ms, tuple(_living(iter(found), alive, now_ms)))


def _living(came: Iterator[Came], alive: Mapping[tuple[str, str], int], now_ms: int) -> Iterator[Came]:
    """No connection outlives the proxies that hold it, and nothing is seen in the rest of this slot."""
    for each in came:
        gone = each.open and (each.key.namespace, each.key.workload) not in alive
        if gone or each.last > now_ms:
            yield each._replace(open=0 if gone else each.open, last=min(each.last, now_ms))
        else:
            yield each
