"""Memory and disk for 1,000 series, in the store, in an Envoy and in a node's page, and what bounds them.

    python bench/series_memory.py [--part store flood envoy page]

``store``: processes that are told of so many series every 10 s for ten minutes (by a clock of our own);
their private memory against that of one without, and the file. ``flood``: one that is told of twice the
series that it may have, then of spans until long after its file is full: what it grows to. ``envoy``: a
sidecar that counts by path (a tag of the Telemetry API), 500 and 1,000 paths, then 50,000: a path is one
counter and three histograms. ``page``: one scrape of 50 and of 100 played sidecars (``scrape.py``). Every
measurement is a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from filling import Clock, keys, row
from host import memory

_TICK_MS = 10_000
_TICKS = 60
_FLOOD = 2
_SMALL_DISK = 32 * 1024 * 1024


def files_mb(path: Path) -> float:
    """A database with what belongs to it."""
    return sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*")) / 1e6


async def store(series: int) -> dict[str, Any]:
    """What half an hour of so many series takes."""
    from weft.telemetry.limits import Limits
    from weft.telemetry.store import Store

    clock = Clock(time.time_ns() // 1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t" / "telemetry.db"
        kept = Store(path, Limits(), now_ms=clock)
        told = [key for _, key in zip(range(series), keys(series), strict=False)]
        for tick in range(_TICKS if series else 1):
            clock.now_ms += _TICK_MS
            for number, key in enumerate(told):
                kept.series.add(key, row(number), clock.now_ms)
            await kept.flush_metrics()
            if tick % 3 == 0:
                kept.series.trim()
        found = {"series": len(kept.series), **memory(os.getpid())}
        await kept.close()
        found["disk_mb"] = round(files_mb(path), 1)
        return found


async def flood() -> dict[str, Any]:
    """What a store becomes that is told of far too much."""
    from telemetry import _message, _metrics

    from weft.spiffe import SpiffeId
    from weft.telemetry.limits import Limits
    from weft.telemetry.store import Store

    limits = Limits(disk_bytes=_SMALL_DISK)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t" / "telemetry.db"
        kept = Store(path, limits)
        before = memory(os.getpid())
        workloads = limits.series * _FLOOD // 6
        for number in range(workloads):
            kept.take_metrics(_metrics(number, workloads), SpiffeId("cluster.local", "default", f"w{number}"))
            if number % 1_000 == 0:
                await kept.flush_metrics()
        with_series = memory(os.getpid())
        most = 0.0
        began = time.monotonic()
        while time.monotonic() - began < 10:
            for turn in range(10):
                kept.take_traces(_message(turn), SpiffeId("cluster.local", "default", f"w{turn}"))
            await kept.flush()
            most = max(most, files_mb(path))
        size = await kept.on_archive(lambda archive: archive.size())
        found = {
            "told_of_series": workloads * 6,
            "series": len(kept.series),
            "series_most": limits.series,
            "overflow": kept.losses.series_overflow,
            "grown_mb": round(with_series["private_mb"] - before["private_mb"], 1),
            "with_spans_mb": round(memory(os.getpid())["private_mb"] - before["private_mb"], 1),
            "spans_told": kept.received.spans,
            "disk_most_mb": round(limits.disk_bytes / 1e6, 1),
            "disk_used_mb": round(size / 1e6, 1),
            "files_most_mb": round(most, 1),
        }
        await kept.close()
        return found


def envoy() -> dict[str, Any]:
    """Memory of a sidecar by the number of series it counts, and when there are far too many."""
    from options import HOST, PORT, Bench, Config, _tags

    config: Config = _tags(path={"value": "request.path"})
    with ExitStack() as stack:
        bench = Bench(stack, 1, 1)
        address, way = stack.enter_context(bench.pair(config))
        client = way.envoys[1]

        def paths(count: int) -> None:
            script = Path(folder) / "paths.lua"
            script.write_text(
                "local n = 0\nrequest = function()\n  n = n + 1\n"
                f'  return wrk.format("GET", "/path-of-some-length/" .. (n % {count}))\nend\n'
            )
            subprocess.run(
                [
                    "wrk", "-t1", "-c4", f"-d{max(2, count // 5_000)}s", "-s", str(script),
                    "-H", f"Host: {HOST}", f"http://{address}:{PORT}/",
                ],
                check=True, capture_output=True,
            )  # fmt: skip

        folder = stack.enter_context(tempfile.TemporaryDirectory())
        paths(1)
        found: dict[str, Any] = {"none": memory(client.pid)}
        for count in (500, 1_000, 50_000):
            paths(count)
            found[f"{count} paths"] = memory(client.pid) | {
                "overflowed": client.stat("server.stats_overflow.histogram")
            }
        return found


def in_process(part: str, *more: str) -> Any:
    """The answer of this script, asked in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", part, *more], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def per_thousand(few: dict[str, Any], many: dict[str, Any], name: str, unit: str) -> float:
    """How much more of ``name`` 1,000 more of ``unit`` took."""
    return round((many[name] - few[name]) / (many[unit] - few[unit]) * 1_000, 2)


def stores() -> dict[str, Any]:
    """By the number of series."""
    found = {series: in_process("store", str(series)) for series in (0, 1_000, 5_000)}
    found[0]["series"] = 0
    return {
        "by_series": {str(series): one for series, one in found.items()},
        "mb_for_1000": per_thousand(found[0], found[5_000], "private_mb", "series"),
        "disk_mb_for_1000": per_thousand(found[0], found[5_000], "disk_mb", "series"),
    }


def page() -> dict[str, Any]:
    """By the number of lines."""
    from scrape import measure

    return asyncio.run(measure(int(sys.argv[3]), 10, 3))


def pages() -> dict[str, Any]:
    """The same of two hosts."""
    few, many = in_process("page", "50"), in_process("page", "100")
    return {"of_50": few, "of_100": many, "mb_for_1000": per_thousand(few, many, "grown_mb", "lines")}


PARTS = {
    "store": stores,
    "flood": lambda: in_process("flood"),
    "envoy": lambda: in_process("envoy"),
    "page": pages,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    match options.one:
        case ["store", series]:
            print(json.dumps(asyncio.run(store(int(series)))))
        case ["flood"]:
            print(json.dumps(asyncio.run(flood())))
        case ["envoy"]:
            print(json.dumps(envoy()))
        case ["page", _]:
            print(json.dumps(page()))
        case _:
            print(json.dumps({name: PARTS[name]() for name in options.part}))


if __name__ == "__main__":
    main()
