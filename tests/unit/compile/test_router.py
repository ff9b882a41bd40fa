"""Istio Gateways: servers merged by port, TLS, and VirtualServices for them."""

# ruff: noqa: E501  (resources stand on one line)

from __future__ import annotations

import pytest
from tests.support.compiled import host, listener, proxy, service, table, world
from tests.unit.compile.test_virtual_service import virtual_service

from weft import ir
from weft.names import GATEWAY_ADDRESSES

NODE, LABELS = "router~10.0.0.3~gw-1.istio-system", {"istio": "ingressgateway"}
WEB = service("web")


def gateway(*servers: str, name: str = "edge", more: str = "") -> str:
    listed = "".join(f"\n  - {server}" for server in servers)
    return (
        "apiVersion: networking.istio.io/v1\nkind: Gateway\n"
        f"metadata: {{name: {name}{more}}}\nspec:\n  selector: {{istio: ingressgateway}}\n  servers:{listed}\n"
    )


HTTP = '{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}'


def test_plain_http_shares_a_table_a_port() -> None:
    rules = virtual_service(
        "- directResponse: {status: 201}", hosts="[a.example.com]", more="gateways: [edge]"
    )
    made = proxy(world(WEB, gateway(HTTP), rules), NODE, labels=LABELS, port_map=((80, 10080),))
    opened = listener(made, "0.0.0.0_80")
    assert (opened.port, opened.receive) == (10080, ir.Receive.BOUND)
    assert isinstance(opened.chains[0].handler, ir.HttpHandler)
    assert opened.chains[0].handler.routes == "http.80"
    assert opened.chains[0].handler.edge
    assert host(table(made, "http.80"), "a.example.com").routes[0].action == ir.Respond(status=201)


@pytest.mark.parametrize(
    ("hosts", "wanted", "found"),
    [
        ('["*"]', "a.example.com", True),
        ('["*.example.com"]', "a.example.com", True),
        ("[b.example.com]", "a.example.com", False),
        ("[default/a.example.com]", "a.example.com", True),
        ("[other/a.example.com]", "a.example.com", False),
        ("[./a.example.com]", "a.example.com", True),
    ],
)
def test_hosts_of_a_server_and_a_virtual_service_meet(hosts: str, wanted: str, found: bool) -> None:
    server = HTTP.replace('["*"]', hosts)
    rules = virtual_service(
        "- directResponse: {status: 201}", hosts="[a.example.com]", more="gateways: [edge]"
    )
    tables = table(proxy(world(gateway(server), rules), NODE, labels=LABELS), "http.80")
    assert any(wanted in item.domains for item in tables.virtual_hosts) is found


def test_nothing_to_route_is_404() -> None:
    hosts = table(proxy(world(gateway(HTTP)), NODE, labels=LABELS), "http.80").virtual_hosts
    assert [(item.name, item.domains, item.routes) for item in hosts] == [("blackhole:80", ("*",), ())]


def test_https_redirect_answers_every_host() -> None:
    server = '{port: {number: 80, name: http, protocol: HTTP}, hosts: ["a.example.com"], tls: {httpsRedirect: true}}'
    hosts = table(proxy(world(gateway(server)), NODE, labels=LABELS), "http.80")
    assert host(hosts, "a.example.com").require_tls


def test_https_has_a_chain_and_a_table_a_server() -> None:
    servers = (
        "{port: {number: 443, name: a, protocol: HTTPS}, hosts: [a.example.com], tls: {mode: SIMPLE, credentialName: cert}}",
        "{port: {number: 443, name: b, protocol: HTTPS}, hosts: [b.example.com], tls: {mode: MUTUAL, credentialName: cert, minProtocolVersion: TLSV1_3}}",
        "{port: {number: 443, name: c, protocol: HTTPS}, hosts: [c.example.com], tls: {mode: ISTIO_MUTUAL}}",
        "{port: {number: 443, name: d, protocol: HTTPS}, hosts: [a.example.com], tls: {mode: SIMPLE, credentialName: late}}",
    )
    made = proxy(world(gateway(*servers)), NODE, labels=LABELS)
    opened = listener(made, "0.0.0.0_443")
    assert opened.inspect_tls
    assert [chain.match.server_names for chain in opened.chains] == [
        ("a.example.com",),
        ("b.example.com",),
        ("c.example.com",),
    ]
    simple, mutual, mesh = (chain.tls for chain in opened.chains)
    assert simple is not None
    assert mutual is not None
    assert mesh is not None
    assert simple.certificates[0].name == "kubernetes-gateway://istio-system/cert"
    assert simple.trust is None
    assert mutual.require_client_certificate
    assert mutual.trust is not None
    assert mutual.trust.name == "kubernetes-gateway://istio-system/cert-cacert"
    assert mutual.limits.minimum is ir.TlsVersion.V1_3
    assert mesh.peer_trust_domains == ("cluster.local",)
    assert {item.name for item in made.routes} >= {"https.443.a.edge.default", "https.443.b.edge.default"}


def test_tls_passes_through_by_sni_and_tcp_goes_on() -> None:
    servers = (
        "{port: {number: 443, name: p, protocol: TLS}, hosts: [a.example.com], tls: {mode: PASSTHROUGH}}",
        '{port: {number: 9000, name: t, protocol: TCP}, hosts: ["*"]}',
    )
    rules = """
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: x}
        spec:
          hosts: [a.example.com]
          gateways: [edge]
          tls: [{match: [{sniHosts: [a.example.com]}], route: [{destination: {host: web, port: {number: 80}}}]}]
          tcp: [{match: [{port: 9000}], route: [{destination: {host: web}, weight: 90}, {destination: {host: db}, weight: 10}]}]
    """
    made = proxy(world(WEB, gateway(*servers), rules), NODE, labels=LABELS)
    (chain,) = listener(made, "0.0.0.0_443").chains
    assert chain.match.server_names == ("a.example.com",)
    assert chain.tls is None
    (tcp,) = listener(made, "0.0.0.0_9000").chains
    assert isinstance(tcp.handler, ir.TcpHandler)
    assert [(part.cluster, part.weight) for part in tcp.handler.destinations] == [
        ("outbound|80||web.default.svc.cluster.local", 90),
        ("outbound|9000||db.default.svc.cluster.local", 10),
    ]


def test_only_proxies_that_the_selector_names_serve_it() -> None:
    assert proxy(world(gateway(HTTP)), NODE, labels={"istio": "other"}).listeners == ()


def test_a_gateway_with_an_address_of_its_own_is_open_there_alone() -> None:
    attachment = ir.Attachment(capture=ir.Capture.NONE, inbound_address="127.200.0.1", shared_ports=True)
    made = proxy(world(WEB, gateway(HTTP)), NODE, labels=LABELS, attachment=attachment)
    (opened,) = made.listeners
    assert (opened.name, opened.address, opened.shared_port) == ("0.0.0.0_80", "127.200.0.1", True)
    assert len(opened.chains) == 1


def test_a_gateway_at_every_address_leaves_those_of_others_alone() -> None:
    attachment = ir.Attachment(capture=ir.Capture.NONE, shared_ports=True)
    made = proxy(world(WEB, gateway(HTTP)), NODE, labels=LABELS, attachment=attachment)
    refusing = made.listeners[0].chains[-1]
    assert refusing.match == ir.ChainMatch(addresses=(GATEWAY_ADDRESSES,))
    assert isinstance(refusing.handler, ir.TcpHandler)
