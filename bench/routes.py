"""A changed VirtualService, until a hundred real Envoys serve it.

    python bench/routes.py [--envoys 100] [--services 100] [--rounds 15] [--rootless]

A real control plane and node; each Envoy is the sidecar of a workload that registered, with its own
certificate, told by ``http_proxy`` (so that each has a listener that can be asked from here). A round applies
a VirtualService by ``POST /weft/v1/apply?wait=converged``. ``acknowledged_ms``: from the request until each
proxy acknowledged its routes, as the control plane noted. ``answer_ms``: until the API answered that all run
it. At that moment every Envoy is asked once: ``stale`` counts those that still served the old route.
``live_ms``: in rounds of their own, some Envoys are asked all the time, until they serve the new route.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from host import Host, cpu_seconds, host, memory, objects

from weft.client import ApiClient

TARGET = "service-0.default.svc.cluster.local"
WATCHES = Path("/proc/sys/fs/inotify/max_user_instances")
APART = 7
"""Rounds of continuous asking watch every so manieth Envoy: asking all would be the load that is measured."""


def route(turn: int) -> dict[str, Any]:
    """A VirtualService whose answer says which one it is."""
    rule = {"directResponse": {"status": 200, "body": {"string": f"turn {turn}"}}}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "changing"},
        "spec": {"hosts": ["service-0"], "http": [rule]},
    }


@contextmanager
def enough_watches(envoys: int) -> Iterator[None]:
    """Each Envoy takes two inotify instances, and the default allows a user 128: raised for the time."""
    before = WATCHES.read_text()
    needed = int(before) < 4 * envoys
    if needed:
        WATCHES.write_text(str(4 * envoys))
    try:
        yield
    finally:
        if needed:
            WATCHES.write_text(before)


class Client:
    """A connection to a sidecar's explicit proxy, kept open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def dial(cls, port: int) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self) -> bytes:
        """The body of the answer to ``GET``; empty for an answer without one."""
        self._writer.write(f"GET http://{TARGET}:8000/ HTTP/1.1\r\nhost: {TARGET}:8000\r\n\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        _, _, length = head.partition(b"content-length: ")
        return await self._reader.readexactly(int(length.split()[0]) if length else 0)

    def close(self) -> None:
        self._writer.close()


async def add(made: Host, number: int, limit: asyncio.Semaphore) -> int:
    """Start a workload with its sidecar; the port of its explicit proxy."""
    request = {
        "op": "add", "name": f"client-{number}", "command": ["/bin/sleep", "86400"], "capture": "env",
        "labels": {"app": "client"},
    }  # fmt: skip
    async with limit:
        ready = await made.node.ask(request, "ready")
    return int(ready["attachment"]["httpProxyPort"])


async def acknowledged(client: ApiClient) -> list[float]:
    """When each proxy acknowledged its routes last, seconds since the epoch."""
    rows = (await client.raw("GET", "/weft/v1/proxies"))["proxies"]
    return [row["types"]["rds"]["acknowledgedAt"] for row in rows]


def quantiles(values: Iterable[float]) -> dict[str, float]:
    found = sorted(values)
    return {
        "p50": round(found[len(found) // 2], 1),
        "p99": round(found[min(len(found) - 1, len(found) * 99 // 100)], 1),
        "last": round(found[-1], 1),
    }


async def watch(asked: Client, wanted: bytes, began: float) -> float:
    """Milliseconds until an Envoy answers ``wanted``, asked over and over."""
    while await asked.ask() != wanted:  # noqa: ASYNC110 - an Envoy tells nobody
        await asyncio.sleep(0.01)
    return (time.time() - began) * 1e3


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--envoys", type=int, default=100)
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rootless", action="store_true")
    given = parser.parse_args()
    with enough_watches(given.envoys):
        print(json.dumps(await measure(given)))


async def measure(given: argparse.Namespace) -> dict[str, Any]:
    async with host(rootless=given.rootless, capture="env") as made, made.client() as client:
        control = made.children["control"].pid
        await client.apply([*objects(given.services, 10), route(0)])
        limit, began = asyncio.Semaphore(3), time.monotonic()
        ports = await asyncio.gather(*(add(made, number, limit) for number in range(given.envoys)))
        start_s = time.monotonic() - began
        clients = [await Client.dial(port) for port in ports]
        assert {await one.ask() for one in clients} == {b"turn 0"}
        acks: list[float] = []
        answers: list[float] = []
        lives: list[float] = []
        cpus: list[float] = []
        stale = 0
        for turn in range(1, given.rounds + 1):
            cpu, sent = cpu_seconds(control), time.time()
            answer = await client.apply([route(turn)], wait=True)
            answers.append((time.time() - sent) * 1e3)
            assert answer["convergence"]["converged"], answer
            bodies = [await one.ask() for one in clients]
            stale += sum(body != f"turn {turn}".encode() for body in bodies)
            cpus.append(cpu_seconds(control) - cpu)
            acks += [(at - sent) * 1e3 for at in await acknowledged(client)]
        for turn in range(given.rounds + 1, 2 * given.rounds + 1):
            sent = time.time()
            watching = [
                asyncio.create_task(watch(one, f"turn {turn}".encode(), sent)) for one in clients[::APART]
            ]
            await client.apply([route(turn)])
            lives += await asyncio.gather(*watching)
            await client.apply([route(turn)], wait=True)
        for one in clients:
            one.close()
        return {
            "envoys": given.envoys,
            "services": given.services,
            "start_all_s": round(start_s, 1),
            "acknowledged_ms": quantiles(acks),
            "answer_ms": {
                "median": round(statistics.median(answers), 1),
                "worst": round(max(answers), 1),
            },
            "live_ms": quantiles(lives),
            "stale": stale,
            "control_plane_cpu_s": round(statistics.median(cpus), 3),
            "control_plane": memory(control),
            "node": memory(made.children["node"].pid),
        }


if __name__ == "__main__":
    asyncio.run(main())
