"""So many requests of each outcome are so many at both ends: as Prometheus text, by OTLP, in the store."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.envoy.control import ControlPlane
from tests.support.backend import HttpBackend, TcpBackend, serving
from tests.support.certificates import TestAuthority
from tests.support.dial import Connection, dial
from tests.support.envoy import Envoy, short_directory, wait_until
from tests.support.otlp_metrics import MetricCollector, running_metric_collector
from tests.support.telemetry import SERVER, Telemetry, running_telemetry
from weft.control.metric_push import MetricPushes
from weft.protos import otlp_trace_service_v1
from weft.telemetry.push.plan import NOTHING, Plan
from weft.telemetry.server import TRACES

HTTP, TCP = 9080, 9000
SECONDS = 60.0
WEB, REVIEWS = "spiffe://cluster.local/ns/default/sa/web", "spiffe://cluster.local/ns/default/sa/reviews"
SERVED, MISSING, BROKEN, RETRIED, LATE, ABORTED, DENIED = 40, 5, 7, 4, 3, 6, 8
# What each end sees, by status. 0: the caller's proxy did not wait for it.
AT_SOURCE = {
    "200": SERVED + RETRIED, "404": MISSING, "500": BROKEN, "504": LATE, "418": ABORTED, "403": DENIED,
}  # fmt: skip
AT_DESTINATION = {
    "200": SERVED + RETRIED, "404": MISSING, "500": BROKEN, "503": RETRIED, "0": LATE, "403": DENIED,
}  # fmt: skip
LINE = re.compile(r"^envoy_(\w+)\{(.*)\} ([0-9.e+]+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


def _resource(group: str, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": group, "kind": kind, "metadata": {"name": name, "namespace": "default"}, "spec": spec,
    }  # fmt: skip


def _collectors(collector: MetricCollector, other: MetricCollector) -> list[dict[str, Any]]:
    """Everybody's series go to one by gRPC; those of what is served here to another, by HTTP."""
    return [
        _resource(
            "networking.istio.io/v1", "ServiceEntry", "collector",
            {
                "hosts": ["collector.example"], "location": "MESH_EXTERNAL", "resolution": "STATIC",
                "endpoints": [{"address": "127.0.0.1"}],
                "ports": [
                    {"number": 4317, "name": "grpc", "protocol": "GRPC", "targetPort": collector.port},
                    {"number": 4318, "name": "http", "protocol": "HTTP", "targetPort": other.http_port},
                ],
            },
        ),
        {
            "apiVersion": "weft.dev/v1alpha1", "kind": "MeshConfig",
            "metadata": {"name": "default", "namespace": "istio-system"},
            "spec": {
                "extensionProviders": [
                    {
                        "name": "all",
                        "opentelemetry": {
                            "service": "collector.example", "port": 4317,
                            "grpc": {"initialMetadata": [{"name": "tenant", "value": "shop"}]},
                        },
                    },
                    {
                        "name": "served",
                        "opentelemetry": {
                            "service": "collector.example", "port": 4318,
                            "http": {"path": "/otlp/v1/traces", "headers": [{"name": "x-key", "value": "k"}]},
                        },
                    },
                ],
                "defaultProviders": {"metrics": ["prometheus", "all"]},
            },
        },
        _resource(
            "telemetry.istio.io/v1", "Telemetry", "served",
            {
                "selector": {"matchLabels": {"app": "reviews"}},
                "metrics": [
                    {
                        "providers": [{"name": "served"}, {"name": "all"}],
                        "overrides": [{"match": {"metric": "RESPONSE_SIZE"}, "disabled": True}],
                    },
                ],
            },
        ),
    ]  # fmt: skip


def _resources(address: str) -> list[dict[str, Any]]:
    networking, ports = "networking.istio.io/v1", {"http": HTTP, "tcp": TCP}
    to = [{"destination": {"host": "reviews", "port": {"number": HTTP}}}]

    def route(prefix: str, **more: Any) -> dict[str, Any]:
        return {"match": [{"uri": {"prefix": prefix}}], "route": to, **more}

    return [
        _resource(
            "v1", "Service", "reviews",
            {
                "selector": {"app": "reviews"},
                "ports": [{"name": name, "port": port} for name, port in ports.items()],
            },
        ),
        _resource(
            networking, "WorkloadEntry", "reviews",
            {
                "address": address, "labels": {"app": "reviews"}, "serviceAccount": "reviews",
                "ports": ports,
            },
        ),
        _resource(
            networking, "VirtualService", "reviews",
            {
                "hosts": ["reviews"],
                "http": [
                    route("/late", timeout="0.6s", retries={"attempts": 0}),
                    route("/retried", retries={"attempts": 1, "retryOn": "5xx"}),
                    route(
                        "/aborted", fault={"abort": {"httpStatus": 418, "percentage": {"value": 100}}}
                    ),
                    route("/", retries={"attempts": 0}),
                ],
            },
        ),
        _resource(
            "security.istio.io/v1", "AuthorizationPolicy", "closed",
            {
                "action": "DENY", "selector": {"matchLabels": {"app": "reviews"}},
                "rules": [{"to": [{"operation": {"paths": ["/denied"], "ports": [str(HTTP)]}}]}],
            },
        ),
    ]  # fmt: skip


@dataclass
class Mesh:
    plane: ControlPlane
    telemetry: Telemetry
    web: Envoy
    reviews: Envoy
    outbound: tuple[str, int]
    backend: HttpBackend
    collector: MetricCollector
    other: MetricCollector
    restart_web: Callable[[], Envoy]

    def connect(self) -> Connection:
        """As the application of web connects to reviews."""
        return Connection((self.plane.address("reviews"), HTTP), through=self.outbound)

    def rows(self, by: str, **asked: str) -> dict[str, dict[str, Any]]:
        """Of the question stat, by key."""
        found = self.telemetry.ask("stat", by=by, window="1h", **asked)["rows"]
        return {row["key"]: row for row in found}

    def codes(self, **asked: str) -> dict[str, int]:
        """Requests by status."""
        return {key: row["requests"] for key, row in self.rows("code", **asked).items() if row["requests"]}


def _scraped(envoy: Envoy, name: str, label: str = "response_code") -> dict[str, int]:
    """A metric in Prometheus' text, added up by a label."""
    found: Counter[str] = Counter()
    for metric, labels, value in LINE.findall(envoy.admin("/stats/prometheus?usedonly")):
        if metric == name:
            found[dict(LABEL.findall(labels)).get(label, "")] += int(float(value))
    return dict(found)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    base = f"127.{random.randint(16, 250)}.{random.randint(1, 250)}"
    authority = TestAuthority()
    with ExitStack() as stack:
        backend = stack.enter_context(serving(HttpBackend(f"{base}.2", HTTP, "reviews")))
        stack.enter_context(serving(TcpBackend(f"{base}.2", TCP, "tcp")))
        directory = stack.enter_context(short_directory())
        collector, other = (stack.enter_context(running_metric_collector()) for _ in range(2))
        pushes: list[MetricPushes] = []

        def plan() -> Plan:
            return pushes[0].plan() if pushes else NOTHING

        telemetry = stack.enter_context(running_telemetry(directory, authority, plan))
        plane = stack.enter_context(ControlPlane(tmp_path_factory.mktemp("store"), authority))
        plane.apply(*_resources(f"{base}.1"), *_collectors(collector, other))
        pushes.append(MetricPushes(lambda: plane.pipeline.world, plane.identities, interval_s=0.5))

        def sidecar(name: str, address: str, own: str, stack: ExitStack) -> Envoy:
            weft = {
                "outboundAddress": address, "outboundPort": 15001,
                "inboundAddress": address, "appAddress": own,
            }  # fmt: skip
            return stack.enter_context(
                plane.sidecar(name, address, weft, account=name, telemetry_port=telemetry.port, flush="1s")
            )

        def restart() -> Envoy:
            web_stack.close()
            return sidecar("web", f"{base}.3", f"{base}.4", web_stack)

        web_stack = stack.enter_context(ExitStack())
        reviews, web = sidecar("reviews", f"{base}.1", f"{base}.2", stack), restart()
        plane.settle(2)
        yield Mesh(plane, telemetry, web, reviews, (f"{base}.3", 15001), backend, collector, other, restart)


@pytest.fixture(scope="module")
def asked(mesh: Mesh) -> None:
    """The requests, each of which has its answer."""
    connection = mesh.connect()
    for number in range(SERVED):
        assert connection.ask(f"/items/{number}").status == 200
    for _ in range(MISSING):
        assert connection.ask("/x?status=404").status == 404
    for _ in range(BROKEN):
        assert connection.ask("/x?status=500").status == 500
    for number in range(RETRIED):
        assert connection.ask(f"/retried?fail=1&key={number}").status == 200
    for _ in range(LATE):
        assert connection.ask("/late?held=1").status == 504
    mesh.backend.gate.set()
    for _ in range(ABORTED):
        assert connection.ask("/aborted").status == 418
    for _ in range(DENIED):
        assert connection.ask("/denied").status == 403


@pytest.mark.usefixtures("asked")
def test_both_ends_count_the_same_requests_everywhere(mesh: Mesh) -> None:
    # Prometheus' text.
    assert _scraped(mesh.web, "istio_requests_total") == AT_SOURCE
    wait_until(lambda: _scraped(mesh.reviews, "istio_requests_total") == AT_DESTINATION, SECONDS, "the ends")
    # What the telemetry process was told by OTLP: what the workload served, and what its caller got.
    wait_until(lambda: mesh.codes(direction="outbound") == AT_SOURCE, SECONDS, "what the caller got")
    served = {"of": "workload:default/reviews"}
    wait_until(lambda: mesh.codes(**served) == AT_DESTINATION, SECONDS, "what was served")
    # A fault reached no workload: only its caller can tell of it, and each call counts once.
    assert mesh.codes(of="service:default/reviews") == {**AT_DESTINATION, "418": ABORTED}
    # Somebody else's collector.
    name, label, collector = "istio_requests_total", "response_code", mesh.collector
    for side, expected in (("source", AT_SOURCE), ("destination", AT_DESTINATION)):
        wait_until(
            lambda side=side, expected=expected: collector.by(name, label, reporter=side) == expected,  # type: ignore[misc]
            SECONDS, f"the collector, {collector.by(name, label, reporter=side)}",
        )  # fmt: skip
    assert not collector.torn
    assert {one["tenant"] for one in collector.metadata} == {"shop"}
    names = {one["service.name"]: one for one in collector.resources()}
    assert names.keys() == {"web.default", "reviews.default"}
    assert (
        names["web.default"].items() >= {"service.namespace": "default", "service.instance.id": "web"}.items()
    )
    said = collector.labels("istio_requests_total", reporter="source", response_code="404")
    assert (
        said.items()
        >= {"source_principal": WEB, "source_workload": "web", "source_version": "unknown"}.items()
    )
    assert {"istio_request_bytes", "istio_response_bytes", "envoy_server_uptime"} <= collector.names()


@pytest.mark.usefixtures("asked")
def test_collectors_get_what_telemetry_resources_say(mesh: Mesh) -> None:
    name, label, other = "istio_requests_total", "response_code", mesh.other
    wait_until(lambda: other.by(name, label) == AT_DESTINATION, SECONDS, "what reviews served")
    assert set(other.paths) == {"/otlp/v1/metrics"}
    assert {one["x-key"] for one in other.metadata} == {"k"}
    assert {one["service.name"] for one in other.resources()} == {"reviews.default"}
    assert "istio_request_bytes" in other.names()
    assert "istio_response_bytes" not in other.names()
    assert not other.torn


@pytest.mark.usefixtures("asked")
def test_durations_are_counted_with_their_requests(mesh: Mesh) -> None:
    def timed(**asked: str) -> int:
        (series,) = mesh.telemetry.ask("series", metric="latency", since="1h", **asked)["series"]
        return sum(sum(counts) for counts in series["counts"])

    whole = sum(AT_SOURCE.values())
    wait_until(lambda: timed(direction="outbound", of="default/web") >= whole, SECONDS, "histograms")
    assert timed(direction="outbound", of="default/web") == whole
    scraped = _scraped(mesh.web, "istio_request_duration_milliseconds_count")
    assert scraped == AT_SOURCE
    late = mesh.rows("code", direction="outbound")["504"]
    assert 500 <= late["p50"] <= 1_000, "within the bucket of the timeout"


@pytest.mark.usefixtures("asked")
def test_the_edge_is_confirmed_by_both_ends(mesh: Mesh) -> None:
    def edge() -> dict[str, Any] | None:
        found = [
            edge
            for edge in mesh.telemetry.ask("edges", window="1h")["edges"]
            if edge["protocol"] == "http" and edge["destination"]["workload"] == "reviews"
        ]
        return found[0] if len(found) == 1 and len(found[0]["toldBy"]) == 2 else None

    wait_until(edge, SECONDS, "the edge")
    found = edge()
    assert found is not None
    assert (found["source"]["workload"], found["source"]["principal"], found["source"]["sure"]) == (
        "web",
        WEB,
        True,
    )
    assert (found["destination"]["principal"], found["destination"]["sure"]) == (REVIEWS, True)
    assert found["service"]["host"] == "reviews.default.svc.cluster.local"
    assert (found["seenBy"], found["secured"], found["mtls"]) == ("source", True, 1.0)


@pytest.mark.usefixtures("asked")
def test_bytes_and_connections_are_counted_at_both_ends(mesh: Mesh) -> None:
    greeting, payload = b"hello from tcp\n", b"x" * 10_000
    for _ in range(3):
        with dial((mesh.plane.address("reviews"), TCP), through=mesh.outbound) as connection:
            connection.sendall(payload)
            got = b""
            while len(got) < len(greeting) + len(payload) and (more := connection.recv(65536)):
                got += more
            assert len(got) == len(greeting) + len(payload)
    held = dial((mesh.plane.address("reviews"), TCP), through=mesh.outbound)
    with held:
        held.sendall(b"x")
        assert held.recv(100)
        expected = {
            "opened": 4, "closed": 3, "connections": 1, "received": 3 * len(payload),
            "sent": 3 * (len(payload) + len(greeting)), "mtls": 1.0,
        }  # fmt: skip

        def counted(**asked: str) -> dict[str, Any]:
            row = mesh.rows("protocol", **asked).get("tcp", {})
            return {name: row.get(name) for name in expected}

        for asked in ({"of": "workload:default/reviews"}, {"direction": "outbound"}):
            wait_until(lambda asked=asked: counted(**asked) == expected, SECONDS, f"{asked}")  # type: ignore[misc]
        scraped = _scraped(mesh.web, "istio_tcp_received_bytes_total", "request_protocol")
        assert scraped == {"tcp": 3 * len(payload)}
    wait_until(lambda: counted(direction="outbound")["connections"] == 0, SECONDS, "its end")


@pytest.mark.usefixtures("asked")
def test_nothing_is_counted_twice_over_restarts(mesh: Mesh) -> None:
    """Of the control plane, of a proxy, and of the telemetry process as no program expects."""
    mesh.plane.stop()
    mesh.plane.start()
    mesh.plane.settle(2)
    connection = mesh.connect()
    for _ in range(5):
        assert connection.ask("/again").status == 200
    expected = AT_DESTINATION | {"200": AT_DESTINATION["200"] + 5}
    wait_until(lambda: mesh.codes(of="workload:default/reviews") == expected, SECONDS, "five more")
    collector = mesh.collector

    def pushed(side: str) -> dict[str, float]:
        return collector.by("istio_requests_total", "response_code", reporter=side)

    # A proxy that is started anew counts from nothing: for others its sums go on.
    wait_until(lambda: pushed("source").get("200") == AT_SOURCE["200"] + 5, SECONDS, "the source's word")
    mesh.web = mesh.restart_web()
    mesh.plane.settle(2)
    connection = mesh.connect()
    for _ in range(5):
        assert connection.ask("/again").status == 200
    assert _scraped(mesh.web, "istio_requests_total") == {"200": 5}
    expected["200"] += 5
    wait_until(lambda: mesh.codes(of="workload:default/reviews") == expected, SECONDS, "the new one's")
    asked_for = AT_SOURCE | {"200": AT_SOURCE["200"] + 10}
    wait_until(lambda: mesh.codes(direction="outbound") == asked_for, SECONDS, "what was asked for")
    wait_until(lambda: pushed("destination") == expected, SECONDS, "pushed before the end")
    wait_until(lambda: pushed("source") == asked_for, SECONDS, "pushed before the end, of the source")
    restarts = mesh.telemetry.metrics.telemetry_restarts
    lives = restarts.value()
    mesh.telemetry.kill()
    wait_until(lambda: restarts.value() > lives, SECONDS, "its end")
    wait_until(mesh.telemetry.answers, SECONDS, "its return")
    wait_until(lambda: mesh.telemetry.ask("health")["received"]["messages"] >= 4, SECONDS, "the proxies")
    kept = mesh.codes(of="workload:default/reviews")
    lost = {code: number - kept.get(code, 0) for code, number in expected.items()}
    assert min(lost.values()) >= 0
    # The last seconds are only in memory: what was lost of them is known to be.
    if any(lost.values()):
        wait_until(lambda: mesh.telemetry.ask("health")["lost"]["metric_gaps"], SECONDS, f"{lost}")
    for _ in range(5):
        assert connection.ask("/again").status == 200
    kept["200"] = kept.get("200", 0) + 5
    wait_until(lambda: mesh.codes(of="workload:default/reviews") == kept, SECONDS, "five more again")
    expected["200"] += 5
    wait_until(lambda: pushed("destination") == expected, SECONDS, "sums that began anew")
    health = mesh.telemetry.ask("health")
    assert (health["tellers"], health["lost"]["unreadable"], health["lost"]["points_unusable"]) == (2, 0, 0)
    assert not collector.torn


def _statistic(envoy: Envoy, name: str) -> int:
    return int(envoy.admin(f"/stats?filter=^{name}$").partition(":")[2] or 0)


def _memory_kb(process: int) -> int:
    (line,) = (one for one in Path(f"/proc/{process}/status").read_text().splitlines() if "VmHWM" in one)
    return int(line.split()[1])


@pytest.mark.usefixtures("asked")
def test_a_process_that_hangs_holds_up_no_traffic(mesh: Mesh) -> None:
    """Proxies hold a bounded number of messages until it goes on; what they gave up is known to be lost."""
    served = {"of": "workload:default/reviews"}
    before, gaps = mesh.codes(**served), mesh.telemetry.ask("health")["lost"]["metric_gaps"]
    process, under_way = mesh.telemetry.pid, "cluster.weft-telemetry.upstream_rq_active"
    sent, connection = 0, mesh.connect()
    os.kill(process, signal.SIGSTOP)
    try:

        def go_on() -> bool:
            nonlocal sent
            assert connection.ask("/hanging").status == 200
            sent += 1
            return _statistic(mesh.reviews, under_way) >= 4

        wait_until(go_on, SECONDS, "messages that nobody takes")
        assert _statistic(mesh.reviews, under_way) <= 64
    finally:
        os.kill(process, signal.SIGCONT)

    def settled() -> bool:
        lost = before["200"] + sent - mesh.codes(**served)["200"]
        assert lost >= 0, "something is counted twice"
        return not lost or mesh.telemetry.ask("health")["lost"]["metric_gaps"] > gaps

    wait_until(settled, SECONDS, "everything counted, or known to be lost")
    told = mesh.telemetry.ask("health")["received"]["messages"]
    wait_until(
        lambda: mesh.telemetry.ask("health")["received"]["messages"] >= told + 4, SECONDS, "the proxies"
    )
    kept = mesh.codes(**served)
    for _ in range(3):
        assert connection.ask("/after").status == 200
    kept["200"] += 3
    wait_until(lambda: mesh.codes(**served) == kept, SECONDS, "three more, and nothing else")


@pytest.mark.usefixtures("asked")
def test_a_flood_holds_up_no_traffic(mesh: Mesh) -> None:
    """Of spans, by a workload of the mesh: what is too much is counted, and others' counts go on."""
    pair = mesh.plane.authority.issue("spiffe://cluster.local/ns/default/sa/flood")
    credentials = grpc.ssl_channel_credentials(
        mesh.plane.authority.pem.encode(), pair.key.encode(), pair.certificate.encode()
    )
    request = otlp_trace_service_v1.ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number in range(4_000):
        spans.add(trace_id=number.to_bytes(16, "big"), span_id=b"12345678", name="flood")
    body, over, served = request.SerializeToString(), threading.Event(), {"of": "workload:default/reviews"}

    def flood() -> None:
        options = (("grpc.ssl_target_name_override", SERVER), ("grpc.use_local_subchannel_pool", 1))
        with grpc.secure_channel(f"127.0.0.1:{mesh.telemetry.port}", credentials, options) as channel:
            while not over.is_set():
                with suppress(grpc.RpcError):
                    channel.unary_unary(TRACES)(body, timeout=20)

    def dropped() -> int:
        lost = mesh.telemetry.ask("health")["lost"]
        return int(lost["spans_left_out"] + lost["refused_messages"])

    before, connection, sent = mesh.codes(**served), mesh.connect(), 0
    thread = threading.Thread(target=flood)
    thread.start()
    try:
        while sent < 20 or not dropped():
            assert connection.ask("/flooded").status == 200
            sent += 1
        wait_until(
            lambda: mesh.codes(**served)["200"] == before["200"] + sent, SECONDS, "counts during the flood"
        )
    finally:
        over.set()
        thread.join()
    assert _memory_kb(mesh.telemetry.pid) < 400 * 1024
