"""Requests per second through a gateway with 1 and with 1,000 routes, to one server.

    python bench/gateway.py [--seconds 3] [--rounds 5] [--routes 1000]

Needs wrk. The routes are an HTTPRoute's worth of path prefixes by one VirtualService, each to the same
service; ``first`` and ``last`` ask for the first and the last of them. One Envoy worker; the server is an
Envoy that answers 1 KB itself. Prints one JSON object: medians of the rounds, taken in turn.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from path import BODY, envoy, manager, started
from tests.envoy.mesh import run_compiled
from tests.support.certificates import TestAuthority
from tests.support.compiled import world
from tests.support.ports import free_port

from weft import ir
from weft.names import ProxyName

RESOURCES = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: default}}
spec:
  selector: {{istio: ingressgateway}}
  servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ["*"]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: default}}
spec: {{selector: {{app: web}}, ports: [{{name: http, port: 80}}]}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: web-1, namespace: default}}
spec: {{address: 127.0.0.1, labels: {{app: web}}, ports: {{http: {port}}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: web, namespace: default}}
spec:
  hosts: ["*"]
  gateways: [edge]
  http:
"""
ROUTE = "  - {{match: [{{uri: {{prefix: /path-{number:05}/}}}}], route: [{{destination: {{host: web}}}}]}}\n"
CONNECTIONS = 16


@contextmanager
def gateway(routes: int, server: int) -> Iterator[int]:
    """A gateway with so many routes; its port."""
    port = free_port()
    text = RESOURCES.format(port=server) + "".join(ROUTE.format(number=n) for n in range(routes))
    identity = ir.ProxyIdentity(
        name=ProxyName("router", "127.0.0.1", "edge", "default"),
        service_account="edge",
        labels=(("istio", "ingressgateway"),),
        port_map=((80, port),),
        attachment=ir.Attachment(capture=ir.Capture.NONE),
    )
    with run_compiled(world(text), identity, TestAuthority()):
        yield port


def rate(port: int, path: str, seconds: int) -> float:
    """Requests per second that wrk got answered with 2xx.

    Raises:
        RuntimeError: some were not.
    """
    done = subprocess.run(
        ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", f"http://127.0.0.1:{port}{path}"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    if "Non-2xx" in done.stdout:
        raise RuntimeError(done.stdout)
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if found is None:
        raise RuntimeError(done.stdout)
    return float(found[1])


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--routes", type=int, default=1000)
    options = parser.parse_args()
    server = free_port()
    answer = {"direct_response": {"status": 200, "body": {"inline_string": BODY}}}
    with ExitStack() as stack:
        stack.enter_context(started("app", envoy(server, manager(answer))))
        one = stack.enter_context(gateway(1, server))
        many = stack.enter_context(gateway(options.routes, server))
        last = f"/path-{options.routes - 1:05}/x"
        ways = {"one": (one, "/path-00000/x"), "first": (many, "/path-00000/x"), "last": (many, last)}
        for port, path in ways.values():
            rate(port, path, 1)
        rounds = [
            {name: rate(*way, options.seconds) for name, way in ways.items()} for _ in range(options.rounds)
        ]
    per_second = {name: round(statistics.median(each[name] for each in rounds)) for name in ways}
    print(json.dumps({"routes": options.routes, "requests_per_s": per_second}))


if __name__ == "__main__":
    main()
