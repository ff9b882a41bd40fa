"""Endpoints: a lane of their own."""

from __future__ import annotations

from tests.support.compiled import instance, proxy, resources, service, world

from weft import ir
from weft.compile.endpoints import endpoint_set

NAME = "outbound|80||web.default.svc.cluster.local"


def test_endpoints_come_and_go_unseen_by_clusters() -> None:
    before = world(service("web"), instance("web-1", "web", "10.0.0.1"))
    after = before.replace(resources(instance("web-2", "web", "10.0.0.2")))
    assert [endpoint.address for endpoint in endpoint_set(after, NAME).endpoints] == ["10.0.0.1", "10.0.0.2"]
    assert all(one is other for one, other in zip(proxy(before).clusters, proxy(after).clusters, strict=True))
    gone = after.replace((), [resources(instance("web-2", "web", "10.0.0.2"))[0].key])
    assert [endpoint.address for endpoint in endpoint_set(gone, NAME).endpoints] == ["10.0.0.1"]


def test_equal_sets_are_one_object() -> None:
    before = world(service("web"), instance("web-1", "web", "10.0.0.1"))
    after = before.replace(resources(instance("other-1", "other", "10.0.0.2")))
    assert endpoint_set(before, NAME) is endpoint_set(after, NAME)


def test_health_and_draining_are_the_entrys_conditions() -> None:
    sick = instance("web-1", "web", "10.0.0.1") + 'status: {conditions: [{type: Healthy, status: "False"}]}\n'
    leaving = (
        instance("web-2", "web", "10.0.0.2") + 'status: {conditions: [{type: Draining, status: "True"}]}\n'
    )
    marked = instance("web-3", "web", "10.0.0.3").replace("app: web,", "app: web, istio.io/draining: 'true',")
    entries = (sick, leaving, marked)
    found = endpoint_set(world(service("web"), *entries), NAME).endpoints
    assert [(endpoint.address, endpoint.health) for endpoint in found] == [("10.0.0.1", ir.Health.UNHEALTHY)]
    sessions = service("web").replace("{name: web,", "{name: web, labels: {istio.io/persistent-session: s},")
    found = endpoint_set(world(sessions, *entries), NAME).endpoints
    drains = ir.Health.DRAINING
    assert [endpoint.health for endpoint in found] == [ir.Health.UNHEALTHY, drains, drains]


def test_a_subset_has_those_that_bear_its_labels() -> None:
    rule = """
        apiVersion: networking.istio.io/v1
        kind: DestinationRule
        metadata: {name: web}
        spec: {host: web, subsets: [{name: v2, labels: {version: v2}}]}
    """
    of = world(
        service("web"),
        rule,
        instance("web-1", "web", "10.0.0.1"),
        instance("web-2", "web", "10.0.0.2", version="v2"),
    )
    found = endpoint_set(of, "outbound|80|v2|web.default.svc.cluster.local").endpoints
    assert [endpoint.address for endpoint in found] == ["10.0.0.2"]
    assert endpoint_set(of, "outbound|80|v9|web.default.svc.cluster.local").endpoints == ()
    assert endpoint_set(of, "PassthroughCluster").endpoints == ()


def test_listed_addresses_of_a_service_without_a_selector() -> None:
    bare = """
        apiVersion: v1
        kind: Service
        metadata: {name: web}
        spec: {ports: [{name: http, port: 80, targetPort: box}]}
    """
    listed = """
        apiVersion: discovery.k8s.io/v1
        kind: EndpointSlice
        metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
        addressType: IPv4
        ports: [{name: http, port: 8080}]
        endpoints:
        - {addresses: [192.0.2.1]}
        - {addresses: [192.0.2.2], conditions: {ready: false, terminating: false}}
        - {addresses: [192.0.2.3], conditions: {ready: false, serving: true, terminating: true}}
        - {addresses: [192.0.2.4], conditions: {ready: false, serving: false, terminating: true}}
        - {addresses: [192.0.2.5], conditions: {ready: false}}
    """
    old = """
        apiVersion: v1
        kind: Endpoints
        metadata: {name: web}
        subsets: [{addresses: [{ip: 192.0.2.9}], ports: [{name: http, port: 80}]}]
    """
    found = endpoint_set(world(bare, listed, old), NAME).endpoints
    assert [(e.address, e.port, e.health.value) for e in found] == [
        ("192.0.2.1", 8080, "healthy"),
        ("192.0.2.2", 8080, "unhealthy"),
    ]
    assert [e.address for e in endpoint_set(world(bare, old), NAME).endpoints] == ["192.0.2.9"]
    sticky = bare.replace("{name: web}", "{name: web, labels: {istio.io/persistent-session-header: x-s}}")
    kept = {e.address: e.health.value for e in endpoint_set(world(sticky, listed), NAME).endpoints}
    assert kept["192.0.2.3"] == kept["192.0.2.5"] == "draining"
    assert "192.0.2.4" not in kept
    eager = bare.replace("spec: {ports", "spec: {publishNotReadyAddresses: true, ports")
    assert {e.health.value for e in endpoint_set(world(eager, listed), NAME).endpoints} == {"healthy"}


def test_a_service_account_that_cannot_be_costs_nobody_the_configuration() -> None:
    entry = """
        apiVersion: networking.istio.io/v1
        kind: WorkloadEntry
        metadata: {name: odd}
        spec: {address: 10.0.0.9, serviceAccount: "reviews@", labels: {app: web}}
    """
    of = world(service("web"), instance("web-1", "web", "10.0.0.1"), entry)
    tls = next(cluster for cluster in proxy(of).clusters if cluster.name == NAME).tls
    assert tls is not None
    assert tls.peer_names
    assert not [name for name in tls.peer_names if "@" in name.value]
