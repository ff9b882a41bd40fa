"""A sidecar's outbound side and its captures."""

from __future__ import annotations

import pytest
from tests.support.compiled import cluster, forward, host, instance, listener, proxy, service, table, world

from weft import ir
from weft.compile.endpoints import endpoint_set

REVIEWS = service("reviews", 9080)
HOST = "reviews.default.svc.cluster.local"


def test_http_shares_a_listener_a_port_and_is_routed_by_every_name() -> None:
    made = proxy(world(REVIEWS, service("ratings", 9080, clusterIP="10.1.2.3")))
    http = listener(made, "0.0.0.0_9080")
    assert http.receive is ir.Receive.HANDED_OVER
    assert http.inspect_http
    assert http.chains[0].match.application_protocols == ("http/1.0", "http/1.1", "h2c")
    assert http.default_chain is not None
    assert http.default_chain.name == "PassthroughFilterChain"
    hosts = table(made, "9080")
    assert host(hosts, "ratings").domains == (
        "ratings.default.svc.cluster.local",
        "ratings.default.svc.cluster.local.",
        "ratings",
        "ratings.default.svc",
        "ratings.default",
        "10.1.2.3",
    )
    route = host(hosts, HOST).routes[0]
    assert forward(route).destinations[0].cluster == f"outbound|9080||{HOST}"
    assert forward(route).retry == ir.Retry(
        attempts=2,
        on=("connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes"),
    )
    assert hosts.virtual_hosts[-1].name == "allow_any"


def test_another_namespace_has_no_short_name() -> None:
    made = proxy(world(REVIEWS), "sidecar~10.9.9.9~client.other")
    assert "reviews" not in host(table(made, "9080"), HOST).domains
    assert "reviews.default" in host(table(made, "9080"), HOST).domains


def test_tcp_and_unknown_protocols_have_listeners_of_their_own_address() -> None:
    made = proxy(
        world(
            service("db", 5432, port_name="tcp", clusterIP="10.0.0.1"),
            service("any", 7000, port_name="x", clusterIP="10.0.0.2"),
        )
    )
    tcp = listener(made, "10.0.0.1_5432")
    assert not tcp.inspect_http
    assert isinstance(tcp.chains[0].handler, ir.TcpHandler)
    detected = listener(made, "10.0.0.2_7000")
    assert detected.inspect_http
    assert detected.default_chain is not None
    assert isinstance(detected.default_chain.handler, ir.TcpHandler)
    assert detected.default_chain.handler.alpn == ("istio",)
    own = table(made, "any.default.svc.cluster.local:7000")
    assert own.virtual_hosts[0].domains == ("*",)


def test_registry_only_blocks_what_nobody_declared() -> None:
    made = proxy(
        world(
            REVIEWS,
            """
            apiVersion: weft.dev/v1alpha1
            kind: MeshConfig
            metadata: {name: mesh}
            spec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}
            """,
        )
    )
    outbound = listener(made, "virtualOutbound")
    assert outbound.default_chain is not None
    assert isinstance(outbound.default_chain.handler, ir.TcpHandler)
    assert outbound.default_chain.handler.destinations[0].cluster == "BlackHoleCluster"
    last = table(made, "9080").virtual_hosts[-1]
    assert last.name == "block_all"
    assert last.routes[0].action == ir.Respond(status=502)


@pytest.mark.parametrize(
    ("instances", "protocol"),
    [
        ((), ir.UpstreamProtocol.HTTP1),
        ((instance("a", "reviews", "10.0.0.1"),), ir.UpstreamProtocol.HTTP2),
        (
            (instance("a", "reviews", "10.0.0.1"), instance("b", "reviews", "10.0.0.2", account="")),
            ir.UpstreamProtocol.HTTP1,
        ),
    ],
    ids=["nobody known", "sidecars only", "one without"],
)
def test_http2_between_sidecars(instances: tuple[str, ...], protocol: ir.UpstreamProtocol) -> None:
    made = cluster(proxy(world(REVIEWS, *instances)), f"outbound|9080||{HOST}")
    assert made.protocol is protocol
    assert made.mutual is ir.MutualTls.AUTO


def test_the_peer_must_be_one_that_the_service_may_be() -> None:
    group = """
        apiVersion: networking.istio.io/v1
        kind: WorkloadGroup
        metadata: {name: reviews}
        spec:
          metadata: {labels: {app: reviews}}
          template: {serviceAccount: planned}
    """
    of = world(REVIEWS, group, instance("a", "reviews", "10.0.0.1", account="running"))
    tls = cluster(proxy(of), f"outbound|9080||{HOST}").tls
    assert tls is not None
    assert [name.value for name in tls.peer_names] == [
        "spiffe://cluster.local/ns/default/sa/planned",
        "spiffe://cluster.local/ns/default/sa/running",
    ]
    assert tls.sni == f"outbound_.9080_._.{HOST}"
    unknown = cluster(proxy(world(REVIEWS)), f"outbound|9080||{HOST}").tls
    assert unknown is not None
    assert unknown.peer_names[0].test is ir.TextTest.PREFIX
    assert unknown.peer_names[0].value == "spiffe://cluster.local/ns/default/sa/"


def test_seccomp_receives_proxy_headers_and_binds_each_port() -> None:
    attachment = ir.Attachment(
        capture=ir.Capture.SECCOMP,
        outbound_address="127.0.0.1",
        outbound_port=15400,
        app_address="127.1.0.9",
    )
    of = world(REVIEWS, instance("reviews-1", "reviews", "127.2.0.9", ports="{http: 9080}"))
    made = proxy(of, "sidecar~127.2.0.9~reviews-1.default", attachment=attachment)
    outbound = listener(made, "virtualOutbound")
    assert (outbound.receive, outbound.port) == (ir.Receive.PROXY_PROTOCOL, 15400)
    inbound = listener(made, "127.2.0.9_9080")
    assert (inbound.address, inbound.port, inbound.receive) == ("127.2.0.9", 9080, ir.Receive.BOUND)
    assert all(chain.match.port is None for chain in inbound.chains)
    app = cluster(made, "inbound|9080||")
    assert app.discovery is ir.Discovery.STATIC
    assert app.endpoints == (ir.Endpoint(address="127.1.0.9", port=9080),)
    assert app.source_address == ""


def test_proxy_env_routes_every_service_by_its_host() -> None:
    attachment = ir.Attachment(
        capture=ir.Capture.PROXY_ENV, http_proxy_port=15500, inbound_ports=((9080, 19080),)
    )
    of = world(REVIEWS, service("web", 80), instance("reviews-1", "reviews", "127.2.0.9"))
    made = proxy(of, "sidecar~127.2.0.9~reviews-1.default", attachment=attachment)
    assert [item.name for item in made.listeners] == ["127.0.0.1_15500", "127.2.0.9_9080"]
    assert listener(made, "127.2.0.9_9080").port == 19080
    hosts = table(made, "http_proxy")
    assert not hosts.ignore_port_in_host
    assert "reviews" not in host(hosts, "reviews:9080").domains
    assert {"web", "web:80"} <= set(host(hosts, "web").domains)


def test_headless_services_are_called_where_the_client_connects_to() -> None:
    of = world(service("db", 5432, port_name="tcp", clusterIP="None"), instance("db-0", "db", "10.3.0.1"))
    made = proxy(of)
    assert cluster(made, "outbound|5432||db.default.svc.cluster.local").discovery is ir.Discovery.ORIGINAL_DST
    assert cluster(made, "outbound|5432||db.default.svc.cluster.local").mutual is ir.MutualTls.ALWAYS
    assert listener(made, "10.3.0.1_5432").chains


def test_a_member_of_a_headless_service_is_itself_whatever_host_is_asked_for() -> None:
    of = world(service("db", 81, port_name="x", clusterIP="None"), instance("db-0", "db", "10.3.0.1"))
    made = proxy(of)
    (detected,) = listener(made, "10.3.0.1_81").chains
    assert isinstance(detected.handler, ir.HttpHandler)
    assert isinstance(detected.handler.routes, str)
    hosts = table(made, detected.handler.routes).virtual_hosts
    assert [one.domains for one in hosts] == [("*",)]


SERVICE_ENTRY = """
    apiVersion: networking.istio.io/v1
    kind: ServiceEntry
    metadata: {{name: out}}
    spec:
      hosts: [{host}]
      location: MESH_EXTERNAL
      resolution: {resolution}
      ports: [{{name: tls, number: 443, protocol: TLS}}, {{name: http, number: 80, protocol: HTTP}}]
      {more}
"""


@pytest.mark.parametrize(
    ("resolution", "more", "wanted"),
    [
        ("DNS", "", ir.Discovery.STRICT_DNS),
        ("DNS_ROUND_ROBIN", "", ir.Discovery.LOGICAL_DNS),
        ("NONE", "", ir.Discovery.ORIGINAL_DST),
        ("STATIC", "endpoints: [{address: 192.0.2.1}]", ir.Discovery.EDS),
    ],
)
def test_service_entries(resolution: str, more: str, wanted: ir.Discovery) -> None:
    of = world(SERVICE_ENTRY.format(host="api.example.com", resolution=resolution, more=more))
    made = cluster(proxy(of), "outbound|443||api.example.com")
    assert made.discovery is wanted
    assert made.tls is None
    if wanted is ir.Discovery.STRICT_DNS:
        assert made.endpoints == (ir.Endpoint(address="api.example.com", port=443),)
    if wanted is ir.Discovery.EDS:
        found = endpoint_set(of, made.name).endpoints
        assert [(endpoint.address, endpoint.port) for endpoint in found] == [("192.0.2.1", 443)]


def test_tls_without_an_address_is_told_apart_by_sni() -> None:
    of = world(SERVICE_ENTRY.format(host="'*.example.com'", resolution="NONE", more=""))
    chains = listener(proxy(of), "0.0.0.0_443").chains
    assert chains[0].match.server_names == ("*.example.com",)
    assert listener(proxy(of), "0.0.0.0_443").inspect_tls


def test_external_names_are_other_names_of_a_host() -> None:
    alias = """
        apiVersion: v1
        kind: Service
        metadata: {name: old}
        spec: {type: ExternalName, externalName: reviews.default.svc.cluster.local}
    """
    made = proxy(world(REVIEWS, alias))
    assert {"old", "old.default.svc.cluster.local"} <= set(host(table(made, "9080"), HOST).domains)


def test_what_is_not_exported_is_not_seen() -> None:
    hidden = REVIEWS.replace(
        "namespace: default", 'namespace: default, annotations: {networking.istio.io/exportTo: "."}'
    )
    assert not any(
        "reviews" in item.name for item in proxy(world(hidden), "sidecar~1.1.1.1~c.other").clusters
    )
    assert any("reviews" in item.name for item in proxy(world(hidden)).clusters)
