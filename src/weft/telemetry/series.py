"""Metrics in memory: for each series what it counted, every 10 s of the last hour. Bounded.

A series keeps the sums since it began, noted at the end of each slot of 10 s in which they grew. What came in
any window is the difference of two notes, however long the window is.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from weft.telemetry.limits import Limits, Losses
from weft.telemetry.rows import CLOSED, OPENED, Row, column, is_full

SLOT_MS: Final = 10_000
_SLOTS_A_MINUTE: Final = 6
HOUR: Final = 360
"""Slots in an hour."""
_RECENT: Final = 30
_EVICT_IDLE: Final = 60
_CLOCK_STEP: Final = 6
# A tenth beyond the limits for what takes in the others.
_MORE: Final = 10
TOTAL: Final = "total"
OTHER: Final = "*"
"""Stands for the names of all that there was no room for; no workload can be called so."""


class SeriesKey(NamedTuple):
    """What is counted apart. What is not known is empty.

    ``side``: ``destination`` or ``source``, whoever tells, or ``total``; of itself it tells ``kind``
    (``workload``, ``gateway``) to ``principal``. The fields of ``peer_*`` are its word about the other end.
    ``app``: the canonical service. ``secured``: ``mtls``, ``none``, or ``unsent`` for what its caller's proxy
    did not send on. ``code``: of HTTP; ``grpc``: a number; ``flags``: Envoy's response flags.
    """

    side: str
    kind: str
    namespace: str
    workload: str
    app: str
    version: str
    principal: str
    peer_namespace: str = ""
    peer_workload: str = ""
    peer_app: str = ""
    peer_version: str = ""
    peer_principal: str = ""
    service: str = ""
    service_name: str = ""
    service_namespace: str = ""
    protocol: str = "http"
    secured: str = ""
    code: str = ""
    grpc: str = ""
    flags: str = ""

    def without_peer(self) -> SeriesKey:
        """The series that takes what there is no room for."""
        return SeriesKey(*self[:7], peer_workload=OTHER, protocol=self.protocol)

    def without_names(self) -> SeriesKey:
        """The series for what there is not even room for that."""
        return SeriesKey(
            self.side, "other", OTHER, OTHER, "", "", "", peer_workload=OTHER, protocol=self.protocol
        )


class Series:
    """``total``: since it began. ``notes``: totals at the end of ``slots``. ``open``: connections."""

    __slots__ = ("base", "dirty", "key", "last", "noted", "notes", "open", "slots", "total")

    def __init__(self, key: SeriesKey, slot: int, opened: int = 0) -> None:
        self.key = key
        self.total: Row = 0
        self.noted: Row = 0
        self.base: Row = 0
        self.slots = array("q")
        self.notes: list[Row] = []
        self.last = slot
        self.dirty = False
        self.open = opened

    def before(self, slot: int) -> Row:
        """The totals at the beginning of a slot."""
        place = bisect_left(self.slots, slot)
        if place == len(self.slots) and slot > self.last:
            return self.total
        return self.notes[place - 1] if place else self.base

    def steps(self, starts: Sequence[int]) -> Iterator[tuple[int, Row]]:
        """What came from each of these slots to the next (place, row), where anything did."""
        earlier = self.before(starts[0])
        slots, notes, last = self.slots, self.notes, len(self.slots)
        noted = bisect_left(slots, starts[0])
        for place, slot in enumerate(starts[1:]):
            while noted < last and slots[noted] < slot:
                noted += 1
            known = notes[noted - 1] if noted else self.base
            later = known if noted < last else self.before(slot)
            if later != earlier:
                yield place, later - earlier
                earlier = later

    def note(self, slot: int) -> Row:
        """Keep the totals as those at the end of ``slot``; what came since the note before."""
        grown = self.total - self.noted
        self.noted = self.total
        if self.slots and self.slots[-1] >= slot:
            self.notes[-1] = self.total
        else:
            self.slots.append(slot)
            self.notes.append(self.total)
        self.dirty = False
        return grown

    def forget(self, before: int) -> int:
        """Drop notes of slots before that one; how many those were."""
        place = bisect_left(self.slots, before)
        if place:
            self.base = self.notes[place - 1]
            del self.slots[:place], self.notes[:place]
        return place

    def thin(self, before: int) -> int:
        """Of each minute that is over before that slot keep the last note; how many went."""
        kept = [
            place
            for place, slot in enumerate(self.slots)
            if slot >= before
            or place + 1 == len(self.slots)
            or self.slots[place + 1] // _SLOTS_A_MINUTE != slot // _SLOTS_A_MINUTE
        ]
        gone = len(self.slots) - len(kept)
        if gone:
            self.slots = array("q", (self.slots[place] for place in kept))
            self.notes = [self.notes[place] for place in kept]
        return gone


class SeriesTable:
    """Every series that grew in the last hour, and in ``totals`` each call of the mesh once.

    ``horizon``: the first slot that it knows whole. ``pending``: growth by series and minute that is to be
    written down. ``total_of``: which of the totals a series counts for, None for one that does not: what it
    tells is also told by the other end (``calls.total_of``).
    """

    def __init__(
        self,
        limits: Limits,
        losses: Losses,
        now_ms: int,
        total_of: Callable[[SeriesTable, SeriesKey], SeriesKey | None] = lambda _, __: None,
    ) -> None:
        self._limits = limits
        self._losses = losses
        self._total_of = total_of
        self._series: dict[SeriesKey, Series] = {}
        self._of_one: dict[str, int] = {}
        self._telling: dict[tuple[str, str], int] = {}
        self._dirty: list[Series] = []
        self._just_noted: list[tuple[SeriesKey, Row]] = []
        self._just_slot = 0
        self._notes = 0
        self.newest = now_ms // SLOT_MS
        self.horizon = self.newest - HOUR
        self.totals: dict[SeriesKey, Series] = {}
        self.pending: dict[tuple[SeriesKey, int], Row] = {}

    def __len__(self) -> int:
        return len(self._series)

    def __iter__(self) -> Iterator[Series]:
        return iter(self._series.values())

    def tells(self, namespace: str, workload: str) -> bool:
        """Whether that workload's own proxy told of calls to it in the last hour."""
        return (namespace, workload) in self._telling

    def open(self, key: SeriesKey) -> int:
        """Connections of a series that are open now."""
        series = self._series.get(key)
        return series.open if series is not None else 0

    def load(self, key: SeriesKey, minutes: Iterable[tuple[int, Row]], opened: int) -> None:
        """Begin with what was kept: (minute since the epoch, what came in it), oldest first."""
        series = self._total(key) if key.side == TOTAL else self._find(key, self.newest)
        if series.notes:  # it is the series of others by now
            return
        series.open += opened
        for minute, row in minutes:
            series.total += row
            series.last = min((minute + 1) * _SLOTS_A_MINUTE, self.newest) - 1
            series.slots.append(series.last)
            series.notes.append(series.total)
        series.noted = series.total
        if key.side == "destination" and series.notes:
            self._telling[key.namespace, key.workload] = series.last
        self._notes += len(series.notes) if key.side != TOTAL else 0

    def begin(self, minute: int) -> None:
        """Of what was kept, the time since that minute was loaded."""
        self.horizon = max(self.horizon, minute * _SLOTS_A_MINUTE)

    def add(self, key: SeriesKey, row: Row, now_ms: int) -> None:
        """Count what a proxy tells, now; not what is more than any proxy can count."""
        slot = self.advance(now_ms)
        series = self._find(key, slot)
        total = series.total + row
        if is_full(total):
            self._losses.points_unusable += 1
            return
        series.total = total
        series.open = max(0, series.open + column(row, OPENED) - column(row, CLOSED))
        series.last = slot
        if not series.dirty:
            series.dirty = True
            self._dirty.append(series)

    def advance(self, now_ms: int) -> int:
        """Come to the slot of now, and close those before. A clock that is set back stands still at first.

        One that is set back by more than a minute makes the time before it unknowable: it is forgotten.
        """
        slot = now_ms // SLOT_MS
        if slot > self.newest:
            self.close()
            self.newest = slot
        elif slot < self.newest - _CLOCK_STEP:
            self.close()
            self._losses.clock_steps += 1
            self._notes = 0
            for series in (*self, *self.totals.values()):
                series.base = series.total
                series.slots, series.notes, series.last = array("q"), [], slot
            self._just_noted.clear()
            self.newest = self.horizon = slot
        return self.newest

    def close(self) -> None:
        """Note what came in the newest slot, also where it is not over yet."""
        self._sum_up()
        self._just_slot = self.newest
        for series in self._dirty:
            self._notes -= len(series.notes)
            grown = series.note(self.newest)
            self._notes += len(series.notes)
            self._just_noted.append((series.key, grown))
            self._pend(series.key, self.newest, grown)
            if series.key.side == "destination":
                self._telling[series.key.namespace, series.key.workload] = self.newest
        self._dirty.clear()

    def finish(self) -> None:
        """Note everything, and have it in the totals too: nothing more is told."""
        self.close()
        self._sum_up()

    def unwritten(self, *, totals: bool) -> Iterator[tuple[SeriesKey, int, Row]]:
        """What is not on disk yet, of series or of ``totals``: key, minute, growth; up to now."""
        for (key, minute), row in self.pending.items():
            if (key.side == TOTAL) is totals:
                yield key, minute, row
        for slot, key, row in self.unsummed() if totals else ():
            if (of := self._total_of(self, key)) is not None:
                yield of, slot // _SLOTS_A_MINUTE, row
        for series in self._dirty if not totals else ():
            yield series.key, self.newest // _SLOTS_A_MINUTE, series.total - series.noted

    def unsummed(self) -> Iterator[tuple[int, SeriesKey, Row]]:
        """What is not in ``totals`` yet: slot, series, growth."""
        for key, row in self._just_noted:
            yield self._just_slot, key, row
        for series in self._dirty:
            yield self.newest, series.key, series.total - series.noted

    def _sum_up(self) -> None:
        """Add the slot before to the total. Not the newest: both ends of a call tell within some seconds."""
        grown: dict[SeriesKey, Row] = {}
        for key, row in self._just_noted:
            if (of := self._total_of(self, key)) is not None:
                grown[of] = grown.get(of, 0) + row
        self._just_noted.clear()
        for of, row in grown.items():
            total = self._total(of)
            total.total += row
            total.last = self._just_slot
            total.note(self._just_slot)
            self._pend(of, self._just_slot, row)

    def _total(self, key: SeriesKey) -> Series:
        total = self.totals.get(key)
        if total is None:
            total = self.totals[key] = Series(key, self.newest)
        return total

    def _pend(self, key: SeriesKey, slot: int, grown: Row) -> None:
        where = key, slot // _SLOTS_A_MINUTE
        self.pending[where] = self.pending.get(where, 0) + grown

    def _find(self, key: SeriesKey, slot: int) -> Series:
        """The series, or the one that takes in what there is no room for."""
        for each in (key, key.without_peer(), key.without_names()):
            if (series := self._series.get(each)) is not None or (
                series := self._make(each, slot)
            ) is not None:
                self._losses.series_overflow += each is not key
                return series
        raise AssertionError  # there is always room for the last

    def _make(self, key: SeriesKey, slot: int) -> Series | None:
        if key.kind != "other":
            most, most_of_one = self._limits.series, self._limits.series_of_one
            if key.peer_workload == OTHER:
                most, most_of_one = most + most // _MORE, most_of_one + most_of_one // _MORE
            if self._of_one.get(key.principal, 0) >= most_of_one:
                return None
            if len(self._series) >= most:
                self._losses.series_evicted += self._evict(self.newest - _EVICT_IDLE)
                if len(self._series) >= most:
                    return None
        self._of_one[key.principal] = self._of_one.get(key.principal, 0) + 1
        made = self._series[key] = Series(key, slot)
        return made

    def trim(self) -> None:
        """Let go of what is more than an hour ago, and of what is too much."""
        floor = self.newest - HOUR
        while True:
            self.horizon = max(self.horizon, floor)
            self._notes -= sum(series.forget(self.horizon) for series in self)
            if self._notes <= self._limits.notes or floor >= self.newest:
                break
            self._notes -= sum(series.thin(self.newest - _RECENT) for series in self)
            floor += _RECENT if self._notes > self._limits.notes else 0
        for total in self.totals.values():
            total.forget(self.newest - HOUR)
        self._evict(self.newest - HOUR)
        for who in [who for who, slot in self._telling.items() if slot < self.newest - HOUR]:
            del self._telling[who]

    def _evict(self, before: int) -> int:
        """Forget series that have not grown since; how many. Connections that are still open keep theirs."""
        idle = [each for each in self if each.last < before and not (each.open or each.dirty)]
        for series in idle:
            del self._series[series.key]
            self._notes -= len(series.notes)
            left = self._of_one[series.key.principal] - 1
            if left:
                self._of_one[series.key.principal] = left
            else:
                del self._of_one[series.key.principal]
        return len(idle)
