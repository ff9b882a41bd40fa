"""What Istio's resources say of listeners and streams, on one real sidecar and one real gateway."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

import pytest

from tests.envoy.mesh import run_compiled
from tests.support.backend import HttpBackend, TcpBackend, serving
from tests.support.certificates import TestAuthority
from tests.support.compiled import world
from tests.support.dial import Connection, Reply, dial
from tests.support.ports import free_ports
from weft import ir
from weft.names import ProxyName

RESOURCES = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: shop}}
spec:
  hosts: [shop.example.com]
  addresses: [240.0.0.1]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1, ports: {{http: {shop}}}}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: cart}}
spec:
  hosts: [cart.example.com]
  addresses: [240.0.0.2]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1, ports: {{http: {cart}}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: shop}}
spec:
  hosts: [shop.example.com]
  http:
  - match: [{{uri: {{prefix: /cart}}}}]
    name: team
    delegate: {{name: team}}
  - route: [{{destination: {{host: shop.example.com}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: team}}
spec:
  http:
  - match: [{{uri: {{prefix: /cart/}}, withoutHeaders: {{x-old: {{exact: "1"}}}}}}]
    rewrite: {{uriRegexRewrite: {{match: '^/cart/(.*)$', rewrite: '/inner/\\1'}}}}
    headers: {{request: {{set: {{x-team: cart}}, remove: [x-secret]}}, response: {{add: {{x-by: team}}}}}}
    route: [{{destination: {{host: cart.example.com}}}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: looked-up}}
spec:
  hosts: ["*.localhost"]
  ports:
  - {{number: {shop}, name: http, protocol: HTTP}}
  - {{number: {tcp}, name: tls, protocol: TLS}}
  resolution: DYNAMIC_DNS
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: near}}
spec:
  hosts: [near.example.com]
  ports: [{{number: 9000, name: tcp, protocol: TCP}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1, ports: {{tcp: {tcp}}}}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: far}}
spec:
  hosts: [far.example.com]
  ports: [{{number: 9000, name: tcp, protocol: TCP}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1, ports: {{tcp: {other}}}}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: sealed}}
spec:
  hosts: [sealed.example.com]
  location: MESH_INTERNAL
  ports: [{{number: 9000, name: tcp, protocol: TCP}}]
  resolution: STATIC
  endpoints:
  - {{address: 127.0.0.1, ports: {{tcp: {tcp}}}, labels: {{security.istio.io/tlsMode: istio}}}}
  - {{address: 127.0.0.1, ports: {{tcp: {other}}}, labels: {{security.istio.io/tlsMode: disabled}}}}
"""

SIDECAR = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: app}}
spec:
  ingress:
  - port: {{number: {own}, protocol: HTTP, name: http}}
    defaultEndpoint: 127.0.0.1:{shop}
  - port: {{number: {bound}, protocol: HTTP, name: bound}}
    bind: 127.0.0.1
    captureMode: NONE
    defaultEndpoint: unix://{inner}
  egress:
  - port: {{number: {local}, protocol: HTTP, name: local}}
    bind: 127.0.0.1
    captureMode: NONE
    hosts: ["*/*"]
  - port: {{number: {proxy}, protocol: HTTP_PROXY, name: proxy}}
    bind: 127.0.0.1
    captureMode: NONE
    hosts: ["*/cart.example.com"]
  - port: {{number: 0, protocol: HTTP, name: socket}}
    bind: unix://{outer}
    hosts: ["*/shop.example.com", "*/cart.example.com"]
  - hosts: ["*/*", "~*/near.example.com"]
  outboundTrafficPolicy:
    mode: ALLOW_ANY
    egressProxy: {{host: far.example.com, port: {{number: 9000}}}}
"""

GATEWAYS = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: streams}}
spec:
  selector: {{istio: edge}}
  servers:
  - port: {{number: 9000, name: tcp, protocol: TCP}}
    hosts: ["*"]
  - port: {{number: 15443, name: sealed, protocol: TLS}}
    hosts: ["*.example.com"]
    tls: {{mode: AUTO_PASSTHROUGH}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: streams}}
spec:
  hosts: ["*"]
  gateways: [streams]
  tcp:
  - match: [{{sourceSubnet: 127.0.0.2/32}}]
    route: [{{destination: {{host: near.example.com}}}}]
  - route: [{{destination: {{host: far.example.com}}}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: web}}
spec:
  selector: {{istio: edge}}
  servers:
  - port: {{number: 80, name: http, protocol: HTTP}}
    hosts: ["default/*.example.com"]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: secure}}
spec:
  selector: {{istio: edge}}
  servers:
  - port: {{number: 80, name: http, protocol: HTTP}}
    hosts: [secure.example.com]
    tls: {{httpsRedirect: true}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: a}}
spec:
  hosts: [shop.example.com]
  gateways: [web]
  http:
  - route: [{{destination: {{host: shop.example.com}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: b}}
spec:
  hosts: [shop.example.com]
  gateways: [web]
  http:
  - match: [{{uri: {{prefix: /cart}}, port: 80}}]
    route: [{{destination: {{host: cart.example.com}}}}]
  - match: [{{uri: {{prefix: /moved}}}}]
    redirect: {{uri: /here, derivePort: FROM_REQUEST_PORT}}
"""


TOPOLOGY = """
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {name: default, namespace: istio-system}
spec:
  defaultConfig:
    gatewayTopology: {numTrustedProxies: 1, proxyProtocol: {}}
"""


class _AtSocket(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"name": "inner"}')

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@dataclass(frozen=True)
class Site:
    """Where the sidecar and the gateway are reached."""

    outbound: tuple[str, int]
    own: tuple[str, int]
    bound: tuple[str, int]
    local: tuple[str, int]
    proxy: tuple[str, int]
    socket: str
    edge: tuple[str, int]
    behind: tuple[str, int]
    streams: tuple[str, int]
    sealed: tuple[str, int]
    shop: int
    tcp: int

    def call(self, path: str, destination: tuple[str, int] = ("240.0.0.1", 80), **headers: str) -> Reply:
        """A call of the application, steered to its sidecar."""
        return Connection(destination, through=self.outbound).ask(path, **headers)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    authority = TestAuthority()
    sockets: Path = tmp_path_factory.mktemp("s")
    inner, outer = str(sockets / "i"), str(sockets / "o")
    assert len(outer) < 100
    with ExitStack() as stack:
        shop = stack.enter_context(serving(HttpBackend("127.0.0.1", 0, "shop")))
        cart = stack.enter_context(serving(HttpBackend("127.0.0.1", 0, "cart")))
        tcp = stack.enter_context(serving(TcpBackend("127.0.0.1", 0, "near")))
        other = stack.enter_context(serving(TcpBackend("127.0.0.1", 0, "far")))
        stack.enter_context(serving(ThreadingUnixStreamServer(inner, _AtSocket)))
        outbound, own, bound, local, proxy, edge, behind, streams, sealed = free_ports(9)
        ports = {
            "shop": shop.server_port,
            "cart": cart.server_port,
            "tcp": int(tcp.server_address[1]),
            "other": int(other.server_address[1]),
        }
        services = RESOURCES.format(**ports)
        named = SIDECAR.format(
            **ports, own=own, bound=bound, local=local, proxy=proxy, inner=inner, outer=outer
        )
        sidecar = ir.ProxyIdentity(
            name=ProxyName("sidecar", "127.0.0.1", "app", "default"),
            service_account="app",
            attachment=ir.Attachment(
                capture=ir.Capture.SECCOMP,
                outbound_address="127.0.0.1",
                outbound_port=outbound,
                inbound_address="127.0.0.1",
            ),
        )
        stack.enter_context(run_compiled(world(services, named), sidecar, authority))
        router = ir.ProxyIdentity(
            name=ProxyName("router", "127.0.0.1", "edge", "default"),
            service_account="edge",
            labels=(("istio", "edge"),),
            attachment=ir.Attachment(capture=ir.Capture.NONE),
            port_map=((80, edge), (9000, streams), (15443, sealed)),
        )
        stack.enter_context(run_compiled(world(services, GATEWAYS.format()), router, authority))
        balanced = replace(router, port_map=((80, behind),))
        web = world(services, GATEWAYS.format().partition("---")[2].partition("---")[2], TOPOLOGY)
        stack.enter_context(run_compiled(web, balanced, authority))
        at = "127.0.0.1"
        yield Site(
            (at, outbound), (at, own), (at, bound), (at, local), (at, proxy), outer,
            (at, edge), (at, behind), (at, streams), (at, sealed), ports["shop"], ports["tcp"],
        )  # fmt: skip


def test_the_rules_of_a_delegate(site: Site) -> None:
    reply = site.call("/cart/7", host="shop.example.com", x_secret="s")
    assert (reply.body["name"], reply.body["path"], reply.headers["x-by"]) == ("cart", "/inner/7", "team")
    assert reply.body["headers"]["x-team"] == "cart"
    assert "x-secret" not in reply.body["headers"]
    # What its rule does not take goes on to the root's next one.
    assert site.call("/cart/7", host="shop.example.com", x_old="1").body["name"] == "shop"
    assert site.call("/cart", host="shop.example.com").body["name"] == "shop"


def test_names_are_looked_up_when_they_are_called(site: Site) -> None:
    there = ("192.0.2.1", site.shop)
    assert site.call("/", there, host=f"a.localhost:{site.shop}").body["name"] == "shop"
    assert site.call("/", there, host=f"b.localhost:{site.shop}").body["name"] == "shop"


def hello(name: str, *protocols: str) -> bytes:
    """What a TLS client says first."""
    context = ssl.create_default_context()
    if protocols:
        context.set_alpn_protocols(list(protocols))
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def answer(connection: socket.socket, first: bytes = b"") -> str:
    """The line that the other side says first; empty when it hangs up."""
    with connection:
        connection.settimeout(20)
        said = b""
        with suppress(ConnectionResetError):
            connection.sendall(first)
            while b"\n" not in said and (more := connection.recv(1000)):
                said += more
        return said.partition(b"\n")[0].decode(errors="replace")


def test_the_name_in_the_sni_is_looked_up(site: Site) -> None:
    connection = dial(("192.0.2.1", site.tcp), through=site.outbound)
    assert answer(connection, hello("c.localhost")) == "hello from near"


def test_http_at_a_socket(site: Site) -> None:
    connection = http.client.HTTPConnection("localhost", timeout=20)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(site.socket)
    connection.request("GET", "/", headers={"host": "cart.example.com:80"})
    assert b'"name": "cart"' in connection.getresponse().read()


def test_a_proxy_that_is_asked_for_hosts(site: Site) -> None:
    connection = Connection(site.proxy)
    assert connection.ask("http://cart.example.com/x", host="cart.example.com").body["path"] == "/x"


def test_what_nobody_knows_goes_to_the_egress_proxy(site: Site) -> None:
    assert answer(dial(("192.0.2.9", 1234), through=site.outbound)) == "hello from far"


def test_how_the_workload_is_called(site: Site) -> None:
    assert Connection(site.own).ask("/").body["name"] == "shop"
    assert Connection(site.bound).ask("/").body["name"] == "inner"


def test_callers_of_a_gateway_are_told_apart(site: Site) -> None:
    assert answer(socket.create_connection(site.streams, 20, ("127.0.0.2", 0))) == "hello from near"
    assert answer(socket.create_connection(site.streams, 20, ("127.0.0.3", 0))) == "hello from far"


def test_tls_of_the_mesh_is_handed_on(site: Site) -> None:
    name = "outbound_.9000_._.sealed.example.com"
    assert answer(socket.create_connection(site.sealed, 20), hello(name, "istio")) == "hello from near"
    # Neither other names nor TLS that is not the mesh's gets through.
    assert answer(socket.create_connection(site.sealed, 20), hello("sealed.example.com", "istio")) == ""
    assert answer(socket.create_connection(site.sealed, 20), hello(name, "h2")) == ""


def test_gateways_share_a_port(site: Site) -> None:
    def ask(path: str, host: str = "shop.example.com") -> Reply:
        return Connection(site.edge).ask(path, host=host)

    assert ask("/").body["name"] == "shop"
    assert ask("/cart").body["name"] == "cart"
    # The port that the Gateway says is the client's, wherever it is opened.
    assert ask("/moved").headers["location"] == "http://shop.example.com/here"
    redirect = ask("/x?y=z", "secure.example.com")
    assert (redirect.status, redirect.headers["location"]) == (301, "https://secure.example.com/x?y=z")
    assert ask("/", "other.example.com").status == 404


def test_a_balancer_in_front_says_who_the_client_is(site: Site) -> None:
    told = {"host": "shop.example.com", "x_forwarded_for": "203.0.113.7"}
    reply = Connection(("192.0.2.9", 80), through=site.behind).ask("/", **told)
    assert reply.body["name"] == "shop"
    assert reply.body["headers"]["x-envoy-external-address"] == "203.0.113.7"
    # A gateway that the world reaches by itself believes nobody; one behind a balancer wants to be told.
    open_one = Connection(site.edge).ask("/", **told).body["headers"]
    assert open_one.get("x-envoy-external-address") != "203.0.113.7"
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        Connection(site.behind).ask("/", **told)
