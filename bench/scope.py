"""A sidecar among 0, 1,000 and 10,000 services of which its application uses 10: memory, readiness, calls.

    python bench/scope.py [--services 0 1000 10000] [--endpoints 5] [--used 10] [--rounds 3]

A real Envoy with the bootstrap of a node; the pipeline and the xDS server are a thread of this process, so
that their work is a part of all times. All services speak HTTP on port 80. ``ready_ms`` is from the start of
Envoy until it is ready, the control plane having compiled before; ``rss_mb`` is after the calls. ``first_ms``
and ``next_ms`` are medians of the first and second call to each service, over new connections. ``change_ms``
is from the change of one route until it is acknowledged. ``clusters`` counts the three of the bootstrap, too.
Medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.envoy.control import ControlPlane
from tests.support.backend import HttpBackend, serving
from tests.support.certificates import TestAuthority
from tests.support.dial import Connection
from tests.support.envoy import Envoy
from tests.support.ports import free_port

HERE = "127.0.0.1"
_CHUNK = 1_000


def resource(api: str, kind: str, name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def service(number: int) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    return resource("v1", "Service", f"s{number}", "default", selector={"app": f"s{number}"}, ports=ports)


def entry(number: int, place: int, address: str, port: int) -> dict[str, Any]:
    return resource(
        "networking.istio.io/v1", "WorkloadEntry", f"s{number}-{place}", "default",
        address=address, labels={"app": f"s{number}", "version": "v1"}, ports={"http": port},
    )  # fmt: skip


def route(number: int, seconds: int) -> dict[str, Any]:
    name = f"s{number}"
    rule = {"timeout": f"{seconds}s", "route": [{"destination": {"host": name}}]}
    return resource("networking.istio.io/v1", "VirtualService", name, "default", hosts=[name], http=[rule])


def mesh_config(delivery: str) -> dict[str, Any]:
    return resource(
        "weft.dev/v1alpha1", "MeshConfig", "default", "istio-system", clusterDelivery=delivery
    )  # fmt: skip


def rss_mb(envoy: Envoy) -> float:
    for line in Path(f"/proc/{envoy.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS")


def one_round(plane: ControlPlane, number: int, used: list[int]) -> dict[str, float]:
    """One sidecar, started, used, measured."""
    port = free_port()
    weft = {
        "outboundAddress": HERE, "outboundPort": port,
        "inboundAddress": "127.77.0.1", "appAddress": "127.77.0.2",
    }  # fmt: skip
    began = time.monotonic()
    # An account of its own each time: nothing is known of what it uses.
    with plane.sidecar(f"app-{number}", "127.77.0.1", weft, account=f"account-{number}") as envoy:
        ready = time.monotonic() - began
        plane.settle(1)
        calls: tuple[list[float], list[float]] = ([], [])
        for turn in calls:
            for name in (f"s{one}" for one in used):
                connection = Connection((plane.address(name), 80), through=(HERE, port))
                began = time.monotonic()
                status = connection.ask(host=name).status
                turn.append((time.monotonic() - began) * 1e3)
                if status != 200:
                    raise RuntimeError(f"{name} answered {status}")
        found = {"ready_ms": ready * 1e3, "rss_mb": rss_mb(envoy)}
        found["clusters"] = envoy.stat("cluster_manager.active_clusters")
        if used:
            found |= {"first_ms": statistics.median(calls[0]), "next_ms": statistics.median(calls[1])}
            began = time.monotonic()
            plane.apply(route(used[0], number + 5))
            found["change_ms"] = (time.monotonic() - began) * 1e3
        return found


def measure(services: int, endpoints: int, used: int, rounds: int) -> dict[str, Any]:
    """All modes among so many services."""
    with ExitStack() as stack:
        backend = stack.enter_context(serving(HttpBackend(HERE, 0, "web")))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        plane = stack.enter_context(ControlPlane(directory, TestAuthority()))
        objects = [service(number) for number in range(services)]
        for number in range(services):
            objects.append(entry(number, 0, HERE, backend.server_port))
            objects += [
                entry(number, place, f"127.{50 + place}.{number // 250}.{number % 250 + 1}", 8080)
                for place in range(1, endpoints)
            ]
        for start in range(0, len(objects), _CHUNK):
            plane.apply(*objects[start : start + _CHUNK])
        calls = list(range(0, services, max(1, services // used)))[:used]
        for number in calls:
            # Each of those that are used is called at an endpoint that is there.
            plane.delete(*(entry(number, place, HERE, 0) for place in range(1, endpoints)))
        result: dict[str, Any] = {}
        turn = 0
        for mode in ("eager", "onDemand") if services else ("auto",):
            plane.apply(mesh_config(mode))
            found = []
            for _ in range(rounds + 1):
                turn += 1
                found.append(one_round(plane, turn, calls))
            result[mode] = _median(found[1:])  # for the first it was compiled
        return result


def _median(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(statistics.median(row[key] for row in rows), 1) for key in rows[0]}


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--services", nargs="*", type=int, default=[0, 1_000, 10_000])
    parser.add_argument("--endpoints", type=int, default=5)
    parser.add_argument("--used", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    figures = {
        str(services): measure(services, given.endpoints, given.used, given.rounds)
        for services in given.services
    }
    print(json.dumps({"endpoints": given.endpoints, "used": given.used, "services": figures}))


if __name__ == "__main__":
    main()
