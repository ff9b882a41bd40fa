"""Somebody else decides: authorizers by gRPC and HTTP, asked by real gateways and sidecars."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.envoy.mesh import inbound, run_compiled, run_proxy, server_listener, spiffe
from tests.envoy.xds import Authority, Control, envoy
from tests.support.authorizers import GrpcAuthorizer, HttpAuthorizer, serving_grpc
from tests.support.backend import HttpBackend, TcpBackend, serving
from tests.support.certificates import TestAuthority
from tests.support.compiled import instance, service, world
from tests.support.dial import Connection, Reply, dial
from tests.support.edge_backends import pem_file
from tests.support.envoy import Envoy, wait_until
from tests.support.ports import free_port, free_ports
from weft import ir
from weft.analysis.explain.authorization import logged
from weft.compile.endpoints import endpoint_set
from weft.compile.proxy import compile_proxy
from weft.emit.bundle import emit
from weft.emit.endpoints import pack
from weft.names import ProxyName

PROXY = "sidecar~127.0.0.1~app.default~default.svc.cluster.local"
MESH_OFF = """
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {name: default, namespace: istio-system}
spec: {enableAutoMtls: false}
"""
HERE, THERE = "127.0.0.1", "127.0.0.2"
GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: default}
spec:
  selector: {istio: edge}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec: {hosts: ["*"], gateways: [edge], http: [{route: [{destination: {host: web}}]}]}
"""
API_GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: default}
spec: {gatewayClassName: weft, listeners: [{name: http, port: 80, protocol: HTTP}]}
"""
POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: default}
spec:
  action: CUSTOM
  provider: {name: authorizer}
  rules: [{to: [{operation: {notPaths: [/free]}}]}]
"""


@dataclass
class Ground:
    """What all proxies of these tests share: an application, and who decides about its requests."""

    web: HttpBackend
    grpc: GrpcAuthorizer
    http: HttpAuthorizer
    authority: TestAuthority
    resources: str
    lost: int
    """A port where nobody is."""


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with ExitStack() as stack:
        web = stack.enter_context(serving(HttpBackend(HERE, 0, "web")))
        by_grpc, by_http = GrpcAuthorizer(), stack.enter_context(serving(HttpAuthorizer()))
        grpc_port = stack.enter_context(serving_grpc(by_grpc))
        stack.callback(by_http.gate.set)
        authority, lost = TestAuthority(), free_port()
        # An authorizer in the mesh: its sidecar takes nothing but mutual TLS.
        guarded = free_port()
        listener = server_listener(guarded, grpc_port, strict=True)
        to_it = inbound(grpc_port, "authz", ir.UpstreamProtocol.HTTP2)
        stack.enter_context(run_proxy("authz", (listener,), clusters=(to_it,), authority=authority))
        resources = "---".join(
            (
                service("web"),
                instance("web", "web", HERE, account="", ports=f"{{http: {web.server_address[1]}}}"),
                service("bygrpc", 9000, port_name="grpc"),
                instance("bygrpc", "bygrpc", HERE, account="", ports=f"{{grpc: {grpc_port}}}"),
                service("byhttp", 8000),
                instance(
                    "byhttp", "byhttp", HERE, account="", ports=f"{{http: {by_http.server_address[1]}}}"
                ),
                service("meshed", 9000, port_name="grpc"),
                instance("meshed", "meshed", HERE, account="authz", ports=f"{{grpc: {guarded}}}"),
                service("lost", 9000, port_name="grpc"),
                instance("lost", "lost", HERE, account="", ports=f"{{grpc: {lost}}}"),
            )
        )
        yield Ground(web, by_grpc, by_http, authority, resources, lost)


@dataclass(frozen=True)
class Edge:
    """A gateway that runs."""

    envoy: Envoy
    port: int

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Reply:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        connection = Connection((HERE, self.port))
        connection.request(method, path, body=body, headers=named)
        response = connection.getresponse()
        answered = {key.lower(): value for key, value in response.getheaders()}
        return Reply(response.status, answered, response.read().decode())


@contextmanager
def edge(ground: Ground, *resources: str, labels: Mapping[str, str], faulty: bool = False) -> Iterator[Edge]:
    port = free_port()
    identity = ir.ProxyIdentity(
        name=ProxyName("router", HERE, "edge", "default"), service_account="edge",
        labels=tuple(labels.items()), port_map=((80, port),),
        attachment=ir.Attachment(capture=ir.Capture.NONE),
    )  # fmt: skip
    made = world(ground.resources, *resources)
    with run_compiled(made, identity, ground.authority, faulty=faulty) as envoy:
        yield Edge(envoy, port)


def provider(kind: str, **fields: object) -> str:
    """A MeshConfig with an authorizer."""
    spec = ", ".join(f"{key}: {value}" for key, value in fields.items())
    return f"""
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {{name: default, namespace: istio-system}}
spec:
  accessLogFile: access.log
  accessLogEncoding: JSON
  extensionProviders: [{{name: authorizer, {kind}: {{{spec}}}}}]
"""


@contextmanager
def custom(ground: Ground, kind: str, **fields: object) -> Iterator[Edge]:
    """An Istio gateway that asks about everything but ``/free``."""
    with edge(ground, provider(kind, **fields), GATEWAY, POLICY, labels={"istio": "edge"}) as made:
        yield made


def host(name: str) -> str:
    return f"{name}.default.svc.cluster.local"


# externalAuth of the Gateway API


def _rule(path: str, block: str) -> str:
    asked = f"{{type: ExternalAuth, externalAuth: {{{block}}}}}"
    to_web = "backendRefs: [{name: web, port: 80}]"
    return f"  - {{matches: [{{path: {{value: {path}}}}}], filters: [{asked}], {to_web}}}\n"


def _by(protocol: str, name: str, port: int, more: str = "", block: str = "") -> str:
    own = f"{protocol.lower()}: {{{block}}}"
    return f"protocol: {protocol}, {own}, backendRef: {{name: {name}, port: {port}}}{more}"


ROUTES = (
    """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: default}
spec:
  parentRefs: [{name: edge}]
  rules:
  - {matches: [{path: {value: /free}}], backendRefs: [{name: web, port: 80}]}
"""
    + _rule("/grpc", _by("GRPC", "bygrpc", 9000))
    + _rule("/some", _by("GRPC", "bygrpc", 9000, block="allowedHeaders: [X-Shown]"))
    + _rule("/body", _by("GRPC", "bygrpc", 9000, ", forwardBody: {maxSize: 8}"))
    + _rule("/http", _by("HTTP", "byhttp", 8000, block="path: /check, allowedHeaders: [X-Shown]"))
    + _rule("/user", _by("HTTP", "byhttp", 8000, block="allowedResponseHeaders: [X-User]"))
    + _rule("/mesh", _by("GRPC", "meshed", 9000))
    + _rule("/lost", _by("GRPC", "lost", 9000))
    + _rule("/gone", _by("GRPC", "gone", 9000))
)


@pytest.fixture(scope="module")
def routed(ground: Ground) -> Iterator[Edge]:
    labels = {"gateway.networking.k8s.io/gateway-name": "edge"}
    with edge(ground, API_GATEWAY, ROUTES, labels=labels, faulty=True) as made:
        yield made


def test_a_route_is_asked_about_and_its_neighbours_are_not(ground: Ground, routed: Edge) -> None:
    asked = len(ground.grpc.shown)
    assert routed.ask("/free", x_secret="s").body["headers"]["x-secret"] == "s"
    assert len(ground.grpc.shown) == asked
    reply = routed.ask("/grpc/a?q=1", x_secret="s", x_user="forged")
    assert (reply.status, reply.headers["x-decided"]) == (200, "by grpc")
    headers = reply.body["headers"]
    assert headers["x-user"] == "ann"
    assert "x-secret" not in headers
    shown = ground.grpc.shown[-1].attributes.request.http
    assert (shown.method, shown.path, shown.headers["x-secret"]) == ("GET", "/grpc/a?q=1", "s")


def test_a_refusal_is_the_authorizers_own(ground: Ground, routed: Edge) -> None:
    seen = ground.web.seen.total()
    reply = routed.ask("/grpc?decide=deny")
    assert (reply.status, reply.headers["x-why"], reply.text) == (401, "not you", "no entry")
    reply = routed.ask("/http?decide=deny")
    assert (reply.status, reply.text, reply.headers["set-cookie"]) == (401, "please log in", "seen=1")
    reply = routed.ask("/http?decide=login")
    assert (reply.status, reply.headers["location"]) == (302, "https://login.example/")
    assert ground.web.seen.total() == seen


def test_whoever_cannot_decide_refuses(ground: Ground, routed: Edge) -> None:
    seen = ground.web.seen.total()
    statuses = [routed.ask(path).status for path in ("/grpc?decide=error", "/http?decide=error", "/lost")]
    assert statuses == [403, 403, 403]
    assert routed.ask("/gone").status == 500
    assert ground.web.seen.total() == seen


def test_an_authorizer_by_http_sees_what_the_specification_says(ground: Ground, routed: Edge) -> None:
    sent = {"x_shown": "yes", "x_hidden": "yes", "authorization": "token", "host": "shop.example"}
    reply = routed.ask("/http/a?q=1", "POST", b"hello", **sent)
    method, path, headers, body = ground.http.shown[-1]
    assert (method, path, body) == ("POST", "/check/http/a?q=1", b"")
    assert (headers["host"], headers["content-length"]) == ("shop.example", "0")
    assert (headers["authorization"], headers["x-shown"]) == ("token", "yes")
    assert "x-hidden" not in headers
    assert reply.body["received"] == 5


def test_of_an_answer_all_goes_on_but_what_is_the_messages_own(ground: Ground, routed: Edge) -> None:
    reply = routed.ask("/http", "POST", b"hello", content_type="text/plain", host="shop.example")
    headers = reply.body["headers"]
    assert (headers["x-user"], headers["x-auth-team"], headers["x-internal"]) == ("ann", "blue", "for nobody")
    assert (headers["content-type"], headers["content-length"]) == ("text/plain", "5")
    assert headers["host"] == "shop.example"
    assert "x-forwarded-host" not in headers
    headers = routed.ask("/user").body["headers"]
    assert headers["x-user"] == "ann"
    assert "x-auth-team" not in headers


def test_an_authorizer_by_grpc_sees_the_headers_that_it_may(ground: Ground, routed: Edge) -> None:
    routed.ask("/some", x_shown="yes", x_hidden="yes", authorization="token")
    headers = ground.grpc.shown[-1].attributes.request.http.headers
    assert dict(headers) == {"x-shown": "yes"}


def test_a_body_is_shown_whole_or_refused(ground: Ground, routed: Edge) -> None:
    assert routed.ask("/body", "POST", b"12345678").body["received"] == 8
    assert ground.grpc.shown[-1].attributes.request.http.raw_body == b"12345678"
    asked = len(ground.grpc.shown)
    assert routed.ask("/body", "POST", b"123456789").status == 413
    assert len(ground.grpc.shown) == asked


def test_an_authorizer_in_the_mesh_is_asked_by_mutual_tls(routed: Edge) -> None:
    """Its sidecar takes nothing else."""
    assert routed.ask("/mesh").body["headers"]["x-user"] == "ann"
    assert routed.ask("/mesh?decide=deny").status == 401


def test_a_client_that_does_not_wait_harms_nobody(ground: Ground, routed: Edge) -> None:
    ground.grpc.gate.clear()
    ground.http.gate.clear()
    before = len(ground.grpc.shown) + len(ground.http.shown)
    for path in ("/grpc", "/http"):
        with socket.create_connection((HERE, routed.port), 20) as impatient:
            impatient.sendall(f"GET {path}?decide=hold HTTP/1.1\r\nhost: a\r\n\r\n".encode())
            before += 1
            wait_until(lambda: len(ground.grpc.shown) + len(ground.http.shown) == before, what="the question")  # noqa: B023
    ground.grpc.gate.set()
    ground.http.gate.set()
    assert routed.ask("/grpc").status == 200
    assert routed.ask("/http").status == 200


# CUSTOM policies with MeshConfig's providers


def test_a_provider_by_http_has_all_of_its_fields(ground: Ground) -> None:
    fields = {
        "service": host("byhttp"), "port": 8000, "timeout": "500ms", "pathPrefix": "/check",
        "statusOnError": '"503"', "includeRequestHeadersInCheck": '[x-*, "*-id", cookie]',
        "includeAdditionalHeadersInCheck": "{x-from: mesh}",
        "includeRequestBodyInCheck": "{maxRequestBytes: 8, allowPartialMessage: true}",
        "headersToUpstreamOnAllow": "[x-auth-*]", "headersToDownstreamOnAllow": "[set-cookie]",
        "headersToDownstreamOnDeny": "[x-user]",
    }  # fmt: skip
    with custom(ground, "envoyExtAuthzHttp", **fields) as gateway:
        asked = len(ground.http.shown)
        assert gateway.ask("/free").status == 200
        assert len(ground.http.shown) == asked

        sent = {"x_a": "1", "request_id": "2", "cookie": "c=3", "other": "4"}
        reply = gateway.ask("/a?q=1", "POST", b"0123456789", **sent)
        method, path, headers, body = ground.http.shown[-1]
        assert (method, path, body) == ("POST", "/check/a?q=1", b"01234567")
        assert {headers["x-a"], headers["request-id"], headers["cookie"]} == {"1", "2", "c=3"}
        assert headers["x-from"] == "mesh"
        assert "other" not in headers
        assert reply.headers["set-cookie"] == "seen=1"
        assert (reply.body["received"], reply.body["headers"]["x-auth-team"]) == (10, "blue")
        assert "x-user" not in reply.body["headers"]

        reply = gateway.ask("/a?decide=deny")
        assert (reply.status, reply.headers["x-user"]) == (401, "ann")
        assert "set-cookie" not in reply.headers
        assert gateway.ask("/a?decide=error").status == 503
        ground.http.gate.clear()
        assert gateway.ask("/a?decide=hold").status == 503
        ground.http.gate.set()
        (line,) = gateway.envoy.requests(path="/a?decide=deny")
        assert line["response_flags"] == "UAEX"
        told = logged(line)
        assert (told["decision"], told["provider"], told["policy"]) == ("deny", "authorizer", "default/ask")


def test_what_cannot_be_asked_passes_only_where_that_is_said(ground: Ground) -> None:
    with custom(ground, "envoyExtAuthzGrpc", service=host("lost"), port=9000, failOpen=True) as gateway:
        assert gateway.ask("/a").status == 200
    with custom(ground, "envoyExtAuthzGrpc", service=host("lost"), port=9000) as gateway:
        assert gateway.ask("/a").status == 403
        assert gateway.ask("/free").status == 200


def test_with_no_such_provider_what_the_rules_fit_is_refused(ground: Ground) -> None:
    with edge(ground, GATEWAY, POLICY, labels={"istio": "edge"}, faulty=True) as gateway:
        assert gateway.ask("/a").status == 403
        assert gateway.ask("/free").status == 200


BEHIND = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: ask, namespace: default}}
spec:
  action: CUSTOM
  provider: {{name: authorizer}}
  rules:
  - to: [{{operation: {{paths: [/asked*], ports: ["{http}"]}}}}]
  - to: [{{operation: {{ports: ["{tcp}"]}}}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: never, namespace: default}}
spec: {{action: DENY, rules: [{{to: [{{operation: {{paths: [/asked/never], ports: ["{http}"]}}}}]}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: both, namespace: default}}
spec:
  selector: {{app: both}}
  ports: [{{name: http, port: 80, targetPort: {http}}}, {{name: tcp, port: 81, targetPort: {tcp}}}]
"""


@dataclass(frozen=True)
class Sidecar:
    """A sidecar that asks, and the ports of its application."""

    envoy: Envoy
    http: int
    tcp: int


@pytest.fixture(scope="module")
def sidecar(ground: Ground) -> Iterator[Sidecar]:
    """Its application speaks HTTP, and bytes at another port; the sidecar has the same ports elsewhere."""
    http, tcp, outbound = free_ports(3)
    with serving(HttpBackend(THERE, http, "both")), serving(TcpBackend(THERE, tcp, "bytes")):
        body = "{maxRequestBytes: 2097152, allowPartialMessage: true, packAsBytes: true}"
        fields = {"service": host("bygrpc"), "port": 9000, "includeRequestBodyInCheck": body}
        asking = provider("envoyExtAuthzGrpc", **fields)
        made = world(ground.resources, asking, BEHIND.format(http=http, tcp=tcp))
        identity = ir.ProxyIdentity(
            name=ProxyName("sidecar", HERE, "both", "default"), service_account="both",
            labels=(("app", "both"),),
            attachment=ir.Attachment(
                capture=ir.Capture.SECCOMP, outbound_address=HERE, outbound_port=outbound,
                inbound_address=HERE, app_address=THERE,
            ),
        )  # fmt: skip
        with run_compiled(made, identity, ground.authority) as envoy:
            yield Sidecar(envoy, http, tcp)


def _mutual(ground: Ground, account: str, protocol: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=ground.authority.pem)
    context.set_alpn_protocols([protocol])
    with pem_file(ground.authority.issue(spiffe(account))) as pair:
        context.load_cert_chain(pair)
    return context


def test_an_authorizer_learns_who_calls_by_the_certificate(ground: Ground, sidecar: Sidecar) -> None:
    tls = _mutual(ground, "friend", "istio-http/1.1")
    reply = Connection((HERE, sidecar.http), tls=tls).ask("/asked")
    assert (reply.status, reply.body["headers"]["x-user"]) == (200, "ann")
    attributes = ground.grpc.shown[-1].attributes
    assert attributes.source.principal == spiffe("friend")
    assert attributes.destination.principal == spiffe("both")


def test_policies_of_the_mesh_come_after_it(ground: Ground, sidecar: Sidecar) -> None:
    asked = len(ground.grpc.shown)
    assert Connection((HERE, sidecar.http)).ask("/elsewhere").status == 200
    assert len(ground.grpc.shown) == asked
    assert Connection((HERE, sidecar.http)).ask("/asked?decide=deny").status == 401
    assert Connection((HERE, sidecar.http)).ask("/asked/never").status == 403
    assert len(ground.grpc.shown) == asked + 2


def test_much_of_a_body_is_shown_where_more_than_envoy_keeps_may_be(ground: Ground, sidecar: Sidecar) -> None:
    sent = bytes(range(256)) * 12_000  # 3 MB, of which the first 2 MiB are shown
    connection = Connection((HERE, sidecar.http))
    connection.request("POST", "/asked", body=sent)
    response = connection.getresponse()
    assert (response.status, f'"received": {len(sent)}' in response.read().decode()) == (200, True)
    shown = ground.grpc.shown[-1].attributes.request.http
    assert shown.raw_body == sent[: 2 << 20]


def test_connections_are_asked_about_when_the_client_speaks(ground: Ground, sidecar: Sidecar) -> None:
    tls = _mutual(ground, "friend", "istio")
    asked = len(ground.grpc.shown)
    with tls.wrap_socket(dial((HERE, sidecar.tcp))) as connection:
        assert connection.recv(100) == b"hello from bytes\n"
        connection.sendall(b"and to you")
        assert connection.recv(100) == b"and to you"
    (question,) = ground.grpc.shown[asked:]
    assert question.attributes.source.principal == spiffe("friend")
    assert question.attributes.destination.address.socket_address.port_value == sidecar.tcp
    ground.grpc.closed = True
    try:
        with tls.wrap_socket(dial((HERE, sidecar.tcp))) as connection:
            connection.recv(100)
            connection.sendall(b"and to you")
            with suppress(OSError):
                assert connection.recv(100) == b""
    finally:
        ground.grpc.closed = False
    rule = "istio-ext-authz-authorizer-ns[default]-policy[ask]-rule[1]"
    passed, refused = map(logged, sidecar.envoy.requests(2, consulted_policy=rule))
    assert (passed["decision"], refused["decision"]) == ("external", "deny")


async def test_connections_from_before_a_route_asks_do_not_get_past(tmp_path: Path) -> None:
    """They are served by a listener that lacks the authorizer's filter, until they end."""
    control, port = Control(Authority()), free_port()
    identity = ir.ProxyIdentity(
        name=ProxyName("router", HERE, "edge", "default"), port_map=((80, port),),
        labels=(("gateway.networking.k8s.io/gateway-name", "edge"),),
        attachment=ir.Attachment(capture=ir.Capture.NONE),
    )  # fmt: skip
    before = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: default}
spec:
  parentRefs: [{name: edge}]
  rules:
  - {matches: [{path: {value: /free}}], backendRefs: [{name: web, port: 80}]}
"""
    after = before + _rule("/asked", _by("GRPC", "lost", 9000))

    def publish(revision: int, routes: str, backend: int) -> None:
        of = world(
            MESH_OFF, API_GATEWAY, routes, service("web"), service("lost", 9000, port_name="grpc"),
            instance("web", "web", HERE, account="", ports=f"{{http: {backend}}}"),
        )  # fmt: skip
        made, problems = compile_proxy(of, identity)
        assert not problems
        sets = [endpoint_set(of, item.name) for item in made.clusters if item.discovery is ir.Discovery.EDS]
        control.store.publish_endpoints(None, {item.cluster: pack(item) for item in sets})
        control.store.publish(PROXY, emit(made), revision)

    def ask(connection: http.client.HTTPConnection, path: str) -> int:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status

    with serving(HttpBackend(HERE, 0, "web")) as web:
        async with control.running(), envoy(control, tmp_path) as proxy:
            publish(1, before, int(web.server_address[1]))
            await proxy.ready()
            await control.settled(1)
            old = http.client.HTTPConnection(HERE, port, timeout=20)
            assert await asyncio.to_thread(ask, old, "/free") == 200
            publish(2, after, int(web.server_address[1]))
            await control.settled(2)
            assert await asyncio.to_thread(ask, old, "/asked") == 404  # it has the routes of its time
            new = http.client.HTTPConnection(HERE, port, timeout=20)
            assert await asyncio.to_thread(ask, new, "/asked") == 403
            assert web.seen["/asked"] == 0
    assert control.record.refusals() == []
