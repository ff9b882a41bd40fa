"""What the control plane weighs and how quick it is at 1,000 services, with 1,000 proxies connected.

    python bench/control_plane.py [--services 1000] [--endpoints 10] [--streams 1000] [--rounds 15]
        [--delivery eager]

The real ``weft control-plane``, filled through its API. The proxies are simulated by grpc.aio in a second
process: each has a connection of its own with mutual TLS and a registered workload's node id, subscribes to
clusters, endpoints, listeners and routes as a sidecar does, and acknowledges what it gets. Changes go through
``POST /weft/v1/apply?wait=converged``: times and CPU include API, store, compilation, sending and waiting.
``stall_ms``: the slowest of the requests to ``/readyz`` that were made all the time while it was being
filled: the event loop was not held for longer. ``--delivery onDemand``: each proxy asks for ten clusters
instead of getting all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import uvloop

sys.path.insert(0, str(Path(__file__).parent))

from host import Host, cpu_seconds, host, memory, objects

from weft.client import ApiClient
from weft.names import (
    CLUSTER_TYPE,
    CONTROL_PLANE_HOST,
    ENDPOINT_TYPE,
    LISTENER_TYPE,
    ROUTE_TYPE,
    outbound_cluster,
    service_host,
)
from weft.node.enrolment import join
from weft.node.keys import make_key, request_for
from weft.node.remote import call, trusting_context
from weft.protos import discovery_v3

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


def node_id(number: int, endpoints: int) -> str:
    service, place = divmod(number, endpoints)
    address = f"10.{service // 256}.{service % 256}.{place + 1}"
    return f"sidecar~{address}~service-{service}-{place}.default~default.svc.cluster.local"


async def identity(made: Host, client: ApiClient) -> dict[str, str]:
    """A workload's key, certificate and trust bundle, as a node gets them; and where xDS is."""
    token = str((await client.raw("POST", "/weft/v1/tokens", {"node": "proxies"}))["token"])
    member = await join(made.url, token, "proxies", ["127.0.0.1"], made.directory)
    own, key = member.credential, make_key()
    wanted = {"csr": request_for(key), "namespace": "default", "serviceAccount": "default"}
    context = trusting_context(own.bundle, key=own.key, certificate=own.certificate)
    async with aiohttp.ClientSession() as http:
        given = await call(http, "POST", f"{made.url}/weft/v1/certificates", context, wanted)
    return {"key": key, "certificate": given["certificate"], "bundle": given["bundle"], "xds": member.xds}


class Proxies:
    """The simulated proxies, in a process of their own."""

    def __init__(self, folder: Path, endpoints: int) -> None:
        self._argv = [sys.executable, __file__, "--proxies", str(folder), "--endpoints", str(endpoints)]
        self._process: asyncio.subprocess.Process | None = None

    async def connect(self, count: int) -> None:
        """Have so many more of them connected and served."""
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{count}\n".encode())
        line = await asyncio.wait_for(self._process.stdout.readline(), 300)
        if not line:
            raise RuntimeError("the simulated proxies ended")

    async def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


async def simulate(folder: Path, endpoints: int) -> None:
    """Connect as many proxies as each line on standard input says; say when they are served."""
    given = json.loads((folder / "identity.json").read_text())
    credentials = grpc.ssl_channel_credentials(
        given["bundle"].encode(), given["key"].encode(), given["certificate"].encode()
    )
    options = (
        ("grpc.ssl_target_name_override", CONTROL_PLANE_HOST),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", -1),
    )
    loop, lines = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    starting, served = asyncio.Semaphore(20), asyncio.Semaphore(0)
    names: dict[str, list[str]] = {}

    async def one(number: int) -> None:
        async with starting:
            channel = grpc.aio.secure_channel(given["xds"], credentials, options)
            stream = channel.stream_stream(METHOD)()

            async def send(**fields: Any) -> None:
                request = discovery_v3.DeltaDiscoveryRequest(**fields)
                if fields["type_url"] == CLUSTER_TYPE and "response_nonce" not in fields:
                    request.node.id = node_id(number, endpoints)
                await stream.write(request.SerializeToString())

            async def answer() -> discovery_v3.DeltaDiscoveryResponse:
                reply = discovery_v3.DeltaDiscoveryResponse.FromString(await stream.read())
                await send(type_url=reply.type_url, response_nonce=reply.nonce)
                return reply

            await send(type_url=CLUSTER_TYPE)
            clusters = await answer()
            if not names:  # all see the same
                known = [row.name for row in clusters.resources]
                names[ENDPOINT_TYPE] = [name for name in known if name.startswith("outbound|")]
                if not names[ENDPOINT_TYPE]:
                    names[CLUSTER_TYPE] = names[ENDPOINT_TYPE] = [
                        outbound_cluster(service_host(f"service-{n}", "default"), 8000 + n) for n in range(10)
                    ]
            if CLUSTER_TYPE in names:
                await send(type_url=CLUSTER_TYPE, resource_names_subscribe=names[CLUSTER_TYPE])
                await answer()
            await send(type_url=ENDPOINT_TYPE, resource_names_subscribe=names[ENDPOINT_TYPE])
            await answer()
            await send(type_url=LISTENER_TYPE)
            await answer()
            await send(type_url=ROUTE_TYPE, resource_names_subscribe=[str(8000 + n) for n in range(10)])
            await answer()
        served.release()
        while True:
            await answer()

    total, running = 0, set()
    while line := await lines.readline():
        running |= {asyncio.create_task(one(total + n)) for n in range(int(line))}
        for _ in range(int(line)):
            waiting = asyncio.create_task(served.acquire())
            done, _ = await asyncio.wait({waiting, *running}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {waiting}:
                task.result()
        total += int(line)
        print("served", flush=True)


async def probe(client: ApiClient, slowest: list[float]) -> None:
    while True:
        began = time.monotonic()
        await client.raw("GET", "/readyz")
        slowest.append((time.monotonic() - began) * 1e3)
        await asyncio.sleep(0.005)


async def measure(given: argparse.Namespace) -> dict[str, Any]:
    async with host(node=False) as made, made.client() as client:
        control = made.children["control"].pid
        result: dict[str, Any] = {
            "services": given.services,
            "endpoints": given.endpoints,
            "streams": given.streams,
            "delivery": given.delivery,
            "empty": memory(control),
        }
        everything = [_mesh_config(given.delivery), *objects(given.services, given.endpoints)]
        slowest: list[float] = []
        probing = asyncio.create_task(probe(client, slowest))
        cpu, began = cpu_seconds(control), time.monotonic()
        await client.apply(everything, wait=True, seconds=120)
        result["fill"] = {
            "seconds": round(time.monotonic() - began, 2),
            "cpu_s": round(cpu_seconds(control) - cpu, 2),
        }
        probing.cancel()
        result["fill"]["stall_ms"] = {
            "p50": round(statistics.median(slowest), 1),
            "worst": [round(value, 1) for value in sorted(slowest)[-3:]],
            "probes": len(slowest),
        }
        (made.directory / "identity.json").write_text(json.dumps(await identity(made, client)))
        result["filled"] = memory(control)
        proxies = Proxies(made.directory, given.endpoints)
        try:
            half = given.streams // 2
            weights = []
            for _ in range(2):
                cpu, began = cpu_seconds(control), time.monotonic()
                await proxies.connect(half)
                weights.append(
                    {
                        "connect_s": round(time.monotonic() - began, 1),
                        "cpu_s": round(cpu_seconds(control) - cpu, 1),
                        **memory(control),
                    }
                )
            result["half_connected"], result["connected"] = weights
            per = (weights[1]["rss_mb"] - weights[0]["rss_mb"]) * 1024 / half
            result["further_stream_kb"] = round(per, 1)
            for name in ("endpoint", "route"):
                times, cpus = [], []
                for turn in range(given.rounds):
                    change = _endpoint(turn) if name == "endpoint" else route_change(turn)
                    cpu, began = cpu_seconds(control), time.monotonic()
                    answer = await client.apply([change], wait=True, seconds=60)
                    assert answer["convergence"]["converged"], answer
                    times.append((time.monotonic() - began) * 1e3)
                    cpus.append(cpu_seconds(control) - cpu)
                result[f"{name}_change"] = {
                    "converged_ms": round(statistics.median(times), 1),
                    "worst_ms": round(max(times), 1),
                    "cpu_s": round(statistics.median(cpus), 3),
                }
            result["at_the_end"] = memory(control)
        finally:
            await proxies.close()
        return result


def _mesh_config(delivery: str) -> dict[str, Any]:
    return {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "MeshConfig",
        "metadata": {"name": "default", "namespace": "istio-system"},
        "spec": {"clusterDelivery": delivery},
    }


def _endpoint(turn: int) -> dict[str, Any]:
    entry = objects(1, 1, first=7)[1]
    entry["spec"]["address"] = f"10.200.0.{turn + 1}"
    return entry


def route_change(turn: int) -> dict[str, Any]:
    rule = {"route": [{"destination": {"host": "service-7"}}], "timeout": f"{turn + 1}s"}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "changing"},
        "spec": {"hosts": ["service-7"], "http": [rule]},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--delivery", choices=("eager", "onDemand"), default="eager")
    parser.add_argument("--proxies", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.proxies:
        uvloop.run(simulate(given.proxies, given.endpoints))
    else:
        print(json.dumps(asyncio.run(measure(given))))


if __name__ == "__main__":
    main()
