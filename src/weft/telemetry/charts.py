"""The question ``series``: one metric over time, in steps."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Container, Mapping
from heapq import nlargest
from typing import Any, Final

from weft.telemetry.archive import Archive
from weft.telemetry.calls import counted
from weft.telemetry.histogram import BOUNDS, percentile
from weft.telemetry.rollups import MINUTE_MS
from weft.telemetry.rows import (
    CLOSED,
    DURATION_US,
    FIRST_BUCKET,
    OPENED,
    RECEIVED,
    REQUESTS,
    SENT,
    Row,
    column,
)
from weft.telemetry.selection import GROUPINGS, Selection, choice
from weft.telemetry.series import SLOT_MS, TOTAL, Series, SeriesKey
from weft.telemetry.signals import Signals
from weft.telemetry.store import Store
from weft.telemetry.windows import BadQuestionError, Parameters, duration_ms

_POINTS: Final = 120
_MOST_POINTS: Final = 2_000
_MOST_SERIES: Final = 20
_OTHERS: Final = "other"
_STEPS_S: Final = (10, 20, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200, 86_400)
# So many series, then others may run.
_BREATH: Final = 100
# Of more series than these only the busiest groups are gone through step by step.
_MANY: Final = 1_000
# What is kept by the minute and by the quarter is not kept for ever.
_TIERS: Final = ((60, 30), (15, 7), (1, 1))
_DAY_MINUTES: Final = 1_440
# Of so long a time the quarters say which groups are the busiest, of a longer one the hours.
_HOURS_OF_QUARTERS: Final = 6

Steps = dict[int, Signals]
Value = Callable[[Signals, float], float | int | None]


def _percentile(share: float) -> Value:
    return lambda signals, _: _rounded(percentile(signals.row[FIRST_BUCKET:], share))


def _rate(*columns: int) -> Value:
    return lambda signals, seconds: round(sum(column(signals.sum, each) for each in columns) / seconds, 4)


def _success(signals: Signals, _: float) -> float | None:
    requests = column(signals.sum, REQUESTS)
    return round(1 - signals.errors / requests, 6) if requests else None


def _mean(signals: Signals, _: float) -> float | None:
    row = signals.row
    timed = sum(row[FIRST_BUCKET:])
    return round(row[DURATION_US] / 1_000 / timed, 3) if timed else None


def _mtls(signals: Signals, _: float) -> float | None:
    return signals.mtls


_METRICS: Final[Mapping[str, tuple[str, Value]]] = {
    "requests": ("1/s", _rate(REQUESTS)),
    "errors": ("1/s", lambda signals, seconds: round(signals.errors / seconds, 4)),
    "success": ("share", _success),
    "p50": ("ms", _percentile(0.50)),
    "p95": ("ms", _percentile(0.95)),
    "p99": ("ms", _percentile(0.99)),
    "mean": ("ms", _mean),
    "bytes": ("B/s", _rate(SENT, RECEIVED)),
    "opened": ("1/s", _rate(OPENED)),
    "connections": ("", lambda signals, _: signals.open),
    "mtls": ("share", _mtls),
    "latency": ("requests", lambda signals, _: column(signals.sum, REQUESTS)),
}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


async def series(store: Store, asked: Parameters) -> dict[str, Any]:
    """``metric`` of what ``of`` names, by ``by`` or as one, ``since`` (1h), by the ``step``."""
    metric = choice(asked, "metric", tuple(_METRICS))
    by = choice(asked, "by", ("", *GROUPINGS))
    chosen = Selection.read(asked)
    length_ms = duration_ms(asked, "since", "1h")
    now_ms = store.now_ms()
    store.series.advance(now_ms)
    step_ms = _step_ms(asked, length_ms)
    first = (now_ms - length_ms) // step_ms * step_ms
    fine = first // SLOT_MS >= store.series.horizon
    if not fine:
        step_ms = max(step_ms, _step_on_disk(length_ms) * MINUTE_MS)
        first = (now_ms - length_ms) // step_ms * step_ms
    starts = list(range(first, now_ms, step_ms))
    gather = _from_memory if fine else _from_disk
    found = await gather(store, _Question(chosen, "" if metric == "latency" else by), starts, step_ms)
    answer: dict[str, Any] = {
        "metric": metric,
        "unit": _METRICS[metric][0],
        "from": first,
        "to": now_ms,
        "step": step_ms,
        "times": starts,
    }
    if metric == "latency":
        whole = found.get("", {})
        empty = Signals()
        counts = [whole.get(place, empty).row[FIRST_BUCKET:] for place in range(len(starts))]
        return {**answer, "bounds": list(BOUNDS), "series": [{"key": "", "counts": counts}]}
    if metric == "connections" and fine:
        _connections(store, _Question(chosen, by), starts, step_ms, found)
    shown = {"": found.get("", {})} if not by else _largest(found)
    value = _METRICS[metric][1]
    return {
        **answer,
        "series": [
            {"key": name, "values": _values(steps, value, starts, now_ms, step_ms)}
            for name, steps in shown.items()
        ],
    }


def _values(
    steps: Steps, value: Value, starts: list[int], now_ms: int, step_ms: int
) -> list[float | int | None]:
    empty = Signals()
    # The step that is not over is shorter.
    return [
        value(steps.get(place, empty), max(1_000, min(step_ms, now_ms - start)) / 1_000)
        for place, start in enumerate(starts)
    ]


def _step_ms(asked: Parameters, length_ms: int) -> int:
    if asked.get("step"):
        step_ms = duration_ms(asked, "step", "") // SLOT_MS * SLOT_MS
    else:
        wanted = length_ms / _POINTS / 1_000
        step_ms = next((step for step in _STEPS_S if step >= wanted), _STEPS_S[-1]) * 1_000
    if length_ms / step_ms > _MOST_POINTS:
        raise BadQuestionError(f"step: that makes more than {_MOST_POINTS} points; write a longer one")
    return step_ms


def _step_on_disk(length_ms: int) -> int:
    """The shortest period (minutes) that is kept for so long a time."""
    minutes = length_ms // MINUTE_MS
    return min(step for step, days in _TIERS if minutes <= days * _DAY_MINUTES)


class _Question:
    """``group``: under which name a series counts, None for one that does not."""

    def __init__(self, chosen: Selection, by: str) -> None:
        self.chosen = chosen
        self.whole = chosen.everything and not by
        self.is_grouped = bool(by)
        self._grouping = GROUPINGS.get(by)

    def group(self, key: SeriesKey, tells: Callable[[str, str], bool]) -> str | None:
        if self.whole:
            return "" if key.side == TOTAL else None
        if key.side == TOTAL or not self.chosen.wants(key):
            return None
        if not self.chosen.counts(key, once=counted(key, tells)):
            return None
        return self._grouping(key, self.chosen)[0] if self._grouping else ""

    def series(self, store: Store) -> list[Series]:
        """Those in memory that may count."""
        return list(store.series.totals.values()) if self.whole else list(store.series)


async def _from_memory(
    store: Store, question: _Question, starts: list[int], step_ms: int
) -> dict[str, Steps]:
    table = store.series
    slots = [start // SLOT_MS for start in starts] + [(starts[-1] + step_ms) // SLOT_MS]
    found: defaultdict[str, Steps] = defaultdict(dict)
    chosen = [
        (name, each)
        for each in question.series(store)
        if each.last >= slots[0] and (name := question.group(each.key, table.tells)) is not None
    ]
    busiest = _busiest(chosen, slots[0]) if len(chosen) > _MANY else None
    for number, (name, each) in enumerate(chosen):
        if busiest is not None and name not in busiest:
            continue
        steps = found[name]
        for place, row in each.steps(slots):
            steps.setdefault(place, Signals()).count(each.key, row)
        if number % _BREATH == _BREATH - 1:
            await asyncio.sleep(0)
    for slot, key, row in table.unsummed() if question.whole else ():
        place = (slot * SLOT_MS - starts[0]) // step_ms
        if counted(key, table.tells) and 0 <= place < len(starts):
            found[""].setdefault(place, Signals()).count(key, row)
    return found


def _busiest(chosen: list[tuple[str, Series]], since: int) -> set[str]:
    """The groups with most requests and connections in the window: of many, the others are left out."""
    calls: defaultdict[str, int] = defaultdict(int)
    for name, each in chosen:
        before = each.before(since)
        came = each.total - before
        calls[name] += column(came, REQUESTS) + column(came, OPENED)
    return set(nlargest(_MOST_SERIES, calls, key=lambda name: calls[name]))


async def _from_disk(store: Store, question: _Question, starts: list[int], step_ms: int) -> dict[str, Steps]:
    tells = store.series.tells
    minutes = next((each for each, _ in _TIERS if step_ms % (each * MINUTE_MS) == 0), 1)
    first, last = starts[0] // MINUTE_MS, (starts[-1] + step_ms) // MINUTE_MS
    found: defaultdict[str, Steps] = defaultdict(dict)

    def name_of(key: SeriesKey, told: Container[tuple[str, str]]) -> str | None:
        return question.group(key, lambda *who: who in told or tells(*who))

    def count(key: SeriesKey, name: str, minute: int, row: Row) -> None:
        place = (minute * MINUTE_MS - starts[0]) // step_ms
        if 0 <= place < len(starts):
            found[name].setdefault(place, Signals()).count(key, row)

    def read(archive: Archive) -> tuple[set[tuple[str, str]], set[str] | None]:
        known = archive.rollups.keys()
        told = {(key.namespace, key.workload) for key in known.values() if key.side == "destination"}
        names = {
            number: (key, name) for number, key in known.items() if (name := name_of(key, told)) is not None
        }
        busiest = None
        if question.is_grouped and len(names) > _MANY:
            coarse = 15 if last - first <= _HOURS_OF_QUARTERS * 60 else 60
            calls: defaultdict[str, int] = defaultdict(int)
            wanted = dict(names.values())
            for key, row in archive.rollups.sums(coarse, first // coarse * coarse):
                if key in wanted:
                    calls[wanted[key]] += column(row, REQUESTS) + column(row, OPENED)
            busiest = set(nlargest(_MOST_SERIES, calls, key=lambda name: calls[name]))
            names = {number: each for number, each in names.items() if each[1] in busiest}
        for at, number, row in archive.rollups.periods(minutes, first, last, names):
            count(*names[number], at, row)
        return told, busiest

    (told, busiest), waiting = await store.with_unwritten(read, totals=question.whole)
    told |= {(key.namespace, key.workload) for key, _, _ in waiting if key.side == "destination"}
    for key, minute, row in waiting:
        name = name_of(key, told)
        if name is not None and (busiest is None or name in busiest):
            count(key, name, minute // minutes * minutes, row)
    return found


def _connections(
    store: Store, question: _Question, starts: list[int], step_ms: int, found: dict[str, Steps]
) -> None:
    """How many connections were open at the end of each step: what is open now, less what came since."""
    alive = store.tellers.alive(store.now_ms())
    for each in store.series:
        name = question.group(each.key, store.series.tells) if not question.whole else _once(store, each.key)
        if name is None or not (each.open or column(each.total, OPENED)):
            continue
        steps = found.setdefault(name, {})
        opened = each.open if (each.key.namespace, each.key.workload) in alive else 0
        for place, start in enumerate(starts):
            came = each.total - each.before((start + step_ms) // SLOT_MS)
            grown = column(came, OPENED) - column(came, CLOSED)
            steps.setdefault(place, Signals()).open += max(0, opened - grown)


def _once(store: Store, key: SeriesKey) -> str | None:
    return "" if counted(key, store.series.tells) else None


def _largest(found: Mapping[str, Steps]) -> dict[str, Steps]:
    """The busiest, and the rest as one."""
    ordered = sorted(found, key=lambda name: (-sum(signals.calls for signals in found[name].values()), name))
    shown = {name: found[name] for name in ordered[:_MOST_SERIES]}
    for name in ordered[_MOST_SERIES:]:
        others = shown.setdefault(_OTHERS, {})
        for place, signals in found[name].items():
            others.setdefault(place, Signals()).merge(signals)
    return shown
