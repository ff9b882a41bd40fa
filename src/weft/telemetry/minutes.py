"""Metrics by the minute: each series of a proxy's deltas added up, bounded in number.

A cell is what came within one minute: a sum, or a histogram. The minutes that are over go to the archive; the
table holds those of now. Asked for by the question ``minutes``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from weft.spiffe import SpiffeId
from weft.telemetry.limits import Limits, Losses

MINUTE_MS: Final = 60_000
# A minute is over for good when its successor is: proxies push every 5 s.
_LATE: Final = 1

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Point:
    """What a proxy tells of one series since it told last. ``counts`` are by ``bounds``, one more than those.

    ``value``: of a counter the growth, of a histogram the sum of what it counted.
    """

    name: str
    labels: Labels
    value: float
    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()


@dataclass(slots=True)
class Cell:
    """A minute of a series."""

    value: float = 0.0
    bounds: tuple[float, ...] = ()
    counts: list[int] = field(default_factory=list)

    def add(self, value: float, bounds: tuple[float, ...], counts: Sequence[int]) -> None:
        """Add a point. One whose bounds differ (another version of weft) adds its value alone."""
        self.value += value
        if not self.counts:
            self.bounds, self.counts = bounds, list(counts)
        elif bounds == self.bounds and len(counts) == len(self.counts):
            self.counts = [have + more for have, more in zip(self.counts, counts, strict=True)]


Row = tuple[str, Labels, int, Cell]
"""Name, labels, minute since the epoch, and what came in it."""


class SeriesTable:
    """The minutes of now, and of the last that are not yet written."""

    def __init__(self, limits: Limits, losses: Losses) -> None:
        self._most = limits.series
        self._most_of_one = limits.series_of_one
        self._owned: Counter[str] = Counter()
        self._owners: dict[tuple[str, Labels], str] = {}
        self._losses = losses
        self._series: dict[tuple[str, Labels], dict[int, Cell]] = {}

    def __len__(self) -> int:
        return len(self._series)

    def add(self, point: Point, now_ms: int, owner: str = "") -> None:
        """Count a point within the minute of now. ``owner``: the identity of who tells it."""
        key = point.name, point.labels
        cells = self._series.get(key)
        if cells is None:
            if len(self._series) >= self._most or self._owned[owner] >= self._most_of_one:
                self._losses.series_left_out += 1
                return
            cells = self._series[key] = {}
            self._owners[key] = owner
            self._owned[owner] += 1
        minute = now_ms // MINUTE_MS
        cell = cells.get(minute)
        if cell is None:
            cell = cells[minute] = Cell()
        cell.add(point.value, point.bounds, point.counts)

    def take(self, now_ms: int) -> list[Row]:
        """The minutes that are over, which are forgotten here; series without any go too."""
        over = now_ms // MINUTE_MS - _LATE
        found: list[Row] = []
        for (name, labels), cells in list(self._series.items()):
            past = [minute for minute in cells if minute < over]
            found += [(name, labels, minute, cells.pop(minute)) for minute in past]
            if not cells:
                del self._series[name, labels]
                self._owned[self._owners.pop((name, labels))] -= 1
        return found

    def rows(self, name: str, since_ms: int) -> list[Row]:
        """What is not yet written of a metric."""
        first = since_ms // MINUTE_MS
        return [
            (name, labels, minute, cell)
            for (known, labels), cells in self._series.items()
            if known == name
            for minute, cell in cells.items()
            if minute >= first
        ]


def honest(labels: Mapping[str, str], identity: SpiffeId) -> Labels:
    """A proxy's labels, of which its own half must be about its own namespace and identity."""
    own = "destination" if labels.get("reporter") == "destination" else "source"
    said = dict(labels)
    for name, value in (("workload_namespace", identity.namespace), ("principal", str(identity))):
        label = f"{own}_{name}"
        if label in said and said[label] != "unknown":
            said[label] = value
    return tuple(sorted(said.items()))


def grouped(rows: Iterable[Row], by: Sequence[str], where: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows whose labels are as ``where`` says, added up for each value of the labels ``by``."""
    groups: dict[Labels, dict[int, Cell]] = {}
    for _, labels, minute, cell in rows:
        known = dict(labels)
        if any(known.get(name, "") != value for name, value in where.items()):
            continue
        key = tuple((name, known.get(name, "")) for name in by)
        cells = groups.setdefault(key, {})
        cells.setdefault(minute, Cell()).add(cell.value, cell.bounds, cell.counts)
    return [
        {
            "labels": dict(key),
            "bounds": list(next(iter(cells.values())).bounds),
            "points": [
                {"time": minute * MINUTE_MS, "value": cell.value, "counts": cell.counts}
                for minute, cell in sorted(cells.items())
            ],
        }
        for key, cells in sorted(groups.items())
    ]
