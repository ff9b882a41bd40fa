"""Services of Kubernetes: what clients of each do."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.support.compiled import cluster, forward, host, instance, listener, proxy, service, table, world

from weft import ir

WEB = "web.default.svc.cluster.local"
NAME = f"outbound|80||{WEB}"


def rule(policy: str) -> str:
    return (
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\n"
        f"spec: {{host: web, trafficPolicy: {policy}}}\n"
    )


def external(name: str, target: str) -> str:
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n"
        f"spec: {{type: ExternalName, externalName: {target}}}\n"
    )


@pytest.mark.parametrize(
    ("rules", "sticky"),
    [
        ((), True),
        ((rule("{outlierDetection: {}}"),), True),
        ((rule("{loadBalancer: {simple: RANDOM}}"),), False),
        ((rule("{portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]}"),), False),
    ],
)
def test_affinity_keeps_a_client_at_one_endpoint_unless_a_rule_balances(
    rules: tuple[str, ...], sticky: bool
) -> None:
    made = proxy(world(service("web", sessionAffinity="ClientIP"), *rules))
    assert (cluster(made, NAME).balancing.algorithm is ir.Algorithm.RING_HASH) is sticky
    (route,) = host(table(made, "80"), WEB).routes
    assert forward(route).hash_on == ((ir.HashOn(source_ip=True),) if sticky else ())


def test_affinity_of_tcp() -> None:
    queue = service("queue", 7000, port_name="tcp", sessionAffinity="ClientIP", clusterIP="10.96.0.9")
    made = proxy(world(queue))
    (chain,) = listener(made, "10.96.0.9_7000").chains
    assert isinstance(chain.handler, ir.TcpHandler)
    assert chain.handler.hash_source_ip


def test_sessions_by_cookie_and_header_on_every_route_to_the_service() -> None:
    routed = """
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: shop}
        spec:
          hosts: [shop.example]
          http:
          - route:
            - {destination: {host: plain, port: {number: 80}}, weight: 50}
            - {destination: {host: web, port: {number: 80}}, weight: 50}
    """
    web = service("web").replace("{name: web,", "{name: web, labels: {istio.io/persistent-session: cart},", 1)
    header = "{name: api, labels: {istio.io/persistent-session-header: x-s},"
    api = service("api").replace("{name: api,", header, 1)
    made = table(proxy(world(web, api, service("plain"), routed)), "80")
    cart = ir.SessionPersistence(name="cart")
    assert host(made, WEB).routes[0].session == cart
    assert host(made, "shop.example").routes[0].session == cart
    by_header = host(made, "api").routes[0].session
    assert by_header == ir.SessionPersistence(name="x-s", place=ir.SessionIn.HEADER)
    assert host(made, "plain").routes[0].session is None


def test_external_addresses_are_dialled_too() -> None:
    web = service("web", clusterIP="10.96.0.1", externalIPs="[192.0.2.1]")
    queue = service("queue", 7000, port_name="tcp", clusterIP="10.96.0.2", externalIPs="[192.0.2.2]")
    made = proxy(world(web, queue))
    assert "192.0.2.1" in host(table(made, "80"), WEB).domains
    assert {"10.96.0.2_7000", "192.0.2.2_7000"} <= {listener.name for listener in made.listeners}


def test_the_own_node_alone() -> None:
    assert cluster(proxy(world(service("web", internalTrafficPolicy="Local"))), NAME).placement.same_node
    assert not cluster(proxy(world(service("web"))), NAME).placement.same_node


def test_names_of_names_lead_to_the_last_one() -> None:
    chain = (
        external("one", "two.default.svc.cluster.local"),
        external("two", "web.default.svc.cluster.local"),
        external("round", "again.default.svc.cluster.local"),
        external("again", "round.default.svc.cluster.local"),
    )
    made = proxy(world(service("web"), *chain))
    assert {"one", "two"} <= set(host(table(made, "80"), WEB).domains)
    routed = """
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: shop}
        spec: {hosts: [shop.example], http: [{route: [{destination: {host: one, port: {number: 80}}}]}]}
    """
    (route,) = host(table(proxy(world(service("web"), routed, *chain)), "80"), "shop.example").routes
    assert forward(route).destinations[0].cluster == NAME


def test_two_services_of_one_workload_share_its_ports() -> None:
    own = instance("client", "client", "10.9.9.9", ports="{http: 8080}")
    both = (
        service("client", 80),
        service("other", 81).replace("{app: other}", "{app: client}"),
    )
    made = proxy(world(own, *both))
    (inbound,) = [cluster for cluster in made.clusters if cluster.name.startswith("inbound|")]
    assert inbound.name == "inbound|8080||"
    assert inbound.connections.connect_timeout == timedelta(seconds=10)
