"""HTTPRoutes and GRPCRoutes, from YAML to traffic: at a gateway, and in the mesh through a client's sidecar."""

# ruff: noqa: E501  (resources stand on one line)

from __future__ import annotations

import math
import random
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tests.envoy.mesh import Client, Running, run_compiled
from tests.support.backend import HttpBackend, serving
from tests.support.certificates import TestAuthority
from tests.support.dial import Connection, Reply
from tests.support.envoy import wait_until
from tests.support.ports import free_port
from weft import ir
from weft.cli.documents import read_resources, refuse_errors
from weft.compile.world import World
from weft.names import ProxyName

VIP = "10.96.0.20"
SERVICES = """
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec: {{clusterIP: {vip}, selector: {{app: {name}}}, ports: [{{name: {kind}, port: 9080}}]}}
---
"""
WORKLOAD = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {name}-{number}, namespace: default}}
spec: {{address: {address}, labels: {{app: {name}}}, ports: {{{kind}: {port}}}}}
---
"""
ROUTES = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: default}
spec:
  gatewayClassName: weft
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: default}
spec:
  parentRefs: [{name: edge}]
  hostnames: [web.example.com]
  rules:
  - matches: [{path: {value: /half}}]
    backendRefs: [{name: one, port: 9080}, {name: gone, port: 9080}, {name: two, port: 9080, weight: 0}]
  - matches: [{path: {value: /none}}]
    backendRefs: [{name: one, port: 9080, weight: 0}]
  - matches: [{path: {value: /shares}}]
    backendRefs:
    - {name: one, port: 9080, weight: 3, filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]}
    - {name: two, port: 9080, filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /new}, statusCode: 307}}]}
  - matches: [{path: {value: /edited}}]
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: 50%}], add: [{name: x-b, value: rule}], remove: [x-c]}}
    backendRefs:
    - {name: one, port: 9080, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-b, value: own}]}}, {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: x-by, value: one}]}}]}
    - {name: two, port: 9080}
  - matches: [{path: {value: /copied}}]
    filters:
    - {type: RequestMirror, requestMirror: {backendRef: {name: two, port: 9080}}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: gone, port: 9080}}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: three, port: 9080}, fraction: {numerator: 1, denominator: 4}}}
    backendRefs: [{name: one, port: 9080}]
  - matches: [{path: {value: /cors}}]
    backendRefs:
    - {name: one, port: 9080, filters: [{type: CORS, cors: {allowOrigins: ["https://*.example.com"], allowMethods: ["*"], allowHeaders: ["*"], allowCredentials: true}}]}
  - matches: [{path: {value: /kept}}]
    sessionPersistence: {cookie: {name: at}}
    backendRefs: [{name: one, port: 9080}, {name: two, port: 9080}]
  - matches: [{path: {value: /pinned}}]
    sessionPersistence: {type: Header, header: {name: x-at}}
    backendRefs: [{name: two, port: 9080}]
  - matches: [{path: {value: /slow}}]
    timeouts: {backendRequest: 300ms}
    backendRefs: [{name: one, port: 9080}]
  - matches: [{path: {value: /tried}}]
    retry: {attempts: 2, codes: [503]}
    backendRefs: [{name: three, port: 9080}]
  - matches: [{path: {value: /late}}]
    retry: {attempts: 2}
    timeouts: {request: 20s, backendRequest: 300ms}
    backendRefs: [{name: three, port: 9080}]
  - matches: [{path: {value: /unknown}}]
    filters: [{type: ExtensionRef, extensionRef: {group: x.io, kind: Filter, name: f}}]
    backendRefs: [{name: one, port: 9080}]
  - matches: [{path: {type: RegularExpression, value: "/(a"}}, {path: {value: /sound}}]
    backendRefs: [{name: one, port: 9080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls, namespace: default}
spec:
  parentRefs: [{name: edge}]
  hostnames: [grpc.example.com]
  rules:
  - matches: [{method: {service: shop.Orders}}]
    backendRefs: [{name: calls-one, port: 9080}]
  - matches: [{method: {service: shop.Orders, method: Get}}, {method: {method: Ping}}]
    backendRefs: [{name: calls-two, port: 9080}]
  - matches: [{method: {service: shop.Gone}}]
    backendRefs: [{name: gone, port: 9080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: producer, namespace: default}
spec:
  parentRefs: [{group: "", kind: Service, name: one}]
  rules:
  - matches: [{path: {value: /two}}]
    filters: [{type: URLRewrite, urlRewrite: {hostname: inner.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /in}}}]
    backendRefs: [{name: two, port: 9080}]
  - matches: [{path: {value: /gone}}]
    backendRefs: [{name: gone, port: 9080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: consumer, namespace: apart}
spec:
  parentRefs: [{group: "", kind: Service, name: one, namespace: default, port: 9080}]
  rules:
  - backendRefs: [{name: three, namespace: default, port: 9080}]
"""


class _Calls(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers every call with its server's name."""

    def __init__(self, name: str) -> None:
        self._handler = grpc.unary_unary_rpc_method_handler(lambda request, context: name.encode())

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return self._handler


@contextmanager
def _calls(name: str, address: str) -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(4), handlers=(_Calls(name),))
    port = server.add_insecure_port(f"{address}:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


@dataclass(frozen=True, slots=True)
class Site:
    edge: tuple[str, int]
    backends: dict[str, HttpBackend]
    near: Client
    apart: Client

    def ask(self, path: str, method: str = "GET", **headers: str) -> Reply:
        return Connection(self.edge).ask(path, method, host="web.example.com", **headers)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    base = f"127.{random.randint(16, 250)}.{random.randint(0, 250)}"
    text = ROUTES + "---\n"
    backends: dict[str, HttpBackend] = {}
    authority = TestAuthority()
    with ExitStack() as stack:
        for number, name in enumerate(("one", "two", "three")):
            text += SERVICES.format(name=name, kind="http", vip=f"10.96.0.2{number}")
            for copy in range(2):
                address = f"{base}.{number * 2 + copy + 1}"
                backend = stack.enter_context(serving(HttpBackend(address, 0, f"{name}-{copy}")))
                backends[backend.name] = backend
                port = backend.server_address[1]
                text += WORKLOAD.format(name=name, number=copy, kind="http", address=address, port=port)
        for name in ("calls-one", "calls-two"):
            port = stack.enter_context(_calls(name, "127.0.0.1"))
            text += SERVICES.format(name=name, kind="grpc", vip="None")
            text += WORKLOAD.format(name=name, number=0, kind="grpc", address="127.0.0.1", port=port)
        path: Path = tmp_path_factory.mktemp("routes") / "routes.yaml"
        path.write_text(text)
        resources, problems = read_resources([str(path)])
        refuse_errors(problems)
        world = World.build(resources)
        edge = free_port()
        router = ir.ProxyIdentity(
            name=ProxyName("router", "127.0.0.1", "edge", "default"),
            service_account="edge",
            labels=(("gateway.networking.k8s.io/gateway-name", "edge"),),
            attachment=ir.Attachment(capture=ir.Capture.NONE),
            port_map=((80, edge),),
        )
        stack.enter_context(run_compiled(world, router, authority, faulty=True))
        clients = {}
        for number, namespace in enumerate(("default", "apart"), 201):
            outbound = free_port()
            attachment = ir.Attachment(
                capture=ir.Capture.SECCOMP,
                outbound_address="127.0.0.1",
                outbound_port=outbound,
                inbound_address=f"{base}.{number}",
                app_address=f"{base}.{number + 20}",
            )
            identity = ir.ProxyIdentity(
                name=ProxyName("sidecar", f"{base}.{number}", "client", namespace),
                service_account="client",
                attachment=attachment,
            )
            envoy = stack.enter_context(run_compiled(world, identity, authority, faulty=True))
            clients[namespace] = Client(Running(envoy, ("127.0.0.1", outbound)))
        yield Site(("127.0.0.1", edge), backends, clients["default"], clients["apart"])


def _count(site: Site, path: str) -> Counter[str]:
    """Requests at a path by service."""
    found: Counter[str] = Counter()
    for name, backend in site.backends.items():
        found[name.partition("-")[0]] += backend.seen[path]
    return found


def _near(found: int, of: int, share: float) -> bool:
    return abs(found - of * share) <= 4 * math.sqrt(of * share * (1 - share))


def test_a_backend_that_is_not_there_has_its_share_of_errors(site: Site) -> None:
    count = 200
    statuses = Counter(site.ask("/half").status for _ in range(count))
    assert set(statuses) == {200, 500}
    assert _near(statuses[500], count, 0.5), statuses
    assert _count(site, "/half") == {"one": statuses[200], "two": 0, "three": 0}
    assert site.ask("/none").status == 500


def test_shares_with_filters_of_their_own(site: Site) -> None:
    count = 200
    replies = [site.ask("/shares/x?q=1") for _ in range(count)]
    redirected = [reply for reply in replies if reply.status == 307]
    assert {reply.headers["location"] for reply in redirected} == {"http://web.example.com/new?q=1"}
    assert _near(len(redirected), count, 0.25), len(redirected)
    assert {reply.body["path"] for reply in replies if reply.status == 200} == {"/x?q=1"}


def test_a_rules_headers_then_a_backends(site: Site) -> None:
    seen: dict[str, tuple[list[str], str | None]] = {}
    while len(seen) < 2:  # both get half of the requests
        reply = site.ask("/edited", x_b="client", x_c="secret")
        headers = reply.body["headers"]
        assert (headers["x-a"], "x-c" in headers) == ("50%", False)
        values = [value for name, value in reply.body["fields"] if name == "x-b"]
        seen[reply.body["name"].partition("-")[0]] = (values, reply.headers.get("x-by"))
    assert seen == {"one": (["own"], "one"), "two": (["client", "rule"], None)}


def test_copies(site: Site) -> None:
    count = 80
    for _ in range(count):
        assert site.ask("/copied").body["name"].startswith("one")
    wait_until(lambda: _count(site, "/copied")["two"] == count)
    assert _near(_count(site, "/copied")["three"], count, 0.25)


def test_cross_origin_requests(site: Site) -> None:
    origin = "https://a.example.com"
    asked = {"access_control_request_method": "PUT", "access_control_request_headers": "x-a"}
    allowed = site.ask("/cors", "OPTIONS", origin=origin, **asked)
    assert allowed.headers["access-control-allow-origin"] == origin
    assert allowed.headers["access-control-allow-methods"] == "PUT"
    assert allowed.headers["access-control-allow-headers"] == "x-a"
    assert allowed.headers["access-control-max-age"] == "5"
    refused = site.ask("/cors", "OPTIONS", origin="https://example.org", **asked)
    assert "access-control-allow-origin" not in refused.headers
    assert _count(site, "/cors").total() == 0


def test_a_session_keeps_its_backend_and_its_endpoint(site: Site) -> None:
    homes = set()
    for _ in range(6):
        connection = Connection(site.edge)
        connection.request("GET", "/kept", headers={"host": "web.example.com"})
        answer = connection.getresponse()
        answer.read()
        cookies = [
            value.partition(";")[0] for name, value in answer.getheaders() if name.lower() == "set-cookie"
        ]
        assert len(cookies) == 2
        names = {site.ask("/kept", cookie="; ".join(cookies)).body["name"] for _ in range(10)}
        assert len(names) == 1
        homes |= names
    assert homes


def test_a_session_by_header(site: Site) -> None:
    first = site.ask("/pinned")
    names = {site.ask("/pinned", x_at=first.headers["x-at"]).body["name"] for _ in range(10)}
    assert names == {first.body["name"]}


def test_a_try_that_takes_too_long(site: Site) -> None:
    assert site.ask("/slow?delay=5").status == 504


def test_what_is_tried_again(site: Site) -> None:
    key = uuid.uuid4().hex
    assert site.ask(f"/tried?status=503&key={key}").status == 503
    assert _count(site, "/tried")["three"] == 3
    assert site.ask(f"/late/broken?break=1&key={key}").status == 200  # each of two breaks off once
    assert _count(site, "/late/broken")["three"] == 3
    assert site.ask("/late?delay=5").status == 504
    wait_until(lambda: _count(site, "/late")["three"] == 3)


def test_unknown_filters_answer_500_and_unsound_matches_nothing(site: Site) -> None:
    assert site.ask("/unknown").status == 500
    assert site.ask("/sound").status == 200
    assert site.ask("/a").status == 404


def _call(site: Site, method: str) -> str | grpc.StatusCode:
    options = (("grpc.default_authority", "grpc.example.com"),)
    with grpc.insecure_channel(f"{site.edge[0]}:{site.edge[1]}", options=options) as channel:
        try:
            answer: bytes = channel.unary_unary(method)(b"", timeout=20)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return answer.decode()


def test_calls(site: Site) -> None:
    assert _call(site, "/shop.Orders/List") == "calls-one"
    assert _call(site, "/shop.Orders/Get") == "calls-two"
    assert _call(site, "/any.Thing/Ping") == "calls-two"
    assert _call(site, "/any.Thing/Pong") == grpc.StatusCode.UNIMPLEMENTED
    assert _call(site, "/shop.Gone/Get") == grpc.StatusCode.UNAVAILABLE


def test_a_producers_route_in_the_mesh(site: Site) -> None:
    def ask(path: str) -> Reply:
        return Connection((VIP, 9080), through=site.near.address).ask(path, host="one:9080")

    reply = ask("/two/x")
    assert (reply.body["name"].partition("-")[0], reply.body["path"]) == ("two", "/in/x")
    assert reply.body["headers"]["host"] == "inner.example"
    assert ask("/gone").status == 500
    assert ask("/elsewhere").status == 404


def test_a_consumers_route_in_the_mesh(site: Site) -> None:
    reply = Connection((VIP, 9080), through=site.apart.address).ask("/two/x", host="one.default")
    assert (reply.body["name"].partition("-")[0], reply.body["path"]) == ("three", "/two/x")
