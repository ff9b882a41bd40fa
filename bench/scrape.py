"""One scrape of a host with 100 workloads: how long, how large, what it costs the node.

    python bench/scrape.py [--workloads 100] [--series 10] [--rounds 7]

The sidecars are played: each answers on a Unix socket what an Envoy with ``--series`` calls (a service, a
caller, a status each) shows, as real ones answer within milliseconds of their own. So what is measured is the
node's part: asking, relabelling, merging, writing. ``grown_mb`` is what the process grew by.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from weft.node.admin import ask
from weft.node.metrics.exposition import Page, of_proxy

BUCKETS = ("0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "2500", "5000", "+Inf")


def envoy(series: int) -> bytes:
    """A page as an Envoy writes it: so many calls, and 150 series of its own."""
    labels = [
        ",".join(
            f'{side}_{key}="{value}"'
            for side in ("source", "destination")
            for key, value in (
                ("workload", f"web-{number % 7}"), ("workload_namespace", "shop"), ("app", "web"),
                ("version", ""), ("cluster", "weft"), ("canonical_service", "web"),
                ("canonical_revision", "latest"), ("principal", "spiffe://cluster.local/ns/shop/sa/web"),
            )
        )
        + f',destination_service="s{number}.shop.svc.cluster.local",response_code="200",reporter="source"'
        for number in range(series)
    ]  # fmt: skip
    lines = ["# TYPE envoy_istio_requests_total counter"]
    lines += [f"envoy_istio_requests_total{{{one}}} 7" for one in labels]
    for name in ("request_duration_milliseconds", "request_bytes", "response_bytes"):
        lines.append(f"# TYPE envoy_istio_{name} histogram")
        for one in labels:
            lines += [f'envoy_istio_{name}_bucket{{{one},le="{bound}"}} 3' for bound in BUCKETS]
            lines += [f"envoy_istio_{name}_sum{{{one}}} 3.5", f"envoy_istio_{name}_count{{{one}}} 7"]
    for number in range(150):
        lines += [
            f"# TYPE envoy_own_{number} gauge",
            f'envoy_own_{number}{{envoy_cluster_name="xds-grpc"}} 1',
        ]
    return ("\n".join(lines) + "\n").encode()


async def measure(workloads: int, series: int, rounds: int) -> dict[str, Any]:
    text = envoy(series)
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async def one(number: int, path: Path) -> list[Any]:
        reply = await ask(path, "/stats/prometheus?usedonly")
        return list(of_proxy(reply.body, {"namespace": "shop", "pod": f"web-{number}"}))

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.sock" for number in range(workloads)]
        servers = [await asyncio.start_unix_server(speak, str(path)) for path in paths]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, cpu, size = [], [], 0
        for _ in range(rounds):
            began, used = time.perf_counter(), time.process_time()
            page = Page()
            for found in await asyncio.gather(*(one(*each) for each in enumerate(paths))):
                page.add(found)
            size = sum(len(part) for part in page.chunks())
            wall.append(time.perf_counter() - began)
            cpu.append(time.process_time() - used)
        for server in servers:
            server.close()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "workloads": workloads,
        "lines": workloads * text.count(b"\n"),
        "page_mb": round(size / 1e6, 1),
        "wall_ms": round(statistics.median(wall) * 1e3),
        "cpu_ms": round(statistics.median(cpu) * 1e3),
        "grown_mb": round((after - before) / 1024, 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", type=int, default=100)
    parser.add_argument("--series", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(measure(options.workloads, options.series, options.rounds))))


if __name__ == "__main__":
    main()
