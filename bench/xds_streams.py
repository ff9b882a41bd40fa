"""One endpoint changes: how long until a thousand proxies have acknowledged it, and what that costs.

The server is weft's own, over mutual TLS; the proxies are simulated by grpc.aio in a second process, each
with a connection of its own. Run: ``python bench/xds_streams.py [--streams 1000] [--clusters 1000]``. The
last line is JSON. CPU and memory are the server's; times include those of the simulated proxies, which share
the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.envoy.xds import Authority, bundle, cluster

from weft import ir
from weft.control.proxies import Proxies, authorizer
from weft.control.status import Status
from weft.emit.endpoints import pack
from weft.names import CLUSTER_TYPE, ENDPOINT_TYPE
from weft.protos import discovery_v3
from weft.xds.connection import Connection
from weft.xds.messages import Acknowledged
from weft.xds.server import serve
from weft.xds.store import ConfigStore

ENDPOINTS = 10
METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


def name(number: int) -> str:
    return f"outbound|8080||service-{number:05d}.shop.svc.cluster.local"


def endpoints(number: int, seed: int = 0) -> ir.EndpointSet:
    return ir.EndpointSet(
        cluster=name(number),
        endpoints=tuple(
            ir.Endpoint(
                address=f"10.{number >> 8}.{number & 255}.{(index + seed) % 250 + 1}",
                port=8080, mesh_tls=True,
                workload=f"service-{number:05d}-{index}", namespace="shop", service_account="default",
            )
            for index in range(ENDPOINTS)
        ),
    )  # fmt: skip


def rss_kb() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


class Clock(Status):
    """Notes when each stream acknowledged endpoints."""

    def __init__(self, proxies: Proxies) -> None:
        super().__init__(proxies)
        self.times: list[float] = []
        self.complete = asyncio.Event()
        self.expect = 0

    def acknowledged(self, connection: Connection, event: Acknowledged) -> None:
        super().acknowledged(connection, event)
        if event.type_url == ENDPOINT_TYPE:
            self.times.append(time.monotonic())
            if len(self.times) == self.expect:
                self.complete.set()

    def begin(self, expect: int) -> None:
        self.times, self.expect = [], expect
        self.complete.clear()


async def server(streams: int, clusters: int, rounds: int) -> dict[str, Any]:
    authority = Authority()
    certificates = authority.server()
    store, proxies = ConfigStore(), Proxies()
    status = Clock(proxies)
    shared = bundle(*(cluster(name(number)) for number in range(clusters)))
    store.publish_endpoints(None, {name(n): pack(endpoints(n)) for n in range(clusters)})
    for number in range(streams):
        store.publish(node_id(number), shared, 1)
    with tempfile.TemporaryDirectory() as folder:
        chain, key = authority.workload()
        for file, data in (("chain.pem", chain), ("key.pem", key), ("roots.pem", authority.pem)):
            (Path(folder) / file).write_bytes(data)
        async with serve("127.0.0.1:0", lambda: certificates, store, status, authorizer()) as port:
            gc.collect()
            empty, cpu = rss_kb(), time.process_time()
            status.begin(streams)
            began = time.monotonic()
            clients = subprocess.Popen(  # noqa: ASYNC220 - started once, before anything is measured
                [sys.executable, __file__, "--clients", folder, "--port", str(port),
                 "--streams", str(streams), "--clusters", str(clusters)]
            )  # fmt: skip
            try:
                async with asyncio.timeout(300):
                    await status.complete.wait()
                load_s, load_cpu = time.monotonic() - began, time.process_time() - cpu
                await asyncio.sleep(2)  # let the storm's buffers go
                gc.collect()
                full = rss_kb()
                p50, p99, last, cpus = [], [], [], []
                for number in range(rounds):
                    await asyncio.sleep(0.2)
                    status.begin(streams)
                    cpu, began = time.process_time(), time.monotonic()
                    store.publish_endpoints(None, {name(number): pack(endpoints(number, 7))})
                    async with asyncio.timeout(60):
                        await status.complete.wait()
                    taken = [(at - began) * 1e3 for at in status.times]
                    cpus.append(time.process_time() - cpu)
                    p50.append(quantile(taken, 0.5))
                    p99.append(quantile(taken, 0.99))
                    last.append(max(taken))
            finally:
                clients.kill()
                clients.wait()
    return {
        "benchmark": "xds_streams",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
        },
        "streams": streams,
        "clusters": clusters,
        "rounds": rounds,
        "load_s": round(load_s, 2),
        "load_cpu_s": round(load_cpu, 2),
        "ack_p50_ms": round(statistics.median(p50), 1),
        "ack_p99_ms": round(statistics.median(p99), 1),
        "ack_p99_worst_round_ms": round(max(p99), 1),
        "ack_last_ms": round(statistics.median(last), 1),
        "push_cpu_s": round(statistics.median(cpus), 3),
        "rss_before_mb": round(empty / 1024, 1),
        "rss_mb": round(full / 1024, 1),
        "rss_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "rss_per_stream_kb": round((full - empty) / streams, 1),
    }


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


def node_id(number: int) -> str:
    return f"sidecar~10.1.{number >> 8}.{number & 255}~w{number}.default~default.svc.cluster.local"


async def simulate(folder: Path, port: int, streams: int, clusters: int) -> None:
    credentials = grpc.ssl_channel_credentials(
        (folder / "roots.pem").read_bytes(),
        (folder / "key.pem").read_bytes(),
        (folder / "chain.pem").read_bytes(),
    )
    options = (
        ("grpc.ssl_target_name_override", "weft.test"),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", -1),
    )
    request = discovery_v3.DeltaDiscoveryRequest
    names = [name(number) for number in range(clusters)]
    starting = asyncio.Semaphore(50)

    async def one(number: int) -> None:
        async with starting:
            channel = grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options)
            stream = channel.stream_stream(METHOD)()

            async def answer() -> None:
                reply = discovery_v3.DeltaDiscoveryResponse.FromString(await stream.read())
                ack = request(type_url=reply.type_url, response_nonce=reply.nonce)
                await stream.write(ack.SerializeToString())

            first = request(type_url=CLUSTER_TYPE)
            first.node.id = node_id(number)
            await stream.write(first.SerializeToString())
            await answer()
            asked = request(type_url=ENDPOINT_TYPE, resource_names_subscribe=names)
            await stream.write(asked.SerializeToString())
            await answer()
        while True:
            await answer()

    async with asyncio.TaskGroup() as group:
        for number in range(streams):
            group.create_task(one(number))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--clients", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.clients:
        uvloop.run(simulate(given.clients, given.port, given.streams, given.clusters))
    else:
        print(json.dumps(uvloop.run(server(given.streams, given.clusters, given.rounds))))


if __name__ == "__main__":
    main()
