"""Which DestinationRules a client obeys: precedence, visibility and merging as Istio's index has them."""

from __future__ import annotations

import pytest
from tests.support.compiled import proxy, resources, world

from weft.compile.istio.rule_index import RuleIndex
from weft.compile.settings import Settings
from weft.model.destination_rule import DestinationRule

SETTINGS = Settings()
HOST = "httpbin.org"


def dr(name: str, namespace: str, *, host: str = HOST, more: str = "", created: str = "") -> str:
    stamp = f", creationTimestamp: '{created}'" if created else ""
    return (
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n"
        f"metadata: {{name: {name}, namespace: {namespace}{stamp}}}\n"
        f'spec: {{host: "{host}", subsets: [{{name: {name}}}]{", " if more else ""}{more}}}\n'
    )


def index(*rules: str, settings: Settings = SETTINGS) -> RuleIndex:
    found = {r.key: r for r in resources(*rules) if isinstance(r, DestinationRule)}
    return RuleIndex(found, settings)


def names(of: RuleIndex, owner: str, client: str, host: str = HOST, **labels: str) -> list[str]:
    return [rule.metadata.name for rule in of.find(host, owner, client, frozenset(labels.items()), SETTINGS)]


# The cases of Istio's TestSetDestinationRuleWithExportTo, with names for its subsets.
EXPORTS = index(
    dr("one", "test1", more="exportTo: ['.', ns1]"),
    dr("two", "test2", more="exportTo: [test2, ns1, test1, newns]"),
    dr("three", "test3", more="exportTo: ['*']"),
    dr("four", "test4", more="exportTo: [test4]"),
    dr("root", "istio-system"),
    dr("private", "istio-system", more="exportTo: ['.']"),
    dr("wide", "istio-system", host="*.org", more="exportTo: ['.']"),
    dr("app", "istio-system", host="*.app.org", more="exportTo: ['.']"),
    dr("five", "test5", host="api.test.com", more="exportTo: [istio-system]"),
)


@pytest.mark.parametrize(
    ("client", "owner", "host", "wanted"),
    [
        ("test1", "test1", HOST, ["one"]),
        ("test1", "test2", HOST, ["one"]),
        ("test2", "test1", HOST, ["two"]),
        ("newns", "test2", HOST, ["two"]),
        ("test3", "test1", HOST, ["three"]),
        ("test5", "test4", HOST, ["root"]),
        ("ns1", "test1", HOST, ["one"]),
        ("ns1", "random", HOST, ["root"]),
        ("random", "random", HOST, ["root"]),
        ("istio-system", "random", HOST, ["private"]),
        ("istio-system", "istio-system", HOST, ["private"]),
        ("istio-system", "test1", "foo.app.org", ["app"]),
        ("istio-system", "random", "some.org", ["wide"]),
        ("test1", "random", "foo.app.org", []),
        ("istio-system", "test5", "api.test.com", ["five"]),
        ("test1", "test5", "api.test.com", []),
    ],
)
def test_namespaces_are_asked_in_order(client: str, owner: str, host: str, wanted: list[str]) -> None:
    assert names(EXPORTS, owner, client, host) == wanted


def test_rules_of_one_host_are_joined_the_oldest_first() -> None:
    of = index(
        dr("b", "shop", created="2024-01-01T00:00:00Z"),
        dr("a", "shop", created="2025-01-01T00:00:00Z"),
        dr("elsewhere", "shop", more="exportTo: [istio-system]", created="2026-01-01T00:00:00Z"),
    )
    assert names(of, "shop", "shop") == ["b", "a"]
    assert names(of, "shop", "other") == ["b", "a"]
    assert names(of, "shop", "istio-system") == ["elsewhere"]


def test_rules_for_other_namespaces_stay_apart_and_the_last_one_holds() -> None:
    of = index(dr("a", "shop"), dr("b", "shop", more="exportTo: ['*']"))
    assert names(of, "shop", "shop") == ["b"]


def test_the_most_specific_host_counts_even_if_its_rules_are_for_others() -> None:
    of = index(
        dr("exact", "shop", more="exportTo: [friends]"),
        dr("wide", "shop", host="*.org"),
        dr("mesh", "istio-system", host="*"),
    )
    assert names(of, "shop", "friends") == ["exact"]
    assert names(of, "shop", "others") == ["mesh"]
    assert names(of, "shop", "others", "other.org") == ["wide"]


def test_rules_for_certain_workloads_go_first_and_are_completed() -> None:
    of = index(
        dr("all", "shop", more="exportTo: ['.', other]"),
        dr("app1", "shop", more="workloadSelector: {matchLabels: {app: app1}}"),
        dr("app2", "shop", more="workloadSelector: {matchLabels: {app: app2}}"),
        dr("again", "shop", more="workloadSelector: {matchLabels: {app: app2}}"),
    )
    assert names(of, "shop", "shop", app="app1") == ["app1", "all"]
    assert names(of, "shop", "shop", app="app2") == ["again", "app2", "all"]
    assert names(of, "shop", "shop", app="app3") == ["all"]
    assert names(of, "shop", "other", app="app1") == ["all"]
    assert names(of, "shop", "shop") == ["all"]


def test_a_mesh_may_hide_rules_that_say_nothing() -> None:
    of = index(dr("a", "shop"), settings=Settings(export_destination_rules=(".",)))
    assert names(of, "shop", "shop") == ["a"]
    assert names(of, "shop", "other") == []


def test_two_clients_may_mean_different_workloads_by_one_subset() -> None:
    service = """
        apiVersion: v1
        kind: Service
        metadata: {name: web, namespace: shop}
        spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
    """
    template = """
        apiVersion: networking.istio.io/v1
        kind: DestinationRule
        metadata: {{name: web, namespace: {namespace}}}
        spec: {{host: web.shop.svc.cluster.local, subsets: [{{name: new, labels: {{version: {version}}}}}]}}
    """
    of = world(
        service,
        template.format(namespace="shop", version="v2"),
        template.format(namespace="default", version="v3"),
    )

    def selected(client: str) -> tuple[tuple[str, str], ...]:
        made = proxy(of, f"sidecar~10.0.0.1~x.{client}")
        name = "outbound|80|new|web.shop.svc.cluster.local"
        return next(cluster for cluster in made.clusters if cluster.name == name).placement.select

    assert selected("shop") == (("version", "v2"),)
    assert selected("default") == (("version", "v3"),)
    agreed = world(service, template.format(namespace="shop", version="v2"))
    made = proxy(agreed, "sidecar~10.0.0.1~x.shop")
    assert all(not cluster.placement.select for cluster in made.clusters)
