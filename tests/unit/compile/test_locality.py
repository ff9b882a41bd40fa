"""Near and far endpoints: which setting holds for a service, and what clients there are told."""

# ruff: noqa: E501  (resources stand on one line)

from __future__ import annotations

from typing import Any

import pytest
from tests.support.compiled import cluster, host, identity, instance, proxy, resources, service, table, world

from weft import ir
from weft.compile.proxy import compile_proxy

NAME = "outbound|80||web.default.svc.cluster.local"
EJECTS = "outlierDetection: {}"
NETWORK, REGION, ZONE = (
    "topology.istio.io/network",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
)
SUBZONE, HOSTNAME = "topology.istio.io/subzone", "kubernetes.io/hostname"


def rule(policy: str) -> str:
    return f"apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: web}}\nspec: {{host: web, trafficPolicy: {{{policy}}}}}\n"


def places(setting: str) -> str:
    return f"loadBalancer: {{localityLbSetting: {setting}}}"


def zones(setting: str) -> str:
    return f"loadBalancer: {{zoneAwareLbSetting: {setting}}}"


def mesh(spec: str) -> str:
    return f"apiVersion: weft.dev/v1alpha1\nkind: MeshConfig\nmetadata: {{name: default, namespace: istio-system}}\nspec: {{{spec}}}\n"


def made(*texts: str, web: str | None = None) -> ir.Cluster:
    return cluster(proxy(world(web or service("web"), *texts)), NAME)


NEAREST = ir.Placement(tiers=ir.Tiers.LOCALITY)


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        ((), ir.ANYWHERE),
        ((rule(EJECTS),), NEAREST),
        ((rule(EJECTS), mesh("localityLbSetting: {enabled: false}")), ir.ANYWHERE),
        (
            (rule(f"{EJECTS}, {places('{enabled: true}')}"), mesh("localityLbSetting: {enabled: false}")),
            NEAREST,
        ),
        ((rule(f"{EJECTS}, {places('{enabled: false}')}"),), ir.ANYWHERE),
        ((rule(places("{failover: [{from: a, to: b}]}")),), ir.ANYWHERE),
        (
            (rule(f"{EJECTS}, {places('{failover: [{from: a, to: b}]}')}"),),
            ir.Placement(tiers=ir.Tiers.LOCALITY, failover=(("a", "b"),)),
        ),
        (
            (rule(f"{EJECTS}, {places('{failoverPriority: [x, y=1]}')}"),),
            ir.Placement(labels=(("x", None), ("y", "1"))),
        ),
        (
            (rule(f"{EJECTS}, {places('{failoverPriority: [x], failover: [{from: a, to: b}]}')}"),),
            ir.Placement(tiers=ir.Tiers.LOCALITY, labels=(("x", None),), failover=(("a", "b"),)),
        ),
        (
            (rule(places("{distribute: [{from: a, to: {a: 90, b: 10}}]}")),),
            ir.Placement(distribute=(ir.LocalityWeight(origin="a", to=(("a", 90), ("b", 10))),)),
        ),
        ((rule(zones("{}")),), ir.Placement(tiers=ir.Tiers.REGION)),
        ((rule(zones("{enabled: false}")),), ir.ANYWHERE),
        (
            (mesh("zoneAwareLbSetting: {enabled: true}, localityLbSetting: {enabled: true}"),),
            ir.Placement(tiers=ir.Tiers.REGION),
        ),
        (
            (rule(f"{EJECTS}, {places('{enabled: true}')}"), mesh("zoneAwareLbSetting: {enabled: true}")),
            NEAREST,
        ),
        (
            (rule("outlierDetection: {minHealthPercent: 5}"),),
            ir.Placement(tiers=ir.Tiers.LOCALITY, healthy_only=True),
        ),
    ],
)
def test_which_setting_holds(texts: tuple[str, ...], wanted: ir.Placement) -> None:
    assert made(*texts).placement == wanted


@pytest.mark.parametrize(
    ("policy", "weighted"),
    [
        (EJECTS, False),
        (places("{distribute: [{from: a, to: {a: 100}}]}"), True),
        (places("{failoverPriority: [x]}"), False),
        (f"{EJECTS}, {places('{failoverPriority: [x]}')}", True),
    ],
)
def test_places_have_weights_only_where_they_are_told_apart(policy: str, weighted: bool) -> None:
    assert made(rule(policy)).balancing.locality_weighted is weighted


def test_envoys_own_zones() -> None:
    on = made(rule(zones("{minClusterSize: 3}"))).balancing
    assert on.zone_aware == ir.ZoneAware(enabled=True, min_hosts=3)
    assert made(rule(zones("{enabled: false}"))).balancing.zone_aware == ir.ZoneAware(enabled=False)


CLOSE = ((NETWORK, None), (REGION, None), (ZONE, None))
NODE = (*CLOSE, (SUBZONE, None), (HOSTNAME, None))


@pytest.mark.parametrize(
    ("field", "annotation", "space", "wanted"),
    [
        ("PreferClose", "", "", CLOSE),
        ("PreferSameZone", "PreferSameNode", "", CLOSE),
        ("PreferSameNode", "", "", NODE),
        ("", "preferclose", "PreferSameNode", CLOSE),
        ("", "PreferSameNode", "", NODE),
        ("", "", "PreferSameZone", CLOSE),
        ("", "Any", "PreferSameZone", ()),
        ("", "", "", ()),
    ],
)
def test_traffic_distribution(
    field: str, annotation: str, space: str, wanted: tuple[tuple[str, None], ...]
) -> None:
    spec: dict[str, Any] = {"trafficDistribution": field} if field else {}
    web = service("web", **spec)
    if annotation:
        noted = f"{{name: web, annotations: {{networking.istio.io/traffic-distribution: {annotation}}},"
        web = web.replace("{name: web,", noted, 1)
    around = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: default, annotations: {{networking.istio.io/traffic-distribution: {space}}}}}\n"
    found = made(*((around,) if space else ()), web=web)
    assert found.placement.labels == wanted
    assert found.balancing.locality_weighted is bool(wanted)


def test_an_entry_asks_for_near_endpoints_and_for_sessions_as_services_do() -> None:
    noted = "annotations: {networking.istio.io/traffic-distribution: PreferSameNode}, labels: {istio.io/persistent-session: kept}"
    entry = f"apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: api, {noted}}}\nspec: {{hosts: [api.example], resolution: STATIC, ports: [{{number: 80, name: http, protocol: HTTP}}], endpoints: [{{address: 10.4.0.1}}]}}\n"
    compiled = proxy(world(entry))
    found = cluster(compiled, "outbound|80||api.example")
    assert found.placement.labels == NODE
    assert found.balancing.keeps_draining
    (route,) = host(table(compiled, "80"), "api.example").routes
    assert route.session == ir.SessionPersistence(name="kept", path="/")


def test_a_rule_goes_before_the_service_which_goes_before_the_mesh() -> None:
    web = service("web", trafficDistribution="PreferClose")
    assert made(rule(f"{EJECTS}, {places('{enabled: true}')}"), web=web).placement == NEAREST
    assert made(mesh("zoneAwareLbSetting: {enabled: true}"), web=web).placement.labels == CLOSE
    # What the service asks for goes by readiness: those that are not ready must be seen.
    assert not made(rule("outlierDetection: {minHealthPercent: 5}"), web=web).placement.healthy_only


def test_a_namespace_that_changes_its_mind() -> None:
    space = "apiVersion: v1\nkind: Namespace\nmetadata: {name: default, annotations: {%s}}\n"
    before = world(service("web"), space % "networking.istio.io/traffic-distribution: PreferClose")
    after = before.replace(resources(space % ""))
    assert cluster(proxy(before), NAME).placement.labels == CLOSE
    assert cluster(proxy(after), NAME).placement == ir.ANYWHERE


@pytest.mark.parametrize(
    ("entry", "labels", "wanted"),
    [
        ("locality: eu/a/1", {}, ir.Locality(region="eu", zone="a", subzone="1")),
        ("locality: eu", {"istio-locality": "us.b"}, ir.Locality(region="eu")),
        ("", {"istio-locality": "us.b.2"}, ir.Locality(region="us", zone="b", subzone="2")),
        ("", {REGION: "asia", ZONE: "c"}, ir.Locality(region="asia", zone="c")),
        ("", {}, ir.NOWHERE),
    ],
)
def test_where_a_proxy_is(entry: str, labels: dict[str, str], wanted: ir.Locality) -> None:
    own = instance("client", "client", "10.9.9.9") + (f"  {entry}\n" if entry else "")
    made, _ = compile_proxy(world(own), identity(labels=labels))
    assert made.identity.locality == wanted


def test_a_proxy_is_on_the_node_of_its_registration() -> None:
    own = instance("client", "client", "10.9.9.9").replace("app: client,", "app: client, weft.dev/node: n1,")
    made, _ = compile_proxy(world(own), identity())
    assert made.identity.standpoint.node == "n1"
    assert dict(made.identity.labels)["version"] == "v1"


def test_names_that_envoy_looks_up_are_ranked_in_the_cluster() -> None:
    entry = """
        apiVersion: networking.istio.io/v1
        kind: ServiceEntry
        metadata: {name: web}
        spec:
          hosts: [web.example]
          resolution: DNS
          ports: [{number: 80, name: http, protocol: HTTP}]
          endpoints: [{address: a.example, locality: eu}, {address: b.example, locality: us}]
    """
    of = world(entry, rule(EJECTS).replace("host: web", "host: web.example"))
    made = {}
    for region in ("eu", "us"):
        client = identity(labels={"istio-locality": region, "app": region})
        made[region] = cluster(compile_proxy(of, client)[0], "outbound|80||web.example")
    assert made["eu"].placement == NEAREST
    assert made["eu"].client == ir.Standpoint(locality=ir.Locality(region="eu"))
    assert made["us"].client.locality.region == "us"
    again = compile_proxy(of, identity(labels={"istio-locality": "eu", "app": "other"}))[0]
    assert cluster(again, "outbound|80||web.example") is made["eu"]
