"""First compile, and the compile after one change, at 1,000 services of 10 endpoints. Prints JSON.

``python bench/compile.py [services] [endpoints]``: one VirtualService for ten services; ``ruled`` is the
first compile with one for each, and what a sidecar is sent then, in bytes. All times are in milliseconds, in
one process; CPU and wall differ by what else runs on the machine. Changes are medians of 20.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from weft import ir
from weft.compile.endpoints import endpoint_set
from weft.compile.proxy import compile_proxy
from weft.compile.world import World
from weft.emit.bundle import emit
from weft.emit.endpoints import pack
from weft.model.parse import parse_object
from weft.model.resource import Resource
from weft.names import ProxyName


def resource(data: dict[str, Any]) -> Resource:
    found, problems = parse_object(data)
    assert found is not None, problems
    return found


def service(number: int, turn: int = 0) -> Resource:
    return resource(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": f"service-{number}"},
            "spec": {
                "selector": {"app": f"service-{number}"},
                "ports": [{"name": "http", "port": 8000 + number % 10, "targetPort": 8080 + turn}],
            },
        }
    )


def entry(number: int, place: int, account: str = "default") -> Resource:
    return resource(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "WorkloadEntry",
            "metadata": {"name": f"service-{number}-{place}"},
            "spec": {
                "address": f"10.{number // 256}.{number % 256}.{place + 1}",
                "labels": {"app": f"service-{number}", "version": "v1"},
                "serviceAccount": account,
                "ports": {"http": 8080},
            },
        }
    )


def virtual_service(number: int, seconds: int) -> Resource:
    return resource(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": f"service-{number}"},
            "spec": {
                "hosts": [f"service-{number}"],
                "http": [
                    {"route": [{"destination": {"host": f"service-{number}"}}], "timeout": f"{seconds}s"}
                ],
            },
        }
    )


def measured(step: Callable[[], object]) -> tuple[float, float]:
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return (time.perf_counter() - wall) * 1000, (time.process_time() - cpu) * 1000


def main() -> None:
    services, endpoints = (int(value) for value in (*sys.argv[1:], *("1000", "10")[len(sys.argv) - 1 :]))
    identity = ir.ProxyIdentity(name=ProxyName.parse("sidecar~10.0.0.1~service-0-0.default"))
    resources = [service(n) for n in range(services)]
    resources += [entry(n, place) for n in range(services) for place in range(endpoints)]
    resources += [virtual_service(n, 3) for n in range(0, services, 10)]
    world = World.build()
    everything: dict[str, object] = {}

    def first() -> None:
        nonlocal world
        world = World.build(resources)
        proxy, _ = compile_proxy(world, identity)
        everything["bundle"] = emit(proxy)
        for cluster in proxy.clusters:
            if cluster.discovery is ir.Discovery.EDS:
                pack(endpoint_set(world, cluster.name), cluster.placement, ir.UNPLACED)

    def after(change: Callable[[int], Resource]) -> dict[str, float]:
        nonlocal world
        walls, cpus = [], []
        for turn in range(20):
            changed = change(turn)

            def step(changed: Resource = changed) -> None:
                nonlocal world
                world = world.replace([changed])
                proxy, _ = compile_proxy(world, identity)
                everything["bundle"] = emit(proxy)

            wall, cpu = measured(step)
            walls.append(wall)
            cpus.append(cpu)
        return {"cpu": round(statistics.median(cpus), 2), "wall": round(statistics.median(walls), 2)}

    wall, cpu = measured(first)
    ruled = [*resources, *(virtual_service(n, 3) for n in range(services))]
    sizes: dict[str, int] = {}

    def every() -> None:
        bundle = emit(compile_proxy(World.build(ruled), identity)[0])
        for url, units in bundle.resources.items():
            sizes[url.rpartition(".")[2]] = sum(len(unit.body) for unit in units.values())

    ruled_wall, ruled_cpu = measured(every)
    print(
        json.dumps(
            {
                "services": services,
                "endpoints": endpoints,
                "first": {"wall": round(wall), "cpu": round(cpu)},
                "ruled": {"wall": round(ruled_wall), "cpu": round(ruled_cpu), "bytes": sizes},
                "virtualService": after(lambda turn: virtual_service(10, 10 + turn)),
                "workloadEntry": after(lambda turn: entry(7, 100 + turn)),
                "service": after(lambda turn: service(7, turn)),
                "newService": after(lambda turn: service(services + turn)),
            }
        )
    )


if __name__ == "__main__":
    main()
