"""RateLimits on a real gateway: by caller, by path, for all replicas together, as a shadow, by a service."""

from __future__ import annotations

import http.client
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent import futures
from contextlib import ExitStack, contextmanager

import grpc
import pytest

from tests.envoy.mesh import run_compiled
from tests.support.backend import HttpBackend, serving
from tests.support.certificates import TestAuthority
from tests.support.compiled import world
from tests.support.envoy import Envoy
from tests.support.ports import free_port
from weft import ir
from weft.names import ProxyName
from weft.protos import ratelimit_service_v3 as protocol

EDGE = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec:
  hosts: ["*"]
  gateways: [edge]
  http: [{directResponse: {status: 200, body: {string: fine}}}]
"""
LIMITS = """
---
apiVersion: weft.dev/v1alpha1
kind: RateLimit
metadata: {name: limits, namespace: default}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  limits:
  - name: users
    requests: 3
    interval: 1h
    match: {path: {prefix: /api/}}
    per: [{header: x-user}]
  - name: login
    requests: 2
    interval: 1h
    match: {path: {exact: /login}, methods: [POST]}
    per: [{source: IP}]
  - name: together
    requests: 8
    interval: 1h
    match: {path: {exact: /together}}
---
apiVersion: weft.dev/v1alpha1
kind: RateLimit
metadata: {name: tried, namespace: default}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  mode: SHADOW
  limits:
  - {name: all, requests: 1, interval: 1h, match: {path: {exact: /tried}}}
"""


@contextmanager
def edge(resources: str, *replicas: str) -> Iterator[tuple[int, Envoy]]:
    """The gateway's port, and its Envoy."""
    port = free_port()
    identity = ir.ProxyIdentity(
        name=ProxyName("router", "127.0.0.1", "edge", "default"), service_account="edge",
        labels=(("istio", "ingressgateway"),), port_map=((80, port),),
        attachment=ir.Attachment(capture=ir.Capture.NONE),
    )  # fmt: skip
    with run_compiled(world(resources), identity, TestAuthority(), replicas=replicas) as envoy:
        yield port, envoy


@pytest.fixture(scope="module")
def limited() -> Iterator[tuple[int, Envoy]]:
    """A gateway that keeps the limits, one of two replicas."""
    with edge(EDGE + LIMITS, "127.0.0.1", "127.0.0.2") as running:
        yield running


def ask(
    port: int, path: str, headers: Mapping[str, str] | None = None, method: str = "GET"
) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, headers=dict(headers or {}))
        response = connection.getresponse()
        response.read()
        return response.status, {key.lower(): value for key, value in response.headers.items()}
    finally:
        connection.close()


def statuses(
    count: int, port: int, path: str, headers: Mapping[str, str] | None = None, **more: str
) -> Counter[int]:
    """How often each status was the answer."""
    return Counter(ask(port, path, headers, **more)[0] for _ in range(count))


def test_each_caller_has_a_count_of_its_own_and_those_without_a_name_share_one(
    limited: tuple[int, Envoy],
) -> None:
    port, _ = limited
    # Two replicas: one request weighs as much as two, and a second one is all that three allow.
    for who in ({"x-user": "ann"}, {"x-user": "bob"}, {}):
        assert statuses(5, port, "/api/items?q=1", who) == {200: 1, 429: 4}
    assert statuses(5, port, "/apis", {"x-user": "ann"}) == {200: 5}


def test_a_refusal_tells_the_limit_and_when_to_come_back(limited: tuple[int, Envoy]) -> None:
    port, _ = limited
    status, headers = ask(port, "/api/x", {"x-user": "cid"})
    assert (status, headers["x-ratelimit-limit"]) == (200, "3")
    status, headers = ask(port, "/api/x", {"x-user": "cid"})
    assert status == 429
    assert int(headers["retry-after"]) > 0
    assert "x-ratelimit-limit" not in ask(port, "/elsewhere")[1]


def test_only_requests_that_match_are_counted(limited: tuple[int, Envoy]) -> None:
    port, _ = limited
    assert statuses(5, port, "/login") == {200: 5}
    assert statuses(5, port, "/login/x", method="POST") == {200: 5}
    assert statuses(3, port, "/login?next=/", method="POST") == {200: 1, 429: 2}


def test_a_limit_for_all_replicas_is_divided_among_them(limited: tuple[int, Envoy]) -> None:
    port, _ = limited
    assert statuses(8, port, "/together") == {200: 4, 429: 4}


def test_a_shadow_refuses_nothing_and_counts_what_it_would(limited: tuple[int, Envoy]) -> None:
    port, envoy = limited
    assert statuses(4, port, "/tried") == {200: 4}
    name = "ratelimit.default.tried.http_local_rate_limit"
    assert envoy.stat(f"{name}.rate_limited") == 4  # alone it may have half a request an hour
    assert envoy.stat(f"{name}.enforced") == 0


SERVICE = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: default}}
spec:
  selector: {{istio: ingressgateway}}
  servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ["*"]}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: web, namespace: default}}
spec: {{hosts: ["*"], gateways: [edge], http: [{{route: [{{destination: {{host: web.example}}}}]}}]}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: web, namespace: default}}
spec:
  hosts: [web.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {web}}}]
  endpoints: [{{address: 127.0.0.1}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: limits, namespace: default}}
spec:
  hosts: [limits.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{number: 8081, name: grpc, protocol: GRPC, targetPort: {port}}}]
  endpoints: [{{address: 127.0.0.1}}]
---
apiVersion: weft.dev/v1alpha1
kind: RateLimit
metadata: {{name: asked, namespace: default}}
spec:
  selector: {{matchLabels: {{istio: ingressgateway}}}}
  limits:
  - {{name: all, requests: 1, match: {{path: {{prefix: /api}}}}, per: [{{header: x-user}}]}}
  service: {{host: limits.example, port: 8081, domain: shop, timeout: 5s, failOpen: false}}
"""


class Counting:
    """Envoy's rate limit protocol: two requests for each caller."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[tuple[str, str], ...]]] = []

    def handler(self) -> grpc.GenericRpcHandler:
        """For a gRPC server."""
        method = grpc.unary_unary_rpc_method_handler(self._answer, protocol.RateLimitRequest.FromString)
        service = "envoy.service.ratelimit.v3.RateLimitService"
        return grpc.method_handlers_generic_handler(service, {"ShouldRateLimit": method})

    def _answer(self, request: protocol.RateLimitRequest, context: grpc.ServicerContext) -> bytes:
        (descriptor,) = request.descriptors
        entries = tuple((entry.key, entry.value) for entry in descriptor.entries)
        self.asked.append((request.domain, entries))
        code = protocol.RateLimitResponse.Code
        many = self.asked.count((request.domain, entries)) > 2
        return protocol.RateLimitResponse(
            overall_code=code.OVER_LIMIT if many else code.OK
        ).SerializeToString()


def test_a_service_that_counts_is_asked_and_obeyed() -> None:
    counting = Counting()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((counting.handler(),))
    with ExitStack() as stack:
        stack.callback(lambda: server.stop(0).wait())
        web = stack.enter_context(serving(HttpBackend("127.0.0.1", 0, "web"))).server_address[1]
        resources = SERVICE.format(port=server.add_insecure_port("127.0.0.1:0"), web=web)
        server.start()
        port, _ = stack.enter_context(edge(resources))
        assert statuses(3, port, "/api", {"x-user": "ann"}) == {200: 2, 429: 1}
        assert statuses(2, port, "/api", {"x-user": "bob"}) == {200: 2}
        assert statuses(2, port, "/free") == {200: 2}
        assert set(counting.asked) == {
            ("shop", (("limit", "all"), ("matched", "yes"), ("caller0", who))) for who in ("ann", "bob")
        }
        server.stop(0).wait()
        assert ask(port, "/api", {"x-user": "cid"})[0] == 500  # it may not be left out
