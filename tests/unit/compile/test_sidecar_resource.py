"""Istio's Sidecar: what is seen through which listener, and how the workload is called."""

# ruff: noqa: E501  (resources stand on one line)

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.support.compiled import cluster, host, identity, listener, proxy, service, table, world
from tests.unit.compile.test_virtual_service import virtual_service

from weft import ir
from weft.compile.proxy import compile_proxy

REVIEWS, RATINGS, FAR = (
    service("reviews", 9080, clusterIP="10.1.0.1"),
    service("ratings", 9080, clusterIP="10.1.0.2"),
    service("far", 9090, namespace="other", clusterIP="10.1.0.3"),
)
DB = service("db", 5432, port_name="tcp-db", clusterIP="10.1.0.4")
ALL = (REVIEWS, RATINGS, FAR, DB)


def sidecar(spec: str, *, name: str = "default", namespace: str = "default", more: str = "") -> str:
    meta = f"{{name: {name}, namespace: {namespace}{more}}}"
    return f"apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {meta}\nspec: {spec}\n"


def made(spec: str, *more: str, capture: ir.Capture = ir.Capture.REDIRECT, **labels: str) -> ir.Proxy:
    of = world(*ALL, sidecar(spec), *more)
    return compile_proxy(of, identity(labels=labels, attachment=ir.Attachment(capture=capture)))[0]


def names(of: ir.Proxy) -> list[str]:
    return [item.name for item in of.listeners if item.name not in {"virtualOutbound", "virtualInbound"}]


def hosts(of: ir.Proxy, name: str) -> list[str]:
    return [item.domains[0] for item in table(of, name).virtual_hosts if item.domains != ("*",)]


def outbound(of: ir.Proxy) -> set[str]:
    return {
        item.name.split("|")[3].partition(".")[0] for item in of.clusters if item.name.startswith("outbound|")
    }


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ("['*/*']", {"reviews", "ratings", "far", "db"}),
        ("['./*']", {"reviews", "ratings", "db"}),
        ("['other/*']", {"far"}),
        ("['./reviews.default.svc.cluster.local', 'other/*']", {"reviews", "far"}),
        ("['*/*.other.svc.cluster.local']", {"far"}),
        # What is hidden stays so, whichever entry lets it through.
        ("['*/*', '~./db.default.svc.cluster.local']", {"reviews", "ratings", "far"}),
        ("['*/*', '~*/*.default.svc.cluster.local']", {"far"}),
        ("['~/*']", set()),
    ],
)
def test_which_services_are_seen(limits: str, wanted: set[str]) -> None:
    assert outbound(made(f"{{egress: [{{hosts: {limits}}}]}}")) == wanted


def test_a_rule_that_is_seen_reaches_what_is_not() -> None:
    rule = virtual_service("- route: [{destination: {host: far.other.svc.cluster.local}}]")
    of = made("{egress: [{hosts: [./reviews.default.svc.cluster.local]}]}", rule)
    assert outbound(of) == {"reviews", "far"}
    # It has a cluster; but nobody calls it by its own name.
    assert names(of) == ["0.0.0.0_9080"]
    (route, *_) = host(table(of, "9080"), "reviews.default.svc.cluster.local").routes
    assert isinstance(route.action, ir.Forward)
    assert route.action.destinations[0].cluster == "outbound|9090||far.other.svc.cluster.local"


def test_a_listener_with_a_port_has_it_for_itself() -> None:
    of = made("""{egress: [
        {port: {number: 9080, protocol: HTTP, name: http}, hosts: [./reviews.default.svc.cluster.local]},
        {hosts: ['*/*']}]}""")
    assert hosts(of, "9080") == ["reviews.default.svc.cluster.local"]
    assert hosts(of, "9090") == ["far.other.svc.cluster.local"]
    assert names(of) == ["0.0.0.0_9080", "0.0.0.0_9090", "10.1.0.4_5432"]
    # What another listener shows may still be called, if a rule leads there.
    assert outbound(of) == {"reviews", "ratings", "far", "db"}


def test_only_the_port_of_a_listener_is_seen() -> None:
    two = "apiVersion: v1\nkind: Service\nmetadata: {name: two}\nspec: {clusterIP: 10.1.0.9, selector: {a: b}, ports: [{name: http-a, port: 80}, {name: http-b, port: 81}]}\n"
    of = made("{egress: [{port: {number: 81, protocol: HTTP, name: http}, hosts: ['*/*']}]}", two)
    assert [item.name for item in of.clusters if "two" in item.name] == [
        "outbound|81||two.default.svc.cluster.local"
    ]
    assert names(of) == ["0.0.0.0_81"]


def test_a_listener_may_be_bound_to_a_real_port() -> None:
    of = made(
        "{egress: [{port: {number: 9080, protocol: HTTP, name: http}, bind: 127.0.0.5, captureMode: NONE, hosts: ['./*']}]}"
    )
    (opened,) = [item for item in of.listeners if item.name == "127.0.0.5_9080"]
    assert (opened.receive, opened.address, opened.port) == (ir.Receive.BOUND, "127.0.0.5", 9080)
    # Nothing else is spoken there, so nothing is looked at, and nothing is passed through to itself.
    (chain,) = opened.chains
    assert (chain.match, opened.default_chain, opened.inspect_http) == (ir.ChainMatch(), None, False)


@pytest.mark.parametrize("capture", [ir.Capture.REDIRECT, ir.Capture.PROXY_ENV, ir.Capture.NONE])
def test_bound_listeners_need_no_capture(capture: ir.Capture) -> None:
    of = made(
        "{egress: [{port: {number: 5432, protocol: TCP, name: tcp}, captureMode: NONE, hosts: ['./*']}]}",
        capture=capture,
    )
    opened = listener(of, "127.0.0.1_5432")
    assert opened.receive is ir.Receive.BOUND


def test_http_at_a_socket_names_all_ports() -> None:
    of = made(
        "{egress: [{port: {number: 0, protocol: HTTP, name: http}, bind: 'unix:///tmp/out.sock', hosts: ['./*', 'other/*']}]}"
    )
    opened = listener(of, "unix:///tmp/out.sock_0")
    assert opened.receive is ir.Receive.BOUND
    domains = {domain for item in table(of, "unix:///tmp/out.sock").virtual_hosts for domain in item.domains}
    assert {"reviews.default.svc.cluster.local:9080", "far.other.svc.cluster.local:9090"} <= domains


def test_an_explicit_proxy() -> None:
    of = made("{egress: [{port: {number: 15002, protocol: HTTP_PROXY, name: p}, hosts: ['./*']}]}")
    opened = listener(of, "127.0.0.1_15002")
    (chain,) = opened.chains
    assert isinstance(chain.handler, ir.HttpHandler)
    assert (chain.handler.explicit_proxy, chain.handler.routes) == (True, "15002")
    assert any(
        "reviews.default.svc.cluster.local:9080" in item.domains for item in table(of, "15002").virtual_hosts
    )


def rest(of: ir.Proxy) -> list[str]:
    """Where unknown TCP and unknown HTTP go."""
    fallback = listener(of, "virtualOutbound").default_chain
    assert fallback is not None
    assert isinstance(fallback.handler, ir.TcpHandler)
    (route,) = host(table(of, "9080"), "*").routes
    http = route.action.destinations[0].cluster if isinstance(route.action, ir.Forward) else str(route.action)
    return [fallback.handler.destinations[0].cluster, http]


def test_what_nobody_knows() -> None:
    assert rest(made("{outboundTrafficPolicy: {mode: ALLOW_ANY}}")) == [
        "PassthroughCluster",
        "PassthroughCluster",
    ]
    blocked = ["BlackHoleCluster", str(ir.Respond(status=502))]
    assert rest(made("{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}")) == blocked
    # A policy without a mode has the first one.
    assert rest(made("{outboundTrafficPolicy: {}}")) == blocked
    there = "outbound|9090|v1|far.other.svc.cluster.local"
    proxied = "{outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: far.other.svc.cluster.local, subset: v1, port: {number: 9090}}}}"
    assert rest(made(proxied)) == [there, there]


MESH = "apiVersion: weft.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: default, namespace: istio-system}\nspec: {outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}}\n"


def test_hosts_that_nobody_knows_may_be_looked_up() -> None:
    of = proxy(world(*ALL, MESH))
    assert rest(of) == ["PassthroughCluster", "AllowAnyDynamicDNSCluster"]
    assert cluster(of, "AllowAnyDynamicDNSCluster").discovery is ir.Discovery.NAMED
    outbound_listener = listener(of, "virtualOutbound")
    assert [chain.name for chain in outbound_listener.chains] == [
        "virtualOutbound-blackhole",
        "allow_any_dynamic_dns",
    ]
    assert outbound_listener.inspect_http
    for item in of.listeners:
        if item.direction is ir.Direction.OUTBOUND:
            handlers = [chain.handler for chain in item.chains if isinstance(chain.handler, ir.HttpHandler)]
            assert all(handler.looks_up for handler in handlers)
    # A Sidecar's own policy goes before the mesh's.
    assert rest(made("{outboundTrafficPolicy: {mode: ALLOW_ANY}}", MESH)) == ["PassthroughCluster"] * 2


OWN = "apiVersion: v1\nkind: Service\nmetadata: {name: own}\nspec: {selector: {app: own}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 90}]}\n"
DEFAULTS = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: own}\nspec: {host: own, trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}}\n"


def test_ingress_names_all_ports() -> None:
    of = made(
        """{ingress: [
        {port: {number: 8080, protocol: HTTP, name: a}, defaultEndpoint: '127.0.0.1:9000'},
        {port: {number: 8081, protocol: TCP, name: b}, defaultEndpoint: 'unix:///run/app.sock'},
        {port: {number: 8082, protocol: GRPC, name: c}, defaultEndpoint: '0.0.0.0:9002'},
        {port: {number: 8083, protocol: HTTP, name: d}}]}""",
        OWN,
        app="own",
    )
    assert [item.name for item in of.clusters if item.name.startswith("inbound|")] == [
        "inbound|8080||", "inbound|8081||", "inbound|8082||", "inbound|8083||",
    ]  # fmt: skip
    where = [
        [(to.address, to.port) for to in cluster(of, f"inbound|{port}||").endpoints]
        for port in range(8080, 8084)
    ]
    assert where == [[("127.0.0.1", 9000)], [("unix:///run/app.sock", 0)], [("10.9.9.9", 9002)], []]
    assert cluster(of, "inbound|8080||").protocol is ir.UpstreamProtocol.HTTP1
    assert cluster(of, "inbound|8082||").protocol is ir.UpstreamProtocol.HTTP2
    assert cluster(of, "inbound|8083||").discovery is ir.Discovery.ORIGINAL_DST
    # A socket has no source address; the application's ports have the one that is let through.
    assert [cluster(of, f"inbound|{port}||").source_address for port in (8080, 8081)] == ["127.0.0.6", ""]
    ports = {chain.match.port for chain in listener(of, "virtualInbound").chains}
    assert ports == {None, 15006, 8080, 8081, 8082, 8083}


def test_ingress_that_is_bound() -> None:
    of = made(
        "{ingress: [{port: {number: 8080, protocol: HTTP, name: a}, bind: 10.9.9.9, captureMode: NONE, defaultEndpoint: '127.0.0.1:9000'}]}",
        OWN,
        app="own",
    )
    opened = listener(of, "10.9.9.9_8080")
    assert (opened.receive, opened.port) == (ir.Receive.BOUND, 8080)
    assert {chain.match.port for chain in listener(of, "virtualInbound").chains} == {None, 15006}


def test_limits_of_what_the_application_gets() -> None:
    def pool(of: ir.Proxy, port: int) -> int | None:
        return cluster(of, f"inbound|{port}||").connections.max_connections

    assert pool(proxy(world(OWN, DEFAULTS), labels={"app": "own"}), 8080) == 7
    of = made(
        "{inboundConnectionPool: {tcp: {maxConnections: 5, connectTimeout: 2s}}}", OWN, DEFAULTS, app="own"
    )
    assert (pool(of, 8080), pool(of, 90)) == (5, 5)
    assert cluster(of, "inbound|90||").connections.connect_timeout == timedelta(seconds=2)
    spec = """{inboundConnectionPool: {tcp: {maxConnections: 5}}, ingress: [
        {port: {number: 8080, protocol: HTTP, name: a}, connectionPool: {tcp: {maxConnections: 3}}},
        {port: {number: 90, protocol: TCP, name: b}}]}"""
    of = made(spec, OWN, DEFAULTS, app="own")
    assert (pool(of, 8080), pool(of, 90)) == (3, 5)


PEER = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: own}\nspec: {selector: {matchLabels: {app: own}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: %s}}}\n"
TLS = "{ingress: [{port: {number: 8080, protocol: HTTPS, name: a}, defaultEndpoint: '127.0.0.1:9000', tls: {mode: SIMPLE, serverCertificate: /c, privateKey: /k}}]}"


def test_ingress_ends_tls_of_callers_outside_the_mesh() -> None:
    of = made(TLS, OWN, PEER % "DISABLE", app="own")
    (chain,) = [chain for chain in listener(of, "virtualInbound").chains if chain.match.port == 8080]
    assert chain.tls is not None
    assert (chain.match.transport, chain.tls.certificates[0].certificate_path) == ("tls", "/c")
    assert isinstance(chain.handler, ir.HttpHandler)
    # With the mesh's own TLS at the port that is what counts.
    of = made(TLS, OWN, PEER % "STRICT", app="own")
    (chain,) = [chain for chain in listener(of, "virtualInbound").chains if chain.match.port == 8080]
    assert chain.tls is not None
    assert chain.tls.certificates[0].source is ir.SecretFrom.FILE


def test_which_sidecar_holds() -> None:
    def seen(*texts: str, **labels: str) -> set[str]:
        return outbound(proxy(world(*ALL, *texts), labels=labels))

    only = "{egress: [{hosts: ['./%s.default.svc.cluster.local']}]%s}"
    root = sidecar("{egress: [{hosts: ['other/*']}]}", namespace="istio-system")
    whole = sidecar(only % ("db", ""), name="b")
    for_app = sidecar(only % ("reviews", ", workloadSelector: {labels: {app: a}}"), name="c")
    older = sidecar(
        only % ("ratings", ", workloadSelector: {labels: {app: a}}"),
        name="z",
        more=", creationTimestamp: '2020-01-01T00:00:00Z'",
    )
    assert seen(root, whole, for_app, app="a") == {"reviews"}
    assert seen(root, whole, for_app, older, app="a") == {"ratings"}
    assert seen(root, whole, for_app) == {"db"}
    assert seen(root, for_app) == {"far"}
    assert seen(for_app) == {"reviews", "ratings", "far", "db"}


def test_applications_that_listen_at_localhost_only() -> None:
    mesh = MESH.replace(
        "outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}", "inboundTrafficPolicy: {mode: LOCALHOST}"
    )
    of = proxy(world(OWN, mesh), labels={"app": "own"})
    (to,) = cluster(of, "inbound|8080||").endpoints
    assert (to.address, to.port) == ("127.0.0.1", 8080)


def _socket(protocol: str, *services: str) -> ir.Listener:
    spec = f"{{egress: [{{port: {{number: 0, protocol: {protocol}, name: t}}, bind: 'unix:///tmp/x', hosts: ['./*']}}]}}"
    made, problems = compile_proxy(world(sidecar(spec), *services), identity())
    assert not problems
    return listener(made, "unix:///tmp/x_0")


def _leads_to(chain: ir.FilterChain | None) -> str:
    assert chain is not None
    assert isinstance(chain.handler, ir.TcpHandler)
    return chain.handler.destinations[0].cluster


def test_bytes_at_a_socket_go_to_the_first_service_with_one_port() -> None:
    two = service("a", 1).replace("ports: [", "ports: [{name: more, port: 2}, ")
    opened = _socket("TCP", two, service("b", 5432, port_name="tcp"), service("c", 80))
    assert opened.receive is ir.Receive.BOUND
    assert _leads_to(opened.chains[0]) == "outbound|5432||b.default.svc.cluster.local"
    assert _leads_to(_socket("TCP").chains[0]) == "BlackHoleCluster"


def test_tls_at_a_socket_is_told_apart_by_the_name() -> None:
    route = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [b]
  tls: [{match: [{sniHosts: [b]}], route: [{destination: {host: b}}]}]
"""
    opened = _socket("TLS", service("b", 443, port_name="tls"), route)
    (chain,) = opened.chains
    assert chain.match.server_names == ("b",)
    assert _leads_to(chain) == "outbound|443||b.default.svc.cluster.local"
    assert _leads_to(opened.default_chain) == "BlackHoleCluster"
