"""Listeners of the Gateway API below HTTP and in front of it, through real Envoys: who gets a connection."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest

from tests.envoy.mesh import TELEMETRY, spiffe
from tests.support.backend import HttpBackend, TcpBackend, serving
from tests.support.certificates import Pair, TestAuthority
from tests.support.compiled import instance, service, world
from tests.support.dial import Connection
from tests.support.edge_backends import TlsBackend, UdpBackend, pem_file
from tests.support.envoy import Envoy, running_envoy, short_directory, wait_until
from tests.support.http3 import http3_client
from tests.support.ports import free_port, free_ports
from weft import ir
from weft.compile.endpoints import endpoint_set
from weft.compile.proxy import compile_proxy
from weft.compile.secrets import asked_for
from weft.control.secrets import secrets_for
from weft.emit.bootstrap import Settings, environment
from weft.emit.bundle import emit
from weft.emit.static import message, static_bootstrap
from weft.names import ProxyName

HTTP, HTTPS, MUTUAL, LENIENT, PASSING, TCP, UDP = 80, 443, 8443, 9443, 6443, 9000, 5300
PORTS = (HTTP, HTTPS, MUTUAL, LENIENT, PASSING, TCP, UDP)


def _tls(authority: TestAuthority, pair: Pair | None = None) -> ssl.SSLContext:
    """A client that believes ``authority`` and looks at names."""
    context = ssl.create_default_context(cadata=authority.pem)
    if pair is not None:
        with pem_file(pair) as path:
            context.load_cert_chain(path)
    return context


def _secret(name: str, pair: Pair) -> str:
    data = json.dumps({"tls.crt": pair.certificate, "tls.key": pair.key})
    return f"""
apiVersion: v1
kind: Secret
metadata: {{name: {name}}}
type: kubernetes.io/tls
stringData: {data}
"""


def _authorities(name: str, authority: TestAuthority) -> str:
    return f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: {name}}}
data: {json.dumps({"ca.crt": authority.pem})}
"""


GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, annotations: {weft.dev/http3: "true"}}
spec:
  gatewayClassName: weft
  allowedListeners: {namespaces: {from: Same}}
  tls:
    backend: {clientCertificateRef: {name: gateway}}
    frontend:
      default: {}
      perPort:
      - {port: 8443, tls: {validation: {caCertificateRefs: [{group: "", kind: ConfigMap, name: people}]}}}
      - port: 9443
        tls:
          validation:
            mode: AllowInsecureFallback
            caCertificateRefs: [{group: "", kind: ConfigMap, name: people}]
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - {name: any, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: any}, {name: other}]}}
  - {name: a, port: 443, protocol: HTTPS, hostname: a.example.com, tls: {certificateRefs: [{name: any}]}}
  - {name: mutual, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: any}]}}
  - {name: lenient, port: 9443, protocol: HTTPS, tls: {certificateRefs: [{name: any}]}}
  - {name: lost, port: 10443, protocol: HTTPS, tls: {certificateRefs: [{name: missing}]}}
  - {name: passing, port: 6443, protocol: TLS, hostname: "*.example.com", tls: {mode: Passthrough}}
  - name: ending
    port: 6443
    protocol: TLS
    hostname: end.example.com
    tls: {mode: Terminate, certificateRefs: [{name: any}]}
  - {name: quiet, port: 6443, protocol: TLS, hostname: quiet.example.com, tls: {mode: Passthrough}}
  - {name: tcp, port: 9000, protocol: TCP}
  - {name: udp, port: 5300, protocol: UDP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: team}
spec:
  parentRef: {name: edge}
  listeners:
  - {name: b, port: 443, protocol: HTTPS, hostname: "*.b.example.com", tls: {certificateRefs: [{name: any}]}}
  - {name: late, port: 9000, protocol: HTTP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: edge}, {name: team, kind: ListenerSet}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: secured}
spec:
  parentRefs: [{name: edge, sectionName: http}]
  rules:
  - {matches: [{path: {value: /sound}}], backendRefs: [{name: sound, port: 443}]}
  - {matches: [{path: {value: /misnamed}}], backendRefs: [{name: misnamed, port: 443}]}
  - {matches: [{path: {value: /unproven}}], backendRefs: [{name: unproven, port: 443}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: passing}
spec:
  parentRefs: [{name: edge, sectionName: passing}]
  hostnames: ["*.example.com"]
  rules: [{backendRefs: [{name: inner, port: 443}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: ending}
spec:
  parentRefs: [{name: edge, sectionName: ending}]
  hostnames: [end.example.com]
  rules: [{backendRefs: [{name: first, port: 9000}]}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: tcp}
spec:
  parentRefs: [{name: edge, port: 9000}]
  rules:
  - backendRefs:
    - {name: first, port: 9000, weight: 3}
    - {name: second, port: 9000}
    - {name: never, port: 9000, weight: 0}
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: UDPRoute
metadata: {name: udp}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: near, port: 53}, {name: far, port: 53}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: sound}
spec:
  targetRefs: [{group: "", kind: Service, name: sound}]
  validation:
    hostname: sound.example.com
    caCertificateRefs: [{group: "", kind: ConfigMap, name: backends}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: misnamed}
spec:
  targetRefs: [{group: "", kind: Service, name: misnamed}]
  validation:
    hostname: sound.example.com
    caCertificateRefs: [{group: "", kind: ConfigMap, name: backends}]
    subjectAltNames: [{type: Hostname, hostname: another.example.com}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: unproven}
spec:
  targetRefs: [{group: "", kind: Service, name: unproven}]
  validation:
    hostname: sound.example.com
    caCertificateRefs: [{group: "", kind: ConfigMap, name: missing}]
"""


@dataclass(frozen=True, slots=True)
class Edge:
    """The gateway, with the host's port of each of its own, and who is behind and before it."""

    envoy: Envoy
    ports: dict[int, int]
    authority: TestAuthority
    people: TestAuthority
    inner: TlsBackend

    def https(self, port: int, sni: str, pair: Pair | None = None) -> Connection:
        return Connection(("127.0.0.1", self.ports[port]), tls=_tls(self.authority, pair), sni=sni)

    def plain(self) -> Connection:
        return Connection(("127.0.0.1", self.ports[HTTP]))


def _alone(name: str, app: str, address: str, ports: str) -> str:
    """A workload without a sidecar, which no identity was given to."""
    return instance(name, app, address, account="", ports=ports)


def _udp_service(name: str) -> str:
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{name: dns, port: 53, protocol: UDP}}]}}
"""


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    authority, people, own = TestAuthority(), TestAuthority("people"), TestAuthority("gateways")
    with ExitStack() as stack:
        web_port, inner_port, first_port, second_port = free_ports(4)
        stack.enter_context(serving(HttpBackend("127.0.0.1", web_port, "web")))
        inner = TlsBackend(
            inner_port, "inner", authority.issue("sound.example.com", "x.example.com"), own.pem
        )
        stack.enter_context(serving(inner))
        stack.enter_context(serving(TcpBackend("127.0.0.1", first_port, "first")))
        stack.enter_context(serving(TcpBackend("127.0.0.1", second_port, "second")))
        near, far = (stack.enter_context(serving(UdpBackend(name))) for name in ("near", "far"))
        behind = {"sound": inner_port, "misnamed": inner_port, "unproven": inner_port, "inner": inner_port}
        of = world(
            GATEWAY,
            service("web", 80),
            _alone("web-0", "web", "127.0.0.1", ports=f"{{http: {web_port}}}"),
            *(service(name, 443, port_name="https") for name in behind),
            *(
                _alone(f"{name}-0", name, "127.0.0.1", ports=f"{{https: {port}}}")
                for name, port in behind.items()
            ),
            *(service(name, 9000, port_name="tcp") for name in ("first", "second", "never")),
            _alone("first-0", "first", "127.0.0.1", ports=f"{{tcp: {first_port}}}"),
            _alone("second-0", "second", "127.0.0.1", ports=f"{{tcp: {second_port}}}"),
            *(_udp_service(name) for name in ("near", "far")),
            _alone("near-0", "near", "127.0.0.1", ports=f"{{dns: {near.port}}}"),
            _alone("far-0", "far", "127.0.0.1", ports=f"{{dns: {far.port}}}"),
            _secret("any", authority.issue("a.example.com", "*.b.example.com", "end.example.com")),
            _secret("other", authority.issue("other.example.com")),
            _secret("gateway", own.issue("gateway")),
            _authorities("people", people),
            _authorities("backends", authority),
        )
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        identity = ir.ProxyIdentity(
            name=ProxyName("router", "127.0.0.1", "edge-0", "default"),
            service_account="edge",
            labels=(("gateway.networking.k8s.io/gateway-name", "edge"),),
            port_map=tuple(ports.items()),
        )
        proxy, problems = compile_proxy(of, identity)
        assert {problem.resource for problem in problems} == {
            "Gateway default/edge",  # a certificate is missing, and two ports have no HTTP/3
            "ListenerSet default/team",  # one port is TCP's
            "BackendTLSPolicy default/unproven",
        }
        packed, refused = secrets_for(of, identity.name, asked_for(proxy.listeners, proxy.clusters))
        assert not refused
        endpoints = [
            endpoint_set(of, unit.name) for unit in proxy.clusters if unit.discovery is ir.Discovery.EDS
        ]
        settings = Settings(name=identity.name)
        bootstrap = static_bootstrap(
            emit(replace(proxy, telemetry=TELEMETRY)),
            endpoints,
            settings,
            {name: message(one) for name, one in packed.items()},
        )
        directory = stack.enter_context(short_directory("weft-edge-"))
        authority.write_identity(directory, spiffe("edge"))
        envoy = stack.enter_context(running_envoy(directory, bootstrap, environment(settings)))
        yield Edge(envoy, ports, authority, people, inner)


def test_https_listeners_are_told_apart_and_misdirected_requests_told(edge: Edge) -> None:
    at_a = edge.https(HTTPS, "a.example.com")
    assert at_a.ask(host="a.example.com").status == 200
    assert at_a.ask(host="x.b.example.com").status == 421
    assert at_a.ask(host="elsewhere.org").status == 421
    other = edge.https(HTTPS, "other.example.com")
    assert other.ask(host="other.example.com").status == 200
    assert other.ask(host="a.example.com").status == 421
    assert edge.https(HTTPS, "x.b.example.com").ask(host="x.b.example.com").status == 200


def test_of_several_certificates_the_server_name_chooses(edge: Edge) -> None:
    assert edge.https(HTTPS, "other.example.com").ask(host="other.example.com").status == 200
    with pytest.raises(ssl.SSLCertVerificationError):  # the listener has no certificate of that name
        edge.https(HTTPS, "nobody.example.com").ask()


def test_clients_must_prove_who_they_are_where_a_port_says_so(edge: Edge) -> None:
    friend, stranger = edge.people.issue("friend"), edge.authority.issue("stranger")
    assert edge.https(MUTUAL, "a.example.com", friend).ask(host="a.example.com").status == 200
    for pair in (None, stranger):
        with pytest.raises((OSError, http.client.HTTPException)):
            edge.https(MUTUAL, "a.example.com", pair).ask(host="a.example.com")
    for pair in (None, stranger, friend):
        assert edge.https(LENIENT, "a.example.com", pair).ask(host="a.example.com").status == 200


def test_tls_passes_through_by_its_server_name(edge: Edge) -> None:
    gateway = edge.authority  # signs the inner server too
    seen = len(edge.inner.names)
    with (
        contextlib.suppress(OSError),  # the inner server wants a certificate; its own was seen before that
        socket.create_connection(("127.0.0.1", edge.ports[PASSING]), timeout=20) as raw,
        _tls(gateway).wrap_socket(raw, server_hostname="x.example.com") as inside,
    ):
        assert ("DNS", "x.example.com") in inside.getpeercert()["subjectAltName"]  # type: ignore[index]
    wait_until(lambda: "x.example.com" in edge.inner.names[seen:], what="the server name at the backend")
    for name in ("quiet.example.com", "elsewhere.org"):  # a listener without routes, and none at all
        with (
            pytest.raises(OSError),
            socket.create_connection(("127.0.0.1", edge.ports[PASSING]), timeout=20) as raw,
        ):
            _tls(gateway).wrap_socket(raw, server_hostname=name)


def test_tls_ends_at_the_listener_beside(edge: Edge) -> None:
    with (
        socket.create_connection(("127.0.0.1", edge.ports[PASSING]), timeout=20) as raw,
        _tls(edge.authority).wrap_socket(raw, server_hostname="end.example.com") as inside,
    ):
        assert inside.recv(100) == b"hello from first\n"


def test_connections_are_shared_by_weight(edge: Edge) -> None:
    count, share = 200, 0.25
    found: Counter[bytes] = Counter()
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", edge.ports[TCP]), timeout=20) as connection:
            found[connection.recv(100)] += 1
    assert set(found) == {b"hello from first\n", b"hello from second\n"}
    # Five sigma of the binomial distribution.
    assert abs(found[b"hello from second\n"] - count * share) < 5 * (count * share * (1 - share)) ** 0.5


def test_datagrams_reach_both_services_and_a_session_stays(edge: Edge) -> None:
    found: Counter[bytes] = Counter()
    for _ in range(64):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(20)
            client.connect(("127.0.0.1", edge.ports[UDP]))
            names = set()
            for text in (b"one", b"two"):
                client.send(text)
                name, _, echoed = client.recv(100).partition(b" ")
                assert echoed == text
                names.add(name)
            assert len(names) == 1
            found.update(names)
    assert set(found) == {b"near", b"far"}


def test_a_policy_makes_the_gateway_talk_tls_and_show_its_certificate(edge: Edge) -> None:
    before = len(edge.inner.names)
    reply = edge.plain().ask("/sound")
    assert (reply.status, reply.body["name"]) == (200, "inner")
    assert set(edge.inner.names[before:]) == {"sound.example.com"}


@pytest.mark.parametrize(("path", "status"), [("/misnamed", 503), ("/unproven", 500)])
def test_a_backend_that_proves_nothing_is_not_called(edge: Edge, path: str, status: int) -> None:
    assert edge.plain().ask(path).status == status
    assert edge.inner.seen[path] == 0


def test_http3_is_offered_and_spoken(edge: Edge) -> None:
    port = edge.ports[HTTPS]
    reply = edge.https(HTTPS, "a.example.com").ask(host="a.example.com")
    assert reply.headers["alt-svc"] == f'h3=":{port}"; ma=86400'
    assert "alt-svc" not in edge.https(MUTUAL, "a.example.com", edge.people.issue("x")).ask().headers
    local = free_port()
    with (
        short_directory("weft-h3-") as directory,
        running_envoy(directory, http3_client(local, port, "a.example.com", edge.authority)) as client,
    ):
        assert Connection(("127.0.0.1", local)).ask("/by/quic", host="a.example.com").status == 200
        assert client.stat("cluster.edge.upstream_cx_http3_total") == 1
    (line,) = edge.envoy.requests(path="/by/quic")
    assert line["protocol"] == "HTTP/3"
