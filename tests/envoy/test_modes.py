"""Who may connect, bytes that are not HTTP, and the edge: through real Envoys."""

from __future__ import annotations

import socket
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.envoy.mesh import (
    TCP_PORT,
    VIP,
    Running,
    Service,
    blackhole,
    client_listeners,
    endpoints,
    host,
    mesh_cluster,
    run_proxy,
    run_service,
    run_tcp_service,
    spiffe,
    table,
    tcp_to,
)
from tests.support.backend import TcpBackend, serving
from tests.support.certificates import Pair, TestAuthority
from tests.support.dial import Connection, dial
from tests.support.ports import free_port
from weft import ir


@pytest.fixture(scope="module")
def authority() -> TestAuthority:
    return TestAuthority()


@pytest.fixture(scope="module")
def strict(authority: TestAuthority) -> Iterator[Service]:
    with run_service("strict", authority) as service:
        yield service


@pytest.fixture(scope="module")
def permissive(authority: TestAuthority) -> Iterator[Service]:
    with run_service("permissive", authority, strict=False) as service:
        yield service


def _context(authority: TestAuthority, pair: Pair | None, *protocols: str) -> ssl.SSLContext:
    """A client's TLS that looks at no names; with ``pair`` it has a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=authority.pem)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    if pair is not None:
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(pair.certificate + pair.key)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def test_strict_refuses_plaintext(strict: Service) -> None:
    with pytest.raises(OSError):
        Connection(strict.sidecar.address).ask("/plain")
    assert strict.backend.seen["/plain"] == 0
    (line,) = strict.sidecar.envoy.requests(response_flags="NR")
    assert line["response_code_details"] == "filter_chain_not_found" or line["response_code"] == 0


def test_permissive_takes_plaintext_and_names_nobody(permissive: Service) -> None:
    assert Connection(permissive.sidecar.address).ask("/plain").status == 200
    (line,) = permissive.sidecar.envoy.requests(path="/plain")
    assert line["downstream_peer_principal"] is None


def test_permissive_takes_mtls_too(permissive: Service, authority: TestAuthority) -> None:
    tls = _context(authority, authority.issue(spiffe("web")), "http/1.1")
    assert Connection(permissive.sidecar.address, tls=tls).ask("/mtls").status == 200
    (line,) = permissive.sidecar.envoy.requests(path="/mtls")
    assert line["downstream_peer_principal"] == spiffe("web")


def test_a_certificate_is_required(strict: Service, authority: TestAuthority) -> None:
    with pytest.raises((ssl.SSLError, OSError)):
        Connection(strict.sidecar.address, tls=_context(authority, None, "http/1.1")).ask("/none")
    assert strict.backend.seen["/none"] == 0


def test_another_authority_is_refused(strict: Service, authority: TestAuthority) -> None:
    forged = TestAuthority("other root").issue(spiffe("web"))
    with pytest.raises((ssl.SSLError, OSError)):
        Connection(strict.sidecar.address, tls=_context(authority, forged, "http/1.1")).ask("/forged")
    assert strict.backend.seen["/forged"] == 0


def test_another_trust_domain_is_refused(strict: Service, authority: TestAuthority) -> None:
    stranger = authority.issue("spiffe://elsewhere.example/ns/default/sa/web")
    with pytest.raises((ssl.SSLError, OSError)):
        Connection(strict.sidecar.address, tls=_context(authority, stranger, "http/1.1")).ask("/stranger")
    assert strict.backend.seen["/stranger"] == 0


def test_a_forged_xfcc_header_does_not_survive(permissive: Service) -> None:
    """Without mTLS there is no identity, whatever the caller says."""
    reply = Connection(permissive.sidecar.address).ask(
        "/forged", x_forwarded_client_cert=f"URI={spiffe('admin')}"
    )
    assert spiffe("admin") not in reply.body["headers"].get("x-forwarded-client-cert", "")


@dataclass(frozen=True, slots=True)
class Tcp:
    client: Running
    server: Running


@pytest.fixture(scope="module")
def tcp(authority: TestAuthority) -> Iterator[Tcp]:
    cluster = mesh_cluster("db", TCP_PORT)
    with ExitStack() as stack:
        server = stack.enter_context(run_tcp_service("db", authority))
        port = free_port()
        envoy = stack.enter_context(
            run_proxy(
                "web",
                client_listeners(port, "9080", tcp_to(cluster.name)),
                routes=(table(),),
                clusters=(cluster, blackhole()),
                endpoints=(endpoints(cluster, server.address),),
                authority=authority,
            )
        )
        yield Tcp(Running(envoy, ("127.0.0.1", port)), server)


def test_bytes_pass_over_mtls_and_the_server_may_speak_first(tcp: Tcp) -> None:
    with dial((VIP, TCP_PORT), through=tcp.client.address) as connection:
        assert connection.recv(100) == b"hello from db\n"
        connection.sendall(b"select 1")
        assert connection.recv(100) == b"select 1"
    (line,) = tcp.server.envoy.requests()
    assert line["downstream_peer_principal"] == spiffe("web")
    assert line["requested_server_name"] == f"outbound_.{TCP_PORT}_._.{host('db')}"
    (line,) = tcp.client.envoy.requests()
    assert line["upstream_peer_principal"] == spiffe("db")
    assert (line["bytes_received"], line["bytes_sent"]) == (8, 22)


def test_tcp_metrics(tcp: Tcp) -> None:
    with dial((VIP, TCP_PORT), through=tcp.client.address) as connection:
        assert connection.recv(100)
    for name in ("connections_opened", "connections_closed", "sent_bytes", "received_bytes"):
        shown = tcp.client.envoy.admin(f"/stats?format=prometheus&filter=istio_tcp_{name}_total")
        assert 'reporter="source"' in shown, name
        assert 'request_protocol="tcp"' in shown


@dataclass(frozen=True, slots=True)
class Edge:
    envoy_address: tuple[str, int]
    plain_address: tuple[str, int]
    backend: Service
    proxy: Running


@pytest.fixture(scope="module")
def edge(authority: TestAuthority) -> Iterator[Edge]:
    cluster = mesh_cluster("shop")
    secret = "kubernetes-gateway://default/shop"
    own = ir.Cluster(
        name="own-tls",
        discovery=ir.Discovery.EDS,
        protocol=ir.UpstreamProtocol.TCP,
        mutual=ir.MutualTls.ALWAYS,
    )
    with ExitStack() as stack:
        shop = stack.enter_context(run_service("shop", authority))
        raw = free_port()
        stack.enter_context(serving(TcpBackend("127.0.0.1", raw, "own tls")))
        https, http = free_port(), free_port()
        handler = ir.HttpHandler(
            stat_prefix="edge",
            routes="https",
            edge=True,
            client_certificate=ir.ClientCertificate.SANITIZE_SET,
            server_name="istio-envoy",
        )
        certificate = ir.SecretRef(source=ir.SecretFrom.ADS, name=secret)
        terminate = ir.FilterChain(
            name="shop",
            match=ir.ChainMatch(transport="tls", server_names=("shop.example.com",)),
            handler=handler,
            tls=ir.DownstreamTls(certificates=(certificate,), alpn=("h2", "http/1.1")),
        )
        passed = ir.FilterChain(
            name="passthrough",
            match=ir.ChainMatch(transport="tls", server_names=("*.raw.example.com",)),
            handler=tcp_to(own.name),
        )
        to_https = ir.RouteTable(
            name="http",
            virtual_hosts=(ir.VirtualHost(name="all", domains=("*",), routes=(), require_tls=True),),
        )

        def listener(name: str, port: int, *chains: ir.FilterChain, tls: bool) -> ir.Listener:
            return ir.Listener(
                name=name,
                direction=ir.Direction.GATEWAY,
                address="127.0.0.1",
                port=port,
                receive=ir.Receive.BOUND,
                chains=chains,
                inspect_tls=tls,
            )

        plain = ir.FilterChain(
            name="plain",
            match=ir.ChainMatch(),
            handler=ir.HttpHandler(stat_prefix="plain", routes="http", edge=True),
        )
        forward = ir.Forward(destinations=(ir.Destination(cluster=cluster.name),))
        route = ir.Route(name="shop", match=ir.RequestMatch(), action=forward)
        gateway = stack.enter_context(
            run_proxy(
                "gateway",
                (
                    listener("https", https, terminate, passed, tls=True),
                    listener("http", http, plain, tls=False),
                ),
                routes=(table(route, name="https"), to_https),
                clusters=(cluster, own, blackhole()),
                endpoints=(
                    endpoints(cluster, shop.sidecar.address),
                    endpoints(own, ("127.0.0.1", raw), mesh_tls=False),
                ),
                authority=authority,
                secrets={secret: authority.issue("shop.example.com").secret(secret)},
            )
        )
        at = ("127.0.0.1", https)
        yield Edge(at, ("127.0.0.1", http), shop, Running(gateway, at))


def _browser(authority: TestAuthority) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority.pem)


def test_the_edge_terminates_tls_and_speaks_mtls_inwards(edge: Edge, authority: TestAuthority) -> None:
    connection = Connection(edge.envoy_address, tls=_browser(authority), sni="shop.example.com")
    reply = connection.ask("/cart", host="shop.example.com", x_forwarded_for="6.6.6.6")
    assert reply.status == 200
    assert reply.headers["server"] == "istio-envoy"
    assert reply.body["headers"]["x-forwarded-proto"] == "https"
    claimed, seen = reply.body["headers"]["x-forwarded-for"].split(",")
    assert claimed == "6.6.6.6"
    assert seen != claimed  # what the edge saw itself comes last
    (line,) = edge.backend.sidecar.envoy.requests(path="/cart")
    assert line["downstream_peer_principal"] == spiffe("gateway")
    (line,) = edge.proxy.envoy.requests(path="/cart")
    assert line["requested_server_name"] == "shop.example.com"


def test_an_unknown_name_gets_no_handshake(edge: Edge, authority: TestAuthority) -> None:
    with pytest.raises((ssl.SSLError, OSError)):
        Connection(edge.envoy_address, tls=_browser(authority), sni="other.example.com").ask("/")


def test_some_names_pass_through_untouched(edge: Edge) -> None:
    """What the server behind says first is not TLS: the gateway did not look into it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="a.raw.example.com")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    with socket.create_connection(edge.envoy_address, timeout=10) as connection:
        connection.sendall(hello)
        received = b""
        while len(received) < len(hello):
            received += connection.recv(65536)
    assert received.startswith(b"hello from own tls\n")


def test_plain_requests_are_sent_to_https(edge: Edge) -> None:
    reply = Connection(edge.plain_address).ask("/cart?x=1", host="shop.example.com")
    assert reply.status == 301
    assert reply.headers["location"] == "https://shop.example.com/cart?x=1"
