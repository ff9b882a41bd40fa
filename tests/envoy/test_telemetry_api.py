"""Telemetry resources on the wire: a gateway and three services tell a collector, files and counters."""

from __future__ import annotations

import json
import random
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest

from tests.envoy.mesh import run_compiled, spiffe
from tests.support.backend import serving
from tests.support.certificates import TestAuthority
from tests.support.collector import Collector, Span, running_collector
from tests.support.dial import Connection
from tests.support.envoy import Envoy, wait_until
from tests.support.ports import free_port
from weft import ir
from weft.cli.documents import read_resources, refuse_errors
from weft.compile.world import World
from weft.names import ProxyName

VIP, PORT = "240.240.0.1", 9080
CHAIN = ("front", "middle", "back")
PASSED = ("traceparent", "tracestate", "x-request-id", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled")
MESH = """
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {name: default, namespace: istio-system}
spec:
  accessLogFile: access.log
  accessLogEncoding: JSON
  extensionProviders:
  - name: spans
    opentelemetry: {service: collector.shop, port: 4317, grpc: {initialMetadata: [{name: tenant, value: x}]}}
  - name: b3
    zipkin: {service: collector.shop, port: 9411, traceContextOption: USE_B3_WITH_W3C_PROPAGATION}
  - name: records
    envoyOtelAls:
      service: collector.shop
      port: 4317
      logFormat: {text: "%REQ_WITHOUT_QUERY(:PATH)%", labels: {code: "%RESPONSE_CODE%"}}
  - {name: entries, envoyHttpAls: {service: collector.shop, port: 4317}}
  - name: failures
    envoyFileAccessLog:
      path: failures.log
      logFormat: {labels: {code: "%RESPONSE_CODE%", path: "%REQ(:PATH)%"}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: collector, namespace: default}
spec:
  hosts: [collector.shop]
  resolution: STATIC
  ports:
  - {number: 4317, name: grpc, protocol: GRPC, targetPort: GRPC_PORT}
  - {number: 9411, name: http, protocol: HTTP, targetPort: HTTP_PORT}
  endpoints: [{address: 127.0.0.1}]
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: mesh, namespace: istio-system}
spec:
  tracing:
  - providers: [{name: spans}]
    randomSamplingPercentage: 100
    customTags:
      shop: {literal: {value: north}}
      user: {header: {name: x-user, defaultValue: nobody}}
      path: {formatter: {value: "%PATH(NQ)%"}}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: tenth, namespace: istio-system}
spec:
  selector: {matchLabels: {edge: tenth}}
  tracing: [{randomSamplingPercentage: 10, enableIstioTags: false}]
  metrics: [{overrides: [{disabled: true}]}]
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: b3, namespace: istio-system}
spec:
  selector: {matchLabels: {edge: b3}}
  tracing: [{providers: [{name: b3}]}]
  accessLogging: [{disabled: true, providers: [{name: envoy}]}]
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: route, namespace: istio-system}
spec:
  selector: {matchLabels: {edge: route}}
  tracing: [{randomSamplingPercentage: 0, useRequestIdForTraceSampling: true}]
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: route, namespace: istio-system}
spec:
  workloadSelector: {labels: {edge: route}}
  configPatches:
  - applyTo: HTTP_ROUTE
    match: {context: GATEWAY, routeConfiguration: {vhost: {route: {name: always}}}}
    patch: {operation: MERGE, value: {tracing: {random_sampling: {numerator: 100}}}}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: back, namespace: default}
spec:
  selector: {matchLabels: {app: back}}
  tracing: [{match: {mode: CLIENT}, randomSamplingPercentage: 10}]
  accessLogging:
  - providers: [{name: failures}]
    match: {mode: SERVER}
    filter: {expression: "response.code >= 400 && request.url_path.startsWith('/log')"}
  - providers: [{name: records}, {name: entries}]
    match: {mode: SERVER}
  metrics:
  - overrides:
    - match: {metric: REQUEST_COUNT, mode: SERVER}
      tagOverrides:
        method: {value: request.method}
        team: {value: "request.headers['x-user']"}
        long: {value: "size(request.path) > 20 ? 'long' : 'short'"}
        source_app: {operation: REMOVE}
    - match: {metric: REQUEST_SIZE}
      disabled: true
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: default}
spec:
  hosts: ["*"]
  gateways: [istio-system/edge]
  http:
  - match: [{uri: {prefix: /direct}}]
    directResponse: {status: 200}
  - name: always
    match: [{uri: {prefix: /always}}]
    route: [{destination: {host: front.default.svc.cluster.local}}]
  - name: shop
    route: [{destination: {host: front.default.svc.cluster.local}}]
"""
WORKLOAD = """
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec: {{clusterIP: 240.240.0.1, selector: {{app: {name}}}, ports: [{{name: http, port: 9080}}]}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {name}, namespace: default}}
spec: {{address: {address}, serviceAccount: {name}, labels: {{app: {name}}}, ports: {{http: 9080}}}}
"""


class Application(ThreadingHTTPServer):
    """Asks the next one and says what it was asked with; ``/…/STATUS`` is answered with that."""

    daemon_threads = True

    def __init__(self, address: str, sidecar: tuple[str, int], following: str) -> None:
        self.sidecar, self.following = sidecar, following
        super().__init__((address, PORT), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Application

    def do_GET(self) -> None:
        headers = {name: self.headers[name] for name in PASSED if self.headers[name]}
        status, body = 200, json.dumps(headers).encode()
        if self.server.following:
            onward = Connection((VIP, PORT), through=self.server.sidecar)
            onward.request("GET", self.path, headers={**headers, "host": f"{self.server.following}:{PORT}"})
            answer = onward.getresponse()
            status, body = answer.status, answer.read()
            onward.close()
        elif (asked := self.path.rpartition("/")[2]).isdigit():
            status = int(asked)
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@dataclass(frozen=True)
class Shop:
    collector: Collector
    envoys: dict[str, Envoy]
    edges: dict[str, tuple[str, int]]
    outbound: dict[str, tuple[str, int]]

    def ask(self, path: str, edge: str = "plain", **headers: str) -> tuple[int, dict[str, str]]:
        connection = Connection(self.edges[edge])
        reply = connection.ask(path, **headers)
        connection.close()
        return reply.status, json.loads(reply.text or "{}")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    base = f"127.{random.randint(16, 250)}.{random.randint(0, 250)}"
    authority = TestAuthority()
    with ExitStack() as stack:
        collector = stack.enter_context(running_collector())
        text = MESH.replace("GRPC_PORT", str(collector.port)).replace("HTTP_PORT", str(collector.http_port))
        places = {name: f"{base}.{number}" for number, name in enumerate(CHAIN, 1)}
        text += "".join(WORKLOAD.format(name=name, address=address) for name, address in places.items())
        path: Path = tmp_path_factory.mktemp("shop") / "shop.yaml"
        path.write_text(text)
        resources, problems = read_resources([str(path)])
        refuse_errors(problems)
        world = World.build(resources)
        envoys, edges = {}, {}
        for number, (name, following) in enumerate(zip(CHAIN, (*CHAIN[1:], ""), strict=True), 101):
            address, application = places[name], f"{base}.{number}"
            attachment = ir.Attachment(
                capture=ir.Capture.SECCOMP,
                outbound_address=address,
                outbound_port=15001,
                inbound_address=address,
                app_address=application,
            )
            identity = ir.ProxyIdentity(
                name=ProxyName("sidecar", address, name, "default"),
                service_account=name,
                labels=(("app", name),),
                attachment=attachment,
            )
            stack.enter_context(serving(Application(application, (address, 15001), following)))
            envoys[name] = stack.enter_context(run_compiled(world, identity, authority))
        for edge in ("plain", "tenth", "b3", "route"):
            port = free_port()
            identity = ir.ProxyIdentity(
                name=ProxyName("router", "127.0.0.1", edge, "istio-system"),
                service_account="edge",
                labels=(("edge", edge), ("istio", "ingressgateway")),
                attachment=ir.Attachment(capture=ir.Capture.NONE),
                port_map=((80, port),),
            )
            kept = ("tracing.opentelemetry.",)
            envoys[edge] = stack.enter_context(run_compiled(world, identity, authority, kept_stats=kept))
            edges[edge] = ("127.0.0.1", port)
        outbound = {name: (address, 15001) for name, address in places.items()}
        yield Shop(collector, envoys, edges, outbound)


def test_a_trace_over_gateway_and_services_is_one_tree(shop: Shop) -> None:
    status, seen = shop.ask("/tree?q=1", x_user="jo")
    assert status == 200
    trace = seen["traceparent"].split("-")[1]
    spans = shop.collector.wait_spans(6, trace)
    assert len(spans) == 6, [span.name for span in spans]
    by_parent = {span.parent: span for span in spans}
    line: list[Span] = [by_parent[""]]
    while line[-1].id in by_parent:
        line.append(by_parent[line[-1].id])
    assert [span.service for span in line] == [
        "plain.istio-system",
        *(f"{name}.default" for name in ("front", "front", "middle", "middle", "back")),
    ]
    for outer, inner in pairwise(line):
        # The times come from one clock, and what is inside another began later and ended sooner.
        assert outer.start <= inner.start
        assert inner.end - inner.start <= outer.end - outer.start
    said = [span.attributes for span in line]
    assert {one["shop"] for one in said} == {"north"}
    assert (said[0]["user"], said[2]["user"]) == ("jo", "nobody")
    assert said[0]["path"] == "/tree"
    assert said[0]["weft.route"] == "shop"
    assert said[0]["weft.destination"] == spiffe("front")
    assert said[1]["weft.destination"] == spiffe("front")
    assert said[2]["weft.attempts"] == "1"
    assert said[3]["weft.source"] == spiffe("front")
    assert said[5]["istio.canonical_service"] == "back"
    assert said[5]["istio.namespace"] == "default"
    assert all(one["http.status_code"] == "200" and "response_flags" in one for one in said)
    assert shop.collector.metadata[0]["tenant"] == "x"


def _burst(address: tuple[str, int], count: int, headers: str = "") -> None:
    """Requests on one connection, without a library in between."""
    request = f"GET /direct HTTP/1.1\r\nhost: a\r\n{headers}\r\n".encode()
    with socket.create_connection(address, timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            connection.sendall(request)
            answered = connection.recv(1 << 16)
            while not answered.endswith(b"\r\n\r\n"):
                read = connection.recv(1 << 16)
                assert read, answered
                answered += read
            assert answered.startswith(b"HTTP/1.1 200"), answered


def _sampled(shop: Shop, count: int) -> int:
    """How many of so many requests have a span, once all are there that the proxy has sent."""
    envoy, stat = shop.envoys["tenth"], "tracing.opentelemetry."

    def come() -> int:
        return len([span for span in shop.collector.of() if span.service == "tenth.istio-system"])

    before = come()
    _burst(shop.edges["tenth"], count)
    flushed = envoy.stat(f"{stat}timer_flushed")
    wait_until(lambda: envoy.stat(f"{stat}timer_flushed") > flushed, 60, "what is left to be sent")
    wait_until(lambda: come() >= envoy.stat(f"{stat}spans_sent"), 60, "all spans")
    return come() - before


def test_a_tenth_of_5000_requests_is_sampled(shop: Shop) -> None:
    """Within three standard deviations; one honest throw in 370 is outside, so a second one may be tried."""
    count, share = 5000, 0.1
    sigma = (count * share * (1 - share)) ** 0.5
    results = []
    for _ in range(2):
        results.append(_sampled(shop, count))
        if abs(results[-1] - count * share) <= 3 * sigma:
            return
    raise AssertionError(f"{results} of {count} sampled")


def test_a_parents_decision_is_honoured(shop: Shop) -> None:
    """An application's, whose own proxy samples a tenth: all of those that it traces, none of the others."""
    parent = "00f067aa0ba902b7"
    traces = {flag: [f"{random.getrandbits(128):032x}" for _ in range(20)] for flag in ("00", "01")}
    connection = Connection((VIP, PORT), through=shop.outbound["back"])
    for flag, ones in traces.items():
        for trace in ones:
            reply = connection.ask("/", host="middle:9080", traceparent=f"00-{trace}-{parent}-{flag}")
            seen = reply.body["traceparent"].split("-")
            assert (seen[1], seen[3]) == (trace, flag)
    connection.close()
    for trace in traces["01"]:
        spans = shop.collector.wait_spans(4, trace)
        assert [span.service for span in spans if span.parent == parent] == ["back.default"]
    assert [span for trace in traces["00"] for span in shop.collector.of(trace)] == []


def test_a_route_has_a_share_of_its_own(shop: Shop) -> None:
    """docs/how-to/telemetry.md says how: Istio's Telemetry knows no routes."""
    flags = {path: shop.ask(path, edge="route")[1]["traceparent"][-2:] for path in ("/always", "/never")}
    assert flags == {"/always": "01", "/never": "00"}


def test_no_stranger_chooses_what_is_traced(shop: Shop) -> None:
    trace = f"{random.getrandbits(128):032x}"
    _, seen = shop.ask("/", edge="plain", traceparent=f"00-{trace}-00f067aa0ba902b7-00")
    assert seen["traceparent"].split("-")[1] != trace
    assert seen["traceparent"].endswith("-01")


def test_traces_of_b3(shop: Shop) -> None:
    """With the headers of W3C beside them, so that proxies that know only those go on with the trace."""
    _, seen = shop.ask("/b3", edge="b3", x_user="jo")
    trace = seen["x-b3-traceid"]
    assert seen["x-b3-sampled"] == "1"
    assert seen["traceparent"].split("-")[1] == trace
    wait_until(lambda: any(span["traceId"] == trace for span in list(shop.collector.zipkin)), 60)
    (span,) = (one for one in shop.collector.zipkin if one["traceId"] == trace)
    assert (span["tags"]["shop"], span["tags"]["user"]) == ("north", "jo")
    assert span["id"] in {one.parent for one in shop.collector.wait_spans(5, trace)}


def test_logs_of_a_workload(shop: Shop) -> None:
    """Failures by an expression in a file, everything to a collector, and what explain reads beside it."""
    back = shop.envoys["back"]
    for path in ("/log/200?q=1", "/log/503", "/other/503"):
        shop.ask(path)
    collector = shop.collector
    wait_until(lambda: ("/other/503", {"code": "503"}) in collector.records, 30, "records of OTLP")
    assert ("/log/200", {"code": "200"}) in collector.records
    wait_until(lambda: collector.entries > 0, 30, "entries of Envoy's log service")
    log = back.directory / "failures.log"
    wait_until(lambda: log.exists() and log.read_text().endswith("\n"), 30, "a line")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert rows == [{"code": 503, "path": "/log/503"}]
    (line,) = back.requests(path="/other/503", reporter="destination")
    assert line["downstream_peer_principal"] == spiffe("middle")
    assert not (shop.envoys["b3"].directory / "access.log").exists()


def _labels(envoy: Envoy, metric: str) -> list[dict[str, str]]:
    text = envoy.admin(f"/stats/prometheus?filter={metric}")
    rows = re.findall(rf"^envoy_{metric}\{{(.*)\}} \d+$", text, re.MULTILINE)
    return [dict(re.findall(r'(\w+)="([^"]*)"', row)) for row in rows]


def _sum(envoy: Envoy, metric: str) -> int:
    text = envoy.admin(f"/stats/prometheus?filter={metric}")
    return sum(map(int, re.findall(rf"^envoy_{metric}_sum{{.*}} (\d+)", text, re.MULTILINE)))


def test_metrics_of_a_workload(shop: Shop) -> None:
    shop.ask("/a")
    shop.ask("/a/path/that/is/rather/long", x_user="jo")
    back, front = shop.envoys["back"], shop.envoys["front"]
    wait_until(
        lambda: {"long", "short"} <= {row.get("long") for row in _labels(back, "istio_requests_total")}, 30
    )
    rows = [row for row in _labels(back, "istio_requests_total") if row["reporter"] == "destination"]
    assert {row["method"] for row in rows} == {"GET"}
    assert all("source_app" not in row for row in rows)
    assert "istio_request_bytes" not in back.admin("/stats/prometheus")
    assert "istio_response_bytes" in back.admin("/stats/prometheus")
    wait_until(lambda: _sum(front, "istio_request_bytes") > 0, 30, "a GET has headers")
    plain = _labels(front, "istio_requests_total")
    assert plain
    assert all("source_app" in row and "method" not in row for row in plain)
    assert _labels(shop.envoys["tenth"], "istio_requests_total") == []
