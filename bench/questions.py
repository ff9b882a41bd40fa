"""How long the telemetry store takes to answer: a day of 100 and of 1,000 workloads, windows up to 24 h.

    python bench/questions.py [--workloads 100 1000] [--hours 24] [--rounds 7]

The store is filled by its own code with a clock of our own (``filling.py``), closed, and opened again as
a restart does (``start``). Then every question is asked in its process, and its answer made JSON:
``first_ms`` when it is asked the first time, ``ms`` the median after that: CPU time of all threads, which
other work on the machine hardly touches.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import msgspec

sys.path.insert(0, str(Path(__file__).parent))

from filling import Clock, fill

from weft.telemetry.answers import QUESTIONS
from weft.telemetry.limits import Limits
from weft.telemetry.store import Store

ASKED = (
    *(f"workloads?window={window}" for window in ("1m", "1h", "24h")),
    *(f"edges?window={window}" for window in ("1m", "1h", "24h")),
    *(f"stat?by=workload&window={window}" for window in ("1m", "1h", "24h")),
    "stat?by=service&window=1m",
    "stat?by=version&of=service:bench/s7&window=1m",
    "stat?by=caller&of=bench/s7-v7&window=1m",
    "stat?by=caller&of=bench/s7-v7&window=24h",
    "series?since=1h",
    "series?since=24h",
    "series?metric=p95&of=bench/s7-v7&since=1h",
    "series?metric=p95&of=bench/s7-v7&since=24h",
    "series?metric=latency&of=service:bench/s7&since=1h",
    "series?by=service&since=1h",
    "health",
)


async def ask(store: Store, asked: str) -> tuple[float, int]:
    """CPU time in ms, and bytes."""
    name, _, query = asked.partition("?")
    began = time.process_time()
    body = msgspec.json.encode(await QUESTIONS[name](store, dict(parse_qsl(query))))
    return (time.process_time() - began) * 1e3, len(body)


async def measure(workloads: int, hours: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="weft-b") as folder:
        path = Path(folder) / "telemetry.sqlite"
        clock = Clock(time.time_ns() // 1_000_000)
        began = time.process_time()
        store = await fill(path, workloads, hours, clock)
        filled = time.process_time() - began
        await store.close()
        began, wall = time.process_time(), time.monotonic()
        store = Store(path, Limits(), now_ms=clock)
        started = {
            "cpu_s": round(time.process_time() - began, 2), "wall_s": round(time.monotonic() - wall, 2)
        }  # fmt: skip
        answers = {}
        for asked in ASKED:
            clock.now_ms += 1_000
            first, size = await ask(store, asked)
            times = []
            for _ in range(rounds):
                clock.now_ms += 1_000
                times.append((await ask(store, asked))[0])
            answers[asked] = {
                "first_ms": round(first, 1),
                "ms": round(statistics.median(times), 1),
                "kb": round(size / 1e3),
            }
        health = await QUESTIONS["health"](store, {})
        await store.close()
    return {
        "series": health["series"],
        "disk_mb": round(health["diskBytes"] / 1e6, 1),
        "fill_cpu_s": round(filled, 1),
        "start": started,
        "answers": answers,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", type=int, nargs="+", default=[100, 1_000])
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(
        json.dumps(
            {
                f"{workloads} workloads": asyncio.run(measure(workloads, options.hours, options.rounds))
                for workloads in options.workloads
            }
        )
    )


if __name__ == "__main__":
    main()
