"""Queries a second of the DNS process, by one client on loopback: a name of the mesh, over UDP.

    python bench/dns.py [SECONDS]

The client keeps 64 queries under way and is itself Python: the figure is a lower bound.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import tempfile
import time
from pathlib import Path

from weft.node.layout import Layout
from weft.node.resolver import Listening, Resolver
from weft.node.sidecar import proxy_uid

_UNDER_WAY = 64
_NAMES = 1000


def _query(number: int) -> bytes:
    name = f"service-{number % _NAMES}"
    return (
        number.to_bytes(2, "big") + b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
        + bytes([len(name)]) + name.encode() + b"\x04shop\x00\x00\x01\x00\x01"
    )  # fmt: skip


def _measure(port: int, seconds: float) -> tuple[int, list[float]]:
    queries = [_query(number) for number in range(_NAMES)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        client.settimeout(5)
        sent: dict[bytes, float] = {}
        took: list[float] = []
        number = 0
        end = time.perf_counter() + seconds
        while (now := time.perf_counter()) < end:
            while len(sent) < _UNDER_WAY:
                query = queries[number % _NAMES]
                number += 1
                sent[query[:2]] = now
                client.send(query)
            answer = client.recv(512)
            assert answer[7] == 1, "no answer in the reply"
            took.append(time.perf_counter() - sent.pop(answer[:2]))
    return len(took), sorted(took)


async def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    with tempfile.TemporaryDirectory(prefix="weft-b") as base:
        Path(base).chmod(0o711)
        layout = Layout("bench", Path(base) / "run" / "bench", Path(base) / "state" / "bench")
        layout.prepare(proxy_uid=proxy_uid())
        resolver = Resolver(layout, owner=proxy_uid(), resolvers=())
        await resolver.start()
        try:
            await resolver.publish(
                {
                    f"service-{n}.shop.svc.cluster.local": (f"240.240.{n // 250}.{n % 250 + 1}",)
                    for n in range(_NAMES)
                }
            )
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            await resolver.listen(Listening(name="bench", namespace="shop", port=port))
            count, took = await asyncio.to_thread(_measure, port, seconds)
            status = Path(f"/proc/{resolver.pid}/status").read_text()
            rss = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
            print(
                json.dumps(
                    {
                        "queries_per_s": round(count / seconds),
                        "p50_ms": round(took[len(took) // 2] * 1000, 3),
                        "p99_ms": round(took[len(took) * 99 // 100] * 1000, 3),
                        "rss_mb": round(int(rss) / 1024, 1),
                    }
                )
            )
        finally:
            await resolver.stop()


asyncio.run(main())
