"""To whom metrics are pushed, and whose: by MeshConfig's providers and Telemetry resources."""

from __future__ import annotations

from typing import Any

import pytest

from weft import ir
from weft.compile.istio.metric_providers import path_of
from weft.compile.metric_push import MetricPush, metric_push
from weft.compile.proxy import compile_proxy
from weft.compile.world import World
from weft.model.parse import parse_object
from weft.names import ProxyName

HOST = "collector.watch.svc.cluster.local"
BOTH = (("destination", ()), ("source", ()))


def _object(group: str, kind: str, namespace: str, name: str, **spec: Any) -> dict[str, Any]:
    about = {"name": name, "namespace": namespace}
    return {"apiVersion": group, "kind": kind, "metadata": about, "spec": spec}


def _provider(name: str = "otel", port: int = 4317, **more: Any) -> dict[str, Any]:
    return {"name": name, "opentelemetry": {"service": HOST, "port": port, **more}}


def _mesh(*providers: dict[str, Any], metrics: tuple[str, ...] = ("otel",), **more: Any) -> dict[str, Any]:
    said = {"extensionProviders": list(providers), "defaultProviders": {"metrics": list(metrics), **more}}
    return _object("weft.dev/v1alpha1", "MeshConfig", "istio-system", "default", **said)


def _telemetry(namespace: str, *metrics: dict[str, Any], app: str = "") -> dict[str, Any]:
    chosen = {"selector": {"matchLabels": {"app": app}}} if app else {}
    spec = {"metrics": list(metrics), **chosen}
    return _object("telemetry.istio.io/v1", "Telemetry", namespace, app or "all", **spec)


def _identity(name: str, namespace: str = "shop") -> ir.ProxyIdentity:
    labels = (("app", name), ("app.kubernetes.io/name", f"the-{name}"))
    return ir.ProxyIdentity(name=ProxyName("sidecar", "10.0.0.1", f"{name}-0", namespace), labels=labels)


def _world(*objects: dict[str, Any]) -> World:
    service = _object(
        "v1", "Service", "watch", "collector",
        clusterIP="10.0.0.9", ports=[{"name": "grpc", "port": 4317}], selector={"app": "collector"},
    )  # fmt: skip
    entry = _object(
        "networking.istio.io/v1", "WorkloadEntry", "watch", "collector-0",
        address="10.0.0.7", labels={"app": "collector"}, serviceAccount="collector",
    )  # fmt: skip
    found = [parse_object(one) for one in (service, entry, *objects)]
    assert all(resource is not None for resource, _ in found), found
    return World.build([resource for resource, _ in found if resource is not None])


def _pushed(*objects: dict[str, Any]) -> MetricPush:
    return metric_push(_world(*objects), [_identity("web"), _identity("api"), _identity("job", "back")])


def test_nobody_is_told_unless_it_is_said() -> None:
    assert _pushed() == MetricPush()
    assert _pushed(_mesh(_provider(), metrics=("prometheus",))) == MetricPush()


def test_the_default_providers_are_told_of_all() -> None:
    made = _pushed(_mesh(_provider(), metrics=("prometheus", "otel")))
    (reached,) = made.collectors
    assert (reached.name, reached.problem) == ("otel", "")
    assert [(one.address, one.port) for one in reached.endpoints] == [("10.0.0.7", 4317)]
    assert [(one.told.provider, one.told.sides) for one in made.choices] == [("otel", BOTH)]
    assert made.others == {}


def test_resources_say_of_whom() -> None:
    without = {"match": {"metric": "REQUEST_SIZE", "mode": "SERVER"}, "disabled": True}
    made = _pushed(
        _mesh(_provider(), _provider("other"), metrics=("prometheus",)),
        _telemetry("shop", {"providers": [{"name": "OTEL"}]}),
        _telemetry(
            "shop", {"providers": [{"name": "other"}, {"name": "otel"}], "overrides": [without]}, app="api"
        ),
        _telemetry("back", {"providers": [{"name": "otel"}]}),
        _telemetry("back", {"overrides": [{"match": {"mode": "CLIENT"}, "disabled": True}]}, app="job"),
    )
    said = {
        name: {one.told.provider: dict(one.told.sides) for one in choices}
        for name, choices in {"shop/web-0": made.choices, **made.others}.items()
    }
    whole = {"source": (), "destination": ()}
    part = {**whole, "destination": ("istio_request_bytes",)}
    assert said == {
        "shop/web-0": {"otel": whole},
        "shop/api-0": {"otel": part, "other": part},
        "back/job-0": {"otel": {"destination": ()}},
    }
    assert {one.name for one in made.collectors} == {"otel", "other"}


def test_names_by_opentelemetrys_conventions() -> None:
    made = _pushed(_mesh(_provider(serviceAttributeEnrichment="OTEL_SEMANTIC_CONVENTIONS")))
    named = {name: choices[0].service for name, choices in made.others.items()}
    assert named == {"shop/web-0": "the-web", "shop/api-0": "the-api", "back/job-0": "the-job"}


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ("", "/v1/metrics"), ("/v1/traces", "/v1/metrics"), ("otlp/v1/traces", "/otlp/v1/metrics"),
        ("/v1/metrics", "/v1/metrics"), ("/own", "/own"),
    ],
)  # fmt: skip
def test_paths(said: str, path: str) -> None:
    assert path_of(said) == path


def test_what_cannot_be_is_reported_with_its_path() -> None:
    def problems(*objects: dict[str, Any]) -> list[tuple[str, str]]:
        _, found = compile_proxy(_world(*objects), _identity("web"))
        return [(one.path, one.message) for one in found]

    assert problems(_mesh(_provider())) == []
    ((path, message),) = problems(_mesh(_provider(port=1)))
    assert path == "spec.defaultProviders.metrics[0]"
    assert message.endswith("has no port 1")
    spans = _provider(maxTagLength=9)
    ((path, message),) = problems(_mesh(spans))
    assert (path, message.split()[0]) == ("spec.defaultProviders.metrics[0]", "maxTagLength")
    assert problems(_mesh(spans, tracing=["otel"])) == []
    zipkin = {"name": "zip", "zipkin": {"service": HOST, "port": 4317}}
    ((path, message),) = problems(
        _mesh(zipkin, metrics=()), _telemetry("shop", {"providers": [{"name": "zip"}]})
    )
    assert path == "spec.metrics[0].providers[0].name"
    assert "takes no metrics" in message


def test_one_that_is_not_exported_to_the_root_namespace_is_no_way() -> None:
    rule = _object(
        "networking.istio.io/v1", "ServiceEntry", "watch", "hidden",
        hosts=["hidden.example"], resolution="STATIC", exportTo=["."], endpoints=[{"address": "10.0.0.8"}],
        ports=[{"number": 4317, "name": "grpc", "protocol": "GRPC"}],
    )  # fmt: skip
    provider = {"name": "otel", "opentelemetry": {"service": "hidden.example", "port": 4317}}
    (reached,) = _pushed(_mesh(provider), rule).collectors
    assert "istio-system" in reached.problem
