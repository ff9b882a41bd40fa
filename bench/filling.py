"""A telemetry store that has seen a day of a mesh, filled by its own code with a clock of our own.

Workloads are versions of services, ten to each. Each calls those of three other services, one of which
fails now and then in every second of them, and both ends tell of it: seven series for each workload. They
tell every minute of the last two hours and, before that, once a quarter of an hour: the sums are the same
by the quarter and by the hour.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from weft.spiffe import SpiffeId
from weft.telemetry.limits import Limits
from weft.telemetry.metrics import Told
from weft.telemetry.rows import DURATION_US, FIRST_BUCKET, REQUESTS, WIDTH, Row, pack
from weft.telemetry.series import SeriesKey
from weft.telemetry.store import Store

MINUTE_MS = 60_000
_FINE_MINUTES = 120
_QUARTER = 15
_CALLED = 3


class Clock:
    """The store's time, in ms."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


def _end(number: int) -> dict[str, str]:
    service = f"s{number // 10}"
    return {
        "namespace": "bench", "workload": f"{service}-v{number % 10}", "app": service,
        "version": f"v{number % 10}", "principal": f"spiffe://cluster.local/ns/bench/sa/{service}",
    }  # fmt: skip


def keys(workloads: int) -> Iterator[SeriesKey]:
    """The series of so many workloads."""
    for number in range(workloads):
        for turn in range(_CALLED):
            other = (number // 10 * 10 + (1, 3, 7)[turn] * 10) % workloads + number % 10
            for code in ("200", "503") if number % 6 == turn else ("200",):
                source, destination = _end(number), _end(other)
                called = {
                    "service": f"{destination['app']}.bench.svc.cluster.local",
                    "service_name": destination["app"], "service_namespace": "bench",
                    "secured": "mtls", "code": code,
                }  # fmt: skip
                for side, own, peer in (
                    ("source", source, destination),
                    ("destination", destination, source),
                ):
                    seen = peer if side == "source" else {"principal": peer["principal"]}
                    yield SeriesKey(
                        side, "workload", **own, **{f"peer_{name}": value for name, value in seen.items()},
                        **called,
                    )  # fmt: skip


def row(number: int, times: int = 1) -> Row:
    """What a series counts in a minute."""
    made = [0] * WIDTH
    made[REQUESTS] = (10 + number % 90) * times
    made[DURATION_US] = made[REQUESTS] * 5_000
    for place in range(4):
        made[FIRST_BUCKET + 1 + (number + place) % 9] = made[REQUESTS] // 4
    made[FIRST_BUCKET + 1] += made[REQUESTS] - made[REQUESTS] // 4 * 4
    return pack(made)


async def fill(path: Path, workloads: int, hours: int, clock: Clock, limits: Limits | None = None) -> Store:
    """The store, open, with so many hours until now in it."""
    until = clock.now_ms
    clock.now_ms = until - hours * 60 * MINUTE_MS
    store = Store(path, limits or Limits(), now_ms=clock)
    told = list(keys(workloads))
    ticks = range(clock.now_ms // MINUTE_MS * MINUTE_MS, until - MINUTE_MS, MINUTE_MS)
    trimmed = 0
    for at in ticks:
        fine = until - at <= _FINE_MINUTES * MINUTE_MS
        if not fine and at // MINUTE_MS % _QUARTER:
            continue
        clock.now_ms = at + 30_000
        for number, key in enumerate(told):
            store.series.add(key, row(number, 1 if fine else _QUARTER), clock.now_ms)
        clock.now_ms = at + MINUTE_MS
        await store.flush_metrics()
        trimmed += 1
        if trimmed % 10 == 0:
            store.series.trim()
    clock.now_ms = until
    for number, key in enumerate(told):
        store.series.add(key, row(number), clock.now_ms)
    for number in range(workloads):
        end = _end(number)
        identity = SpiffeId("cluster.local", end["namespace"], end["app"])
        name = f"{end['workload']}-0"
        store.tellers.hear(Told(identity, workload=end["workload"], instance=name), clock.now_ms)
    store.series.trim()
    await store.flush_metrics(now=True)
    return store


def main() -> None:
    """Fill a file: ``python bench/filling.py FILE WORKLOADS HOURS``."""
    path, workloads, hours = sys.argv[1:]

    async def run() -> None:
        store = await fill(Path(path), int(workloads), int(hours), Clock(time.time_ns() // 1_000_000))
        await store.close()

    asyncio.run(run())


if __name__ == "__main__":
    main()
