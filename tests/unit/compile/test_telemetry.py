"""Telemetry resources: whom they are for, and what they come to together (Istio's telemetry_test.go)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from weft import ir
from weft.compile.delivery import on_demand
from weft.compile.istio.log_format import TEXT, complaint
from weft.compile.istio.metric_tags import value_of
from weft.compile.proxy import compile_proxy
from weft.compile.world import World
from weft.errors import Problem
from weft.model.parse import parse_object
from weft.model.resource import Resource
from weft.names import TELEMETRY_CLUSTER, ProxyName

PROVIDERS = [
    {"name": "text", "envoyFileAccessLog": {"path": "text.log"}},
    {
        "name": "json",
        "envoyFileAccessLog": {"path": "json.log", "logFormat": {"labels": {"a": "%PROTOCOL%"}}},
    },
    {"name": "otel", "opentelemetry": {"service": "collector.default.svc.cluster.local", "port": 4317}},
    {"name": "wrong", "zipkin": {"service": "nobody.example", "port": 9411}},
]
COLLECTOR = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "collector", "namespace": "default"},
    "spec": {"clusterIP": "10.0.0.9", "ports": [{"name": "grpc", "port": 4317}]},
}


def _read(*objects: dict[str, Any]) -> list[Resource]:
    found = []
    for one in objects:
        resource, problems = parse_object(one)
        assert resource is not None, problems
        found.append(resource)
    return found


def _mesh(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "default", "namespace": "istio-system"}
    spec.setdefault("extensionProviders", PROVIDERS)
    return {"apiVersion": "weft.dev/v1alpha1", "kind": "MeshConfig", "metadata": metadata, "spec": spec}


def _telemetry(name: str, namespace: str, created: int = 0, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "creationTimestamp": f"2026-01-01T00:00:{created:02}Z"}
    return {
        "apiVersion": "telemetry.istio.io/v1",
        "kind": "Telemetry",
        "metadata": metadata,
        "spec": spec,
    }


def _compiled(*objects: dict[str, Any], kind: str = "sidecar") -> tuple[ir.Telemetry, tuple[Problem, ...]]:
    identity = ir.ProxyIdentity(name=ProxyName(kind, "10.0.0.1", "web", "default"), labels=(("app", "web"),))
    proxy, problems = compile_proxy(World.build(_read(COLLECTOR, *objects)), identity)
    return proxy.telemetry, problems


def _paths(reports: ir.Reports) -> list[str]:
    return [log.to.path for log in reports.logs if isinstance(log.to, ir.FileLog)]


def _logging(*names: str, **said: Any) -> dict[str, Any]:
    return {"providers": [{"name": name} for name in names], **said}


def test_nothing_said_is_metrics_and_the_store() -> None:
    told, problems = _compiled()
    assert problems == ()
    assert told.client == told.server
    assert told.client.metrics == ir.Metrics()
    assert told.client.logs == ()
    assert told.clusters() == {TELEMETRY_CLUSTER}
    assert told.client.tracing is not None
    assert told.client.tracing.sampling == 10_000


def test_no_tracing() -> None:
    assert _compiled(_mesh(enableTracing=False))[0].client.tracing is None
    told, _ = _compiled(_telemetry("a", "istio-system", tracing=[{"disableSpanReporting": True}]))
    assert told.client.tracing is told.server.tracing is None


@pytest.mark.parametrize(
    ("said", "sampling"),
    [
        ([], 10_000),
        ([("istio-system", {}, 10)], 100_000),
        ([("istio-system", {}, 10), ("default", {}, 20)], 200_000),
        ([("istio-system", {}, 10), ("default", {}, 20), ("default", {"app": "web"}, 30)], 300_000),
        ([("default", {"app": "web"}, 30), ("default", {"app": "web"}, 40)], 400_000),
        ([("default", {}, 20), ("default", {}, 50)], 200_000),  # of two for one namespace the older
        ([("default", {"app": "other"}, 30), ("elsewhere", {}, 40)], 10_000),
        ([("istio-system", {"app": "web"}, 30)], 10_000),  # a selector is for its own namespace
        ([("istio-system", {}, 0)], 0),
    ],
)
def test_the_nearer_word_counts(said: list[tuple[str, dict[str, str], int]], sampling: int) -> None:
    resources = [
        _telemetry(
            f"t{number}",
            namespace,
            number,
            **({"selector": {"matchLabels": labels}} if labels else {}),
            tracing=[{"randomSamplingPercentage": percent}],
        )
        for number, (namespace, labels, percent) in enumerate(said)
    ]
    told, _ = _compiled(_mesh(), *resources)
    assert told.server.tracing is not None
    assert told.server.tracing.sampling == sampling


def test_providers_of_traces() -> None:
    told, problems = _compiled(_mesh(defaultProviders={"tracing": ["OTEL"]}))
    assert problems == ()
    assert told.client.tracing is not None
    assert "outbound|4317||collector.default.svc.cluster.local" in told.clusters()
    told, (problem,) = _compiled(
        _mesh(), _telemetry("a", "default", tracing=[{"providers": [{"name": "wrong"}]}])
    )
    assert told.client.tracing is None
    assert problem.path == "spec.tracing[0].providers[0].name"
    assert "nobody.example" in problem.message
    # The store by its name, and a mode.
    told, _ = _compiled(
        _mesh(defaultProviders={"tracing": ["otel"]}),
        _telemetry("a", "default", tracing=[{"match": {"mode": "SERVER"}, "providers": [{"name": "weft"}]}]),
    )
    assert told.server.tracing is not None
    assert list(told.server.clusters()) == [TELEMETRY_CLUSTER]
    assert list(told.client.clusters()) != [TELEMETRY_CLUSTER]


def test_a_collector_that_a_sidecar_does_not_see_is_reported() -> None:
    scope = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Sidecar",
        "metadata": {"name": "narrow", "namespace": "default"},
        "spec": {"egress": [{"hosts": ["istio-system/*"]}]},
    }
    told, (problem,) = _compiled(_mesh(defaultProviders={"tracing": ["otel"]}), scope)
    assert told.client.tracing is told.server.tracing is None
    assert "no way to outbound|4317||collector" in problem.message


def test_the_log_of_the_mesh_and_evidence_beside_it() -> None:
    told, _ = _compiled(_mesh(accessLogFile="/dev/stdout", accessLogEncoding="JSON"))
    assert _paths(told.client) == ["/dev/stdout"]
    told, _ = _compiled(_mesh(accessLogFile="/dev/stdout"))
    assert _paths(told.client) == ["/dev/stdout", "access.log"]
    first = told.client.logs[0].to
    assert isinstance(first, ir.FileLog)
    assert first.text == TEXT
    told, _ = _compiled(_mesh(accessLogFile="/dev/stdout", evidenceLog=False))
    assert _paths(told.client) == ["/dev/stdout"]
    told, _ = _compiled(_mesh(evidenceLog=True))
    assert _paths(told.client) == ["access.log"]


def test_a_format_that_cannot_be_read_is_istios_and_reported() -> None:
    told, (problem,) = _compiled(_mesh(accessLogFile="a.log", accessLogFormat="%NOSUCH%"))
    assert problem.path == "spec.accessLogFormat"
    first = told.client.logs[0].to
    assert isinstance(first, ir.FileLog)
    assert first.text == TEXT
    _, (problem,) = _compiled(
        _mesh(accessLogFile="a.log", accessLogFormat="%PROTOCOL%", accessLogEncoding="JSON")
    )
    assert problem.hint == "write accessLogEncoding: TEXT"


@pytest.mark.parametrize(
    ("levels", "client", "server"),
    [
        # A resource that names nobody has the defaults; one that names somebody replaces them.
        ({"istio-system": [_logging()]}, ["text.log"], ["text.log"]),
        ({"istio-system": [_logging("json")]}, ["json.log"], ["json.log"]),
        ({"istio-system": [_logging("json")], "default": [_logging("text")]}, ["text.log"], ["text.log"]),
        # Disabled by a nearer one.
        ({"istio-system": [_logging("json")], "default": [_logging("json", disabled=True)]}, [], []),
        ({"istio-system": [_logging("json")], "default": [_logging(disabled=True)]}, [], []),
        # By side: of the other one nothing is said, not even the default.
        ({"default": [_logging("json", match={"mode": "CLIENT"})]}, ["json.log"], []),
        (
            {
                "default": [
                    _logging("json", match={"mode": "SERVER"}),
                    _logging("text", match={"mode": "CLIENT"}),
                ]
            },
            ["text.log"],
            ["json.log"],
        ),
        # Both.
        ({"default": [_logging("text", "json")]}, ["json.log", "text.log"], ["json.log", "text.log"]),
    ],
)
def test_who_logs(levels: dict[str, list[Any]], client: list[str], server: list[str]) -> None:
    resources = [_telemetry(f"in-{space}", space, accessLogging=said) for space, said in levels.items()]
    told, _ = _compiled(_mesh(defaultProviders={"accessLogging": ["text"]}), *resources)
    assert _paths(told.client) == client
    assert _paths(told.server) == server


def test_filters_of_logs() -> None:
    said = _logging("json", filter={"expression": "response.code >= 400"})
    told, problems = _compiled(_mesh(), _telemetry("a", "default", accessLogging=[said]))
    assert problems == ()
    assert [log.only for log in told.client.logs] == ["response.code >= 400"]
    said = _logging("json", filter={"expression": "nosuch(1)"})
    told, (problem,) = _compiled(_mesh(), _telemetry("a", "default", accessLogging=[said]))
    assert told.client.logs == ()
    assert "nosuch()" in problem.message


def _metrics(told: ir.Reports) -> dict[str, ir.MetricChange]:
    assert told.metrics is not None
    return {change.metric: change for change in told.metrics.changes}


def test_metrics_come_together() -> None:
    count = {"metric": "REQUEST_COUNT", "mode": "CLIENT"}
    wide = {
        "providers": [{"name": "prometheus"}],
        "overrides": [
            {"match": count, "tagOverrides": {"a": {"value": "'1'"}, "b": {"value": "request.host"}}},
            {"match": {"metric": "REQUEST_SIZE"}, "disabled": True},
        ],
    }
    near = {
        "overrides": [
            {"match": count, "tagOverrides": {"b": {"operation": "REMOVE"}}},
            {"match": {"metric": "REQUEST_SIZE", "mode": "SERVER"}, "disabled": False},
        ]
    }
    told, problems = _compiled(
        _telemetry("a", "istio-system", metrics=[wide]), _telemetry("b", "default", metrics=[near])
    )
    assert problems == ()
    client, server = _metrics(told.client), _metrics(told.server)
    assert client["istio_requests_total"].tags == (("a", "1"), ("b", None))
    assert client["istio_request_bytes"].disabled
    assert server == {}


def test_all_metrics_can_be_turned_off_and_on_again() -> None:
    off = {"overrides": [{"disabled": True, "match": {"mode": "CLIENT"}}]}
    told, _ = _compiled(_telemetry("a", "istio-system", metrics=[off]))
    assert told.client.metrics is None
    assert told.server.metrics == ir.Metrics()
    on = {"overrides": [{"disabled": False}]}
    told, _ = _compiled(
        _telemetry("a", "istio-system", metrics=[off]), _telemetry("b", "default", metrics=[on])
    )
    assert told.client.metrics == ir.Metrics()


def test_of_a_gateway_clients_words_count() -> None:
    said = [{"match": {"mode": "CLIENT"}, "randomSamplingPercentage": 7}]
    told, _ = _compiled(_telemetry("a", "default", tracing=said), kind="router")
    assert told.client.tracing is not None
    assert told.client.tracing.sampling == 70_000


@pytest.mark.parametrize(
    ("expression", "made"),
    [
        ("request.method", "%REQ(:METHOD)%"),
        ("string(destination.port)", "%DOWNSTREAM_LOCAL_PORT%"),
        ("'shop'", "shop"),
        ("request.headers['x-team']", "%REQ(X-TEAM)%"),
        ("node.metadata['CLUSTER_ID']", "%ENVIRONMENT(WEFT_CLUSTER)%"),
        ("upstream_peer.labels['app'].value", "%METADATA(UPSTREAM_HOST:weft:app)%"),
        ("response.code >= 400 ? 'bad' : 'good'", "%CEL(response.code >= 400 ? 'bad' : 'good')%"),
        ("downstream_peer.app", "%FILTER_STATE(weft.caller.app:PLAIN)%"),
        ("downstream_peer.labels['version'].value", "%FILTER_STATE(weft.caller.version:PLAIN)%"),
        ("downstream_peer.labels['team']", ""),
        ("istio_operationId", ""),
        ("request.path.lowerAscii()", ""),
        ("a +", ""),
    ],
)
def test_values_of_labels(expression: str, made: str) -> None:
    found, wrong = value_of(expression)
    assert found == made
    assert bool(wrong) is not bool(made)


def test_formats() -> None:
    assert complaint(TEXT) == ""
    for text in ("%NOSUCH%", "50% off", "%REQ%", "%CEL(a +)%", "%"):
        assert complaint(text), text
    for text in ("", "plain", "100%%", "%REQ(:PATH):20%", "%START_TIME(%s)%", "%CEL(request.method)%"):
        assert complaint(text) == "", text


def test_who_is_told_does_not_wait_for_a_request() -> None:
    world = World.build(_read(COLLECTOR, _mesh(defaultProviders={"tracing": ["otel"]})))
    identity = ir.ProxyIdentity(name=ProxyName("sidecar", "10.0.0.1", "web", "default"))
    proxy, _ = compile_proxy(world, identity)
    assert on_demand(proxy, world.memo).lazy == frozenset()
    quiet = replace(proxy, telemetry=ir.Telemetry())
    assert len(on_demand(quiet, world.memo).lazy) == 1


def test_settings_in_istios_config_map_are_looked_at_too() -> None:
    settings = (
        "defaultProviders: {tracing: [otle], accessLogging: [envoy]}\nextensionProviders: [{name: otel}]"
    )
    kept = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "istio", "namespace": "istio-system"},
        "data": {"mesh": settings},
    }
    told, (problem,) = _compiled(kept)
    assert told.client.tracing is None
    assert _paths(told.client) == ["/dev/stdout"]
    assert (problem.path, problem.hint) == ("data.mesh", "did you mean 'otel'?")
    assert problem.message.startswith("defaultProviders.tracing[0]: no provider is named 'otle'")
