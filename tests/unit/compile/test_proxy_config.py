"""How a proxy is to be started: ProxyConfigs over the mesh's default."""

from __future__ import annotations

from typing import Any

import pytest

from weft.compile.istio.proxy_config import ANNOTATION, annotated, start_of
from weft.model.parse import parse_object
from weft.model.proxy_config import ProxyConfig
from weft.model.proxy_settings import ProxySettings
from weft.start import ProxyStart, merged


def config(name: str, namespace: str, *, created: str = "2025-01-01T00:00:00Z", **spec: Any) -> ProxyConfig:
    """A ProxyConfig."""
    resource, problems = parse_object(
        {
            "apiVersion": "networking.istio.io/v1beta1",
            "kind": "ProxyConfig",
            "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created},
            "spec": spec,
        }
    )
    assert isinstance(resource, ProxyConfig), problems
    return resource


APP = {"matchLabels": {"app": "web"}}


def started(*configs: ProxyConfig, defaults: ProxySettings | None = None) -> ProxyStart:
    """For the workload ``web`` in ``shop``."""
    return start_of(defaults, configs, "shop", {"app": "web"}, "istio-system")


def test_the_narrower_wins_and_variables_add_up() -> None:
    found = started(
        config("mesh", "istio-system", concurrency=1, environmentVariables={"A": "mesh", "B": "mesh"}),
        config("shop", "shop", environmentVariables={"B": "shop"}),
        config("web", "shop", concurrency=3, selector=APP),
        config("other", "elsewhere", concurrency=7),
        defaults=ProxySettings.model_validate({"concurrency": 9, "proxyMetadata": {"C": "default"}}),
    )
    assert found == ProxyStart(concurrency=3, environment={"A": "mesh", "B": "shop", "C": "default"})


def test_an_annotation_goes_before_all_but_the_workload_s_own() -> None:
    said = annotated({ANNOTATION: "concurrency: 5\nproxyMetadata: {A: annotation, D: annotation}"})
    configs = (
        config("shop", "shop", concurrency=1, environmentVariables={"A": "shop"}),
        config("web", "shop", selector=APP, environmentVariables={"D": "web"}),
    )
    found = start_of(None, configs, "shop", {"app": "web"}, "istio-system", said)
    assert found == ProxyStart(concurrency=5, environment={"A": "annotation", "D": "web"})
    assert annotated({}) is None
    assert annotated({ANNOTATION: "concurrency: many"}) is None
    assert annotated({ANNOTATION: "[1"}) is None


def test_of_several_the_oldest_counts() -> None:
    found = started(
        config("young", "shop", concurrency=1, created="2025-02-01T00:00:00Z"),
        config("old", "shop", concurrency=2),
        config("web-young", "shop", created="2025-02-01T00:00:00Z", selector=APP,
               environmentVariables={"A": "1"}),
        config("web-old", "shop", selector=APP, environmentVariables={"B": "1"}),
    )  # fmt: skip
    assert found == ProxyStart(concurrency=2, environment={"B": "1"})


def test_nothing_said_is_the_nodes_own_choice() -> None:
    assert (
        started(config("db", "shop", concurrency=3, selector={"matchLabels": {"app": "db"}})) == ProxyStart()
    )
    assert ProxyStart().to_dict() == {}


@pytest.mark.parametrize(
    "start", [ProxyStart(), ProxyStart(concurrency=0, environment={"A": "b"}, bootstrap=({"a": 1},))]
)
def test_it_travels_as_json(start: ProxyStart) -> None:
    assert ProxyStart.parse(start.to_dict()) == start


def test_what_is_no_start_says_nothing() -> None:
    assert ProxyStart.parse(None) == ProxyStart()
    assert ProxyStart.parse({"concurrency": "2", "environment": 7, "bootstrap": ["x"]}) == ProxyStart()


def test_a_bootstrap_is_merged_as_istio_does() -> None:
    base = {"node": {"id": "x", "metadata": {"a": 1}}, "stats_sinks": [{"name": "one"}]}
    part = {"node": {"metadata": {"b": 2}}, "stats_sinks": [{"name": "two"}], "use_dns": True}
    assert merged(base, part) == {
        "node": {"id": "x", "metadata": {"a": 1, "b": 2}},
        "stats_sinks": [{"name": "one"}, {"name": "two"}],
        "use_dns": True,
    }
