"""``weft explain`` of 1,000 requests: three meshes of files, from the command line. Prints JSON.

``python bench/explain.py [requests]``: seconds, start of the process included. ``routes``: one gateway with
a table of 1,000 routes; ``services``: one sidecar among 1,000 services; ``proxies``: 50 of them, each in a
namespace of its own.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def service(number: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"service-{number}"},
        "spec": {"selector": {"app": f"service-{number}"}, "ports": [{"name": "http", "port": 80}]},
    }


def gateway() -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "edge"},
        "spec": {
            "gatewayClassName": "weft",
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
        },
    }


def http_route(number: int, rules: int) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": f"route-{number}"},
        "spec": {
            "parentRefs": [{"name": "edge"}],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": f"/part-{number}-{rule}"}}],
                    "backendRefs": [{"name": f"service-{number % 10}", "port": 80}],
                }
                for rule in range(rules)
            ],
        },
    }


def routes(count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    chance = random.Random(1)
    resources = [gateway(), *map(service, range(10)), *(http_route(number, 10) for number in range(100))]
    return resources, [
        {
            "id": number,
            "from": {"gateway": "default/edge"},
            "http": {"path": f"/part-{chance.randrange(100)}-{chance.randrange(10)}/x"},
        }
        for number in range(count)
    ]


def services(count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    chance = random.Random(2)
    return [service(number) for number in range(1000)], [
        {
            "id": number,
            "from": {"workload": "default/client"},
            "http": {"host": f"service-{chance.randrange(1000)}", "path": "/"},
        }
        for number in range(count)
    ]


def proxies(count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    resources = [service(number) for number in range(100)]
    return resources, [
        {
            "id": number,
            "from": {"workload": f"space-{number // 20}/client"},
            "http": {"host": f"service-{number % 100}.default", "path": "/"},
        }
        for number in range(count)
    ]


def main() -> None:
    count = int((*sys.argv[1:], "1000")[0])
    weft = str(Path(sys.executable).with_name("weft"))
    taken: dict[str, dict[str, float]] = {}
    for made in (routes, services, proxies):
        resources, requests = made(count)
        with tempfile.TemporaryDirectory() as directory:
            files = Path(directory) / "mesh.json"
            files.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": resources}))
            asked = Path(directory) / "requests.jsonl"
            asked.write_text("".join(json.dumps(request) + "\n" for request in requests))
            start, before = time.perf_counter(), os.times()
            done = subprocess.run(
                [weft, "explain", str(files), "--requests", str(asked)], check=True, capture_output=True
            )
            after = os.times()
            cpu = sum(after[2:4]) - sum(before[2:4])  # of the children
            taken[made.__name__] = {"wall": round(time.perf_counter() - start, 2), "cpu": round(cpu, 2)}
            lines = [json.loads(line) for line in done.stdout.splitlines()]
            assert len(lines) == count
            assert all(line["action"] == "forward" for line in lines), lines[0]
    print(json.dumps({"requests": count, "seconds": taken}))


if __name__ == "__main__":
    main()
