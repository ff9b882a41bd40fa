"""Which patches of EnvoyFilters a proxy gets, in which order."""

from __future__ import annotations

from typing import Any

import pytest

from weft.compile.istio.envoy_filter import every_patch, patches_of
from weft.ir import Operation, Target
from weft.model.envoy_filter import EnvoyFilter
from weft.model.parse import parse_object

LABELS = (("app", "web"),)
GATEWAY = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"}


def envoy_filter(name: str, namespace: str = "ns", *, created: str = "", **spec: Any) -> EnvoyFilter:
    """An EnvoyFilter that adds a cluster of its own name, unless it says otherwise."""
    spec.setdefault(
        "configPatches", [{"applyTo": "CLUSTER", "patch": {"operation": "ADD", "value": {"name": name}}}]
    )
    metadata = {"name": name, "namespace": namespace}
    if created:
        metadata["creationTimestamp"] = created
    wire = {"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter", "metadata": metadata}
    resource, problems = parse_object({**wire, "spec": spec})
    assert isinstance(resource, EnvoyFilter), problems
    return resource


def origins(
    *resources: EnvoyFilter, labels: tuple[tuple[str, str], ...] = LABELS, **metadata: str
) -> list[str]:
    """Whose patches a proxy in ``ns`` gets."""
    table = {resource.key: resource for resource in resources}
    found = patches_of(table, "ns", labels, tuple(metadata.items()), "istio-system")
    return [patch.origin for patch in found]


def test_by_priority_then_the_root_namespace_then_the_oldest_then_by_name() -> None:
    assert origins(
        envoy_filter("b", created="2025-01-01T00:00:00Z"),
        envoy_filter("a", created="2025-01-02T00:00:00Z"),
        envoy_filter("d", created="2025-01-02T00:00:00Z"),
        envoy_filter("c", "istio-system", created="2025-01-03T00:00:00Z"),
        envoy_filter("late", "istio-system", priority=10),
        envoy_filter("early", priority=-5),
        envoy_filter("foreign", "elsewhere"),
    ) == ["ns/early", "istio-system/c", "ns/b", "ns/a", "ns/d", "istio-system/late"]


@pytest.mark.parametrize(
    ("spec", "labels", "taken"),
    [
        ({"workloadSelector": {"labels": {"app": "web"}}}, LABELS, True),
        ({"workloadSelector": {"labels": {"app": "db"}}}, LABELS, False),
        ({"targetRefs": [GATEWAY]}, LABELS, False),
        (
            {"targetRefs": [GATEWAY]},
            (("gateway.networking.k8s.io/gateway-name", "g"),),
            True,
        ),
        (
            {"targetRefs": [GATEWAY]},
            (("gateway.networking.k8s.io/gateway-name", "h"),),
            False,
        ),
    ],
)  # fmt: skip
def test_by_selector_or_by_gateway(
    spec: dict[str, Any], labels: tuple[tuple[str, str], ...], taken: bool
) -> None:
    assert bool(origins(envoy_filter("x", **spec), labels=labels)) is taken


@pytest.mark.parametrize(
    ("proxy", "taken"),
    [
        ({"proxyVersion": r"^1\.31.*"}, True),
        ({"proxyVersion": r"^1\.2.*"}, False),
        ({"proxyVersion": "x" * 1025}, False),
        ({"metadata": {"CLUSTER_ID": "east"}}, True),
        ({"metadata": {"CLUSTER_ID": "west"}}, False),
        ({"metadata": {"OTHER": "east"}}, False),
    ],
)
def test_by_what_the_proxy_says_of_itself(proxy: dict[str, Any], taken: bool) -> None:
    patch = {"applyTo": "CLUSTER", "patch": {"operation": "ADD", "value": {}}, "match": {"proxy": proxy}}
    assert bool(origins(envoy_filter("x", configPatches=[patch]), CLUSTER_ID="east")) is taken


def test_inserting_where_order_means_nothing_is_adding() -> None:
    patches = [
        {"applyTo": kind, "patch": {"operation": "INSERT_FIRST", "value": {}}}
        for kind in ("CLUSTER", "HTTP_FILTER", "VIRTUAL_HOST")
    ]
    found = every_patch(envoy_filter("x", configPatches=patches))
    assert [(one.target, one.operation) for one in found] == [
        (Target.CLUSTER, Operation.ADD),
        (Target.HTTP_FILTER, Operation.INSERT_FIRST),
        (Target.VIRTUAL_HOST, Operation.ADD),
    ]


def test_patches_of_waypoints_are_nobodys() -> None:
    patch = {
        "applyTo": "CLUSTER", "patch": {"operation": "ADD", "value": {}},
        "match": {"context": "WAYPOINT", "waypoint": {"portNumber": 80}},
    }  # fmt: skip
    assert every_patch(envoy_filter("x", configPatches=[patch])) == ()
