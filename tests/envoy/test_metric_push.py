"""Metrics to collectors of others: over TLS, down, slow, gone and back. No Envoy: gRPC by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from tests.support.certificates import Pair, TestAuthority
from tests.support.envoy import short_directory, wait_until
from tests.support.otlp_metrics import MetricCollector, running_metric_collector
from tests.support.telemetry import SERVER, Telemetry, running_telemetry
from weft import ir
from weft.compile.world import World
from weft.control.metric_push import MetricPushes
from weft.model.parse import parse_object
from weft.names import ProxyName
from weft.protos import otlp_common_v1, otlp_metrics_service_v1, otlp_metrics_v1
from weft.telemetry.push.plan import Choice, Collector, Endpoint, Plan
from weft.telemetry.server import METRICS

SECONDS = 60.0
INTERVAL_S = 0.2
REQUESTS = "istio_requests_total"
MESH = """
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {name: default, namespace: istio-system}
spec:
  extensionProviders:
  - {name: all, opentelemetry: {service: HOST, port: 4317}}
  defaultProviders: {metrics: [all]}
"""
OUTSIDE = """
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: collector, namespace: istio-system}
spec:
  hosts: [collector.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 4317, name: grpc, protocol: GRPC, targetPort: PORT}]
  endpoints: [{address: 127.0.0.1}]
"""
RULE = """
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: collector, namespace: istio-system}
spec:
  host: collector.example
  trafficPolicy: {tls: TLS}
"""
INSIDE = """
---
apiVersion: v1
kind: Service
metadata: {name: collector, namespace: watch}
spec:
  clusterIP: 240.240.0.9
  selector: {app: collector}
  ports: [{name: grpc, port: 4317, targetPort: PORT}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: collector-0, namespace: watch}
spec: {address: 127.0.0.1, serviceAccount: collector, labels: {app: collector}, ports: {grpc: PORT}}
"""
IDENTITY = ir.ProxyIdentity(name=ProxyName("sidecar", "127.0.0.1", "web", "default"), service_account="web")


@pytest.fixture(scope="module")
def authority() -> TestAuthority:
    return TestAuthority()


class Proxy:
    """Tells of requests as an Envoy does: what grew."""

    def __init__(self, telemetry: Telemetry, authority: TestAuthority) -> None:
        pair = authority.issue("spiffe://cluster.local/ns/default/sa/web")
        credentials = grpc.ssl_channel_credentials(
            authority.pem.encode(), pair.key.encode(), pair.certificate.encode()
        )
        self._place = f"127.0.0.1:{telemetry.port}"
        self._credentials = credentials

    def tell(self, grown: int, **labels: str) -> None:
        """So many requests more, of each series in ``labels``' place."""
        self.tell_all([({"reporter": "source", "response_code": "200", **labels}, grown)])

    def tell_all(self, grown: list[tuple[dict[str, str], int]]) -> None:
        """By labels."""
        now_ns = time.time_ns()
        request = otlp_metrics_service_v1.ExportMetricsServiceRequest()
        part = request.resource_metrics.add()
        said = {"service.name": "web.default", "service.namespace": "elsewhere", "service.instance.id": "web"}
        part.resource.attributes.extend(_pairs(said))
        metric = part.scope_metrics.add().metrics.add(name=REQUESTS)
        delta = otlp_metrics_v1.AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
        metric.sum.aggregation_temporality = delta
        for labels, number in grown:
            point = metric.sum.data_points.add(time_unix_nano=now_ns, as_int=number)
            point.start_time_unix_nano = now_ns - 5_000_000_000
            point.attributes.extend(_pairs(labels))
        options = (("grpc.ssl_target_name_override", SERVER), ("grpc.use_local_subchannel_pool", 1))
        with grpc.secure_channel(self._place, self._credentials, options) as channel:
            channel.unary_unary(METRICS)(request.SerializeToString(), timeout=20)


def _pairs(values: dict[str, str]) -> list[otlp_common_v1.KeyValue]:
    return [
        otlp_common_v1.KeyValue(key=key, value=otlp_common_v1.AnyValue(string_value=value))
        for key, value in values.items()
    ]


def _world(text: str) -> World:
    found = [parse_object(data)[0] for data in yaml.safe_load_all(text)]
    return World.build([one for one in found if one is not None])


@contextmanager
def _pushing(authority: TestAuthority, text: str) -> Iterator[tuple[Telemetry, Proxy]]:
    world = _world(text)
    pushes = MetricPushes(lambda: world, lambda: [IDENTITY], INTERVAL_S)
    with short_directory() as directory, running_telemetry(directory, authority, pushes.plan) as telemetry:
        wait_until(lambda: _standing(telemetry), SECONDS, "the plan")
        yield telemetry, Proxy(telemetry, authority)


def _standing(telemetry: Telemetry) -> dict[str, Any]:
    found: list[dict[str, Any]] = telemetry.ask("health")["collectors"]
    return found[0] if found else {}


def _server(pair: Pair, authority: TestAuthority) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        ((pair.key.encode(), pair.certificate.encode()),), authority.pem.encode(), require_client_auth=True
    )


def test_tls_as_a_destination_rule_says(authority: TestAuthority, tmp_path: Path) -> None:
    others = TestAuthority("others")
    files = {"ca": others.pem, "cert": (own := others.issue("weft.example")).certificate, "key": own.key}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    places = {name: str(tmp_path / name) for name in files}
    tls = (
        f"{{mode: MUTUAL, sni: collector.example, caCertificates: {places['ca']}, "
        f"clientCertificate: {places['cert']}, privateKey: {places['key']}, subjectAltNames: [SAN]}}"
    )
    text = MESH.replace("HOST", "collector.example") + OUTSIDE + RULE.replace("TLS", tls)
    credentials = _server(others.issue("one.example", "two.example"), others)
    with running_metric_collector(tls=credentials) as collector:
        made = text.replace("PORT", str(collector.port))
        with _pushing(authority, made.replace("SAN", "two.example")) as (_, proxy):
            proxy.tell(3)
            wait_until(lambda: collector.by(REQUESTS, "reporter") == {"source": 3}, SECONDS, "three")
        (resource,) = collector.resources()
        assert resource["service.namespace"] == "default", "by its certificate, whatever it says"
        with _pushing(authority, made.replace("SAN", "three.example")) as (telemetry, proxy):
            proxy.tell(3)
            wait_until(lambda: "one.example, two" in _standing(telemetry)["error"], SECONDS, "another name")
        with _pushing(authority, made.replace(places["ca"], "/nowhere")) as (telemetry, _):
            wait_until(lambda: "/nowhere cannot be read" in _standing(telemetry)["error"], SECONDS, "a file")


def test_a_collector_in_the_mesh_is_told_by_its_mutual_tls(authority: TestAuthority) -> None:
    """The control plane's own certificate is shown to it, and nobody else's is believed."""
    text = MESH.replace("HOST", "collector.watch.svc.cluster.local") + INSIDE
    for account, taken in (("collector", True), ("impostor", False)):
        pair = authority.issue(f"spiffe://cluster.local/ns/watch/sa/{account}")
        with running_metric_collector(tls=_server(pair, authority)) as collector, ExitStack() as stack:
            made = text.replace("PORT", str(collector.port))
            telemetry, proxy = stack.enter_context(_pushing(authority, made))
            proxy.tell(2)
            if taken:
                wait_until(lambda: collector.by(REQUESTS, "reporter"), SECONDS, "what it is told")
            else:
                wait_until(lambda: "impostor" in _standing(telemetry)["error"], SECONDS, "its name")  # noqa: B023
            assert bool(collector.messages) is taken


@contextmanager
def _planned(
    authority: TestAuthority, collector: MetricCollector, **more: Any
) -> Iterator[tuple[Telemetry, Proxy]]:
    plan = Plan(
        collectors=(
            Collector(
                name="all", host="collector", endpoints=(Endpoint("127.0.0.1", collector.port),), **more
            ),
        ),
        choices=(Choice(collector="all", sides={"source": ()}),),
        interval_s=INTERVAL_S,
    )
    with short_directory() as directory, running_telemetry(directory, authority, lambda: plan) as telemetry:
        wait_until(lambda: _standing(telemetry), SECONDS, "the plan")
        yield telemetry, Proxy(telemetry, authority)


def test_a_collector_that_is_away_misses_nothing(authority: TestAuthority) -> None:
    """Sums go on where they were, whoever missed a part of them; what did not get there is counted."""
    with running_metric_collector() as collector:
        port = collector.port
        with _planned(authority, collector) as (telemetry, proxy):
            proxy.tell(5)
            wait_until(lambda: collector.by(REQUESTS, "reporter") == {"source": 5}, SECONDS, "five")
            collector.refuse = 2
            proxy.tell(1)
            wait_until(lambda: collector.by(REQUESTS, "reporter") == {"source": 6}, SECONDS, "after refusals")
            standing = _standing(telemetry)
            assert standing["failures"] >= 1
            assert telemetry.ask("health")["lost"]["push_lost_points"] >= 1
            collector.stop()
            proxy.tell(10)
            failures = _standing(telemetry)["failures"]
            wait_until(lambda: _standing(telemetry)["failures"] > failures, SECONDS, "nobody there")
            assert not _standing(telemetry)["up"]
            assert _standing(telemetry)["error"]
            proxy.tell(100)
            with running_metric_collector(port=port, collector=collector):
                wait_until(
                    lambda: collector.by(REQUESTS, "reporter") == {"source": 116}, SECONDS, "all of it"
                )
                wait_until(lambda: _standing(telemetry)["up"], SECONDS, "it is up again")
            assert not collector.torn
            assert telemetry.ask("workloads", window="1h")["total"]["requests"] == 116


def test_a_collector_that_hangs_delays_nobody(authority: TestAuthority) -> None:
    with running_metric_collector() as collector, _planned(authority, collector, timeout_s=0.5) as (
        telemetry, proxy,
    ):  # fmt: skip
        proxy.tell(1)
        wait_until(lambda: collector.by(REQUESTS, "reporter") == {"source": 1}, SECONDS, "one")
        collector.gate.clear()
        wait_until(lambda: _standing(telemetry)["error"], SECONDS, "an end of patience")
        for _ in range(5):
            proxy.tell(1)
        assert telemetry.ask("workloads", window="1h")["total"]["requests"] == 6
        collector.gate.set()
        wait_until(lambda: collector.by(REQUESTS, "reporter") == {"source": 6}, SECONDS, "all six")


def test_a_flood_of_series_is_bounded_and_keeps_its_sum(authority: TestAuthority) -> None:
    most, more = 5_000, 200
    with running_metric_collector() as collector, _planned(authority, collector) as (telemetry, proxy):
        labels = [{"reporter": "source", "path": f"/{number}"} for number in range(most + more)]
        for start in range(0, len(labels), 1_000):
            proxy.tell_all([(one, 1) for one in labels[start : start + 1_000]])
        wait_until(
            lambda: collector.by(REQUESTS, "reporter") == {"source": most + more}, SECONDS, "all of them"
        )
        assert telemetry.ask("health")["pushedSeries"] <= most + 1
        assert telemetry.ask("health")["lost"]["push_overflow"] == more
        assert collector.by(REQUESTS, "otel.metric.overflow")["true"] == more
        assert collector.messages >= most // 1_000, "in parts"
