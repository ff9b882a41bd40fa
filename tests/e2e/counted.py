"""A service with known outcomes of every kind, and what each side has to count of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.otlp_metrics import MetricCollector

SERVICE = "counted.demo.svc.cluster.local"
SERVED, MISSING, BROKEN, RETRIED, LATE, ABORTED, DENIED, ANSWERED, REFUSED = 9, 3, 4, 2, 2, 5, 6, 7, 3
BYTES = 1_000
# By status of HTTP, then by gRPC's. 0: the caller's proxy did not wait for it. A fault comes to no workload.
AT_SOURCE = {
    "200": SERVED + RETRIED, "404": MISSING, "503": BROKEN, "504": LATE, "418": ABORTED, "403": DENIED,
}  # fmt: skip
AT_DESTINATION = {
    "200": SERVED + RETRIED, "404": MISSING, "503": BROKEN + RETRIED, "0": LATE, "403": DENIED,
}  # fmt: skip
CALLS_AT_SOURCE, CALLS_AT_DESTINATION = {"0": ANSWERED, "14": REFUSED}, {"0": ANSWERED}

RESOURCES = """
apiVersion: v1
kind: Service
metadata: {name: counted, namespace: demo}
spec:
  selector: {app: counted}
  ports: [{name: http, port: 8080}, {name: grpc, port: 8081}, {name: tcp, port: 6000}]
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: counted, namespace: demo, labels: {app: counted, version: v1}}
spec:
  serviceAccount: counted
  command: [weft, echo, --name, counted, --port, "8080", --port, "8081", --tcp-port, "6000"]
  ports: [{name: http, port: 8080}, {name: grpc, port: 8081}, {name: tcp, port: 6000}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: counted, namespace: demo}
spec:
  hosts: [counted]
  http:
  - match: [{port: 8081, uri: {prefix: /shop.Refused}}]
    fault: {abort: {grpcStatus: UNAVAILABLE, percentage: {value: 100}}}
    route: [{destination: {host: counted, port: {number: 8081}}}]
  - match: [{port: 8081}]
    route: [{destination: {host: counted, port: {number: 8081}}}]
  - match: [{uri: {prefix: /late}}]
    timeout: 0.5s
    retries: {attempts: 0}
    route: [{destination: {host: counted, port: {number: 8080}}}]
  - match: [{uri: {prefix: /retried}}]
    retries: {attempts: 1, retryOn: 5xx}
    route: [{destination: {host: counted, port: {number: 8080}}}]
  - match: [{uri: {prefix: /aborted}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: counted, port: {number: 8080}}}]
  - retries: {attempts: 0}
    route: [{destination: {host: counted, port: {number: 8080}}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: counted, namespace: demo}
spec:
  action: DENY
  selector: {matchLabels: {app: counted}}
  rules: [{to: [{operation: {paths: [/denied], ports: ["8080"]}}]}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: collector, namespace: istio-system}
spec:
  hosts: [collector.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 4317, name: grpc, protocol: GRPC, targetPort: GRPC_PORT}]
  endpoints: [{address: 127.0.0.1}]
---
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {name: default, namespace: istio-system}
spec:
  extensionProviders:
  - {name: all, opentelemetry: {service: collector.example, port: 4317}}
  defaultProviders: {metrics: [prometheus, all]}
"""

_ASK = f"""
import http.client, socket, grpc

web = http.client.HTTPConnection("counted", 8080, timeout=20)
def ask(path, status, count):
    for number in range(count):
        web.request("GET", path.format(number))
        answer = web.getresponse()
        answer.read()
        assert answer.status == status, (path, answer.status)

ask("/items/{{}}", 200, {SERVED})
ask("/status/404", 404, {MISSING})
ask("/?responseCode=503", 503, {BROKEN})
ask("/retried/{{}}?responseCode=503&succeedAfter=1", 200, {RETRIED})
ask("/late?delay=20s", 504, {LATE})
ask("/aborted", 418, {ABORTED})
ask("/denied", 403, {DENIED})
with grpc.insecure_channel("counted:8081") as channel:
    for method, count, wanted in (("Known", {ANSWERED}, "OK"), ("Refused", {REFUSED}, "UNAVAILABLE")):
        for _ in range(count):
            said = "OK"
            try:
                channel.unary_unary(f"/shop.{{method}}/Call")(b"", timeout=20)
            except grpc.RpcError as error:
                said = error.code().name
            assert said == wanted, (method, said)
with socket.create_connection(("counted", 6000), 20) as talk:
    talk.sendall(b"x" * {BYTES})
    left = {BYTES}
    while left:
        left -= len(talk.recv(left))
"""


def resources(collector: MetricCollector) -> str:
    """To apply; every proxy's series go to the collector, too."""
    return RESOURCES.replace("GRPC_PORT", str(collector.port))


def ask_all(network: Path) -> None:
    """All the requests, out of a workload's network namespace."""
    argv = ["nsenter", f"--net={network}", sys.executable, "-c", _ASK]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
