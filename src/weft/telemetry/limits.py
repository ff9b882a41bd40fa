"""How much is kept, and what was lost because of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Final

MEBIBYTE: Final = 1024 * 1024
_DISK_LEAST, _MEMORY_LEAST = 16 * MEBIBYTE, 256 * MEBIBYTE
_AGE_LEAST, _AGE_MOST = timedelta(minutes=10), timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a user grants: bytes on disk, bytes of memory, and how long spans and records stay.

    Raises:
        ValueError: one of them is less than telemetry can do with, or more than makes sense.
    """

    disk: int = 256 * MEBIBYTE
    memory: int = 1024 * MEBIBYTE
    age: timedelta = timedelta(hours=6)

    def __post_init__(self) -> None:
        if self.disk < _DISK_LEAST:
            raise ValueError("the disk is less than 16MiB: grant telemetry more")
        if self.memory < _MEMORY_LEAST:
            raise ValueError("the memory is less than 256MiB: grant telemetry more")
        if not _AGE_LEAST <= self.age <= _AGE_MOST:
            raise ValueError("the age is not between 10m and 720h")

    def limits(self) -> Limits:
        """Bounds in proportion: what is on disk grows and shrinks with it, what is in memory likewise."""
        usual = Limits()
        disk, memory = self.disk / USUAL.disk, self.memory / USUAL.memory
        return Limits(
            disk_bytes=self.disk,
            spans=round(usual.spans * disk),
            records=round(usual.records * disk),
            span_age=self.age,
            record_age=self.age,
            queue_bytes=round(usual.queue_bytes * memory),
            flows=round(usual.flows * memory),
            flows_of_one=round(usual.flows_of_one * memory),
            series=round(usual.series * memory),
            series_of_one=round(usual.series_of_one * memory),
            notes=round(usual.notes * memory),
        )


USUAL: Final = Room()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``queue_bytes``: received and not yet read. ``disk_bytes``: of the database. Times: how long at most.

    ``*_of_one``: of the workloads of one identity, so that none can crowd the others out. Of spans, records
    and bytes the ones who have the most give way first (``shares``).

    ``spans_per_second``: of more, whole traces are left out. ``examples``: concrete paths and addresses kept
    of a flow. ``texts``: different texts at one place of a path, or hosts of one workload, before they
    count as a parameter. ``notes``: of what series counted, in memory (170 bytes each); with more than that,
    fewer for each hour. ``tellers``: proxies. ``minute_age``, ``quarter_age``, ``hour_age``: of sums.
    """

    queue_bytes: int = 32 * 1024 * 1024
    disk_bytes: int = 256 * 1024 * 1024
    flows: int = 20_000
    flows_of_one: int = 2_000
    flow_age: timedelta = timedelta(days=7)
    spans: int = 200_000
    spans_per_second: int = 2_000
    span_age: timedelta = timedelta(hours=6)
    records: int = 50_000
    record_age: timedelta = timedelta(hours=6)
    series: int = 20_000
    series_of_one: int = 5_000
    notes: int = 400_000
    tellers: int = 10_000
    minute_age: timedelta = timedelta(days=1)
    quarter_age: timedelta = timedelta(days=7)
    hour_age: timedelta = timedelta(days=30)
    examples: int = 4
    texts: int = 40


@dataclass(slots=True)
class Losses:
    """Counted since the process began. ``refused_*``: did not fit into the queue, or were unreadable.

    ``series_overflow``: messages' rows that went into the series of others; ``series_evicted``: series that
    made room within their hour. ``metric_gaps``: times that proxies told of in no message, ``metric_gap_ms``
    long in sum. ``clock_steps``: the clock was set back, and the last hour's series were forgotten.
    ``push_overflow``: points for collectors that were counted without their labels; ``push_lost_points``: did
    not get there, so that the next ones say more; ``push_rejected_points``: refused there.
    """

    refused_messages: int = 0
    refused_bytes: int = 0
    unreadable: int = 0
    strangers: int = 0
    flows_evicted: int = 0
    spans_left_out: int = 0
    records_left_out: int = 0
    series_overflow: int = 0
    series_evicted: int = 0
    points_unusable: int = 0
    metric_gaps: int = 0
    metric_gap_ms: int = 0
    clock_steps: int = 0
    push_overflow: int = 0
    push_lost_points: int = 0
    push_rejected_points: int = 0
    not_written: int = 0

    def to_dict(self) -> dict[str, int]:
        """By name."""
        return asdict(self)


@dataclass(slots=True)
class Received:
    """Counted since the process began."""

    messages: int = 0
    spans: int = 0
    records: int = 0
    points: int = 0

    def to_dict(self) -> dict[str, int]:
        """By name."""
        return asdict(self)
