"""``defaultConfig`` at a real gateway: what requests and answers look like, and how long they may take."""

from __future__ import annotations

import http.client
import json
import socketserver
from collections.abc import Iterator
from typing import Any

import pytest

from tests.envoy.mesh import run_compiled
from tests.support.backend import HttpBackend, serving
from tests.support.certificates import TestAuthority
from tests.support.compiled import world
from tests.support.envoy import Envoy
from tests.support.ports import free_port
from weft import ir
from weft.names import ProxyName

RESOURCES = """
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {{name: default, namespace: istio-system}}
spec:
  outboundClusterStatName: "%SERVICE_NAME%"
  defaultConfig:
    proxyHeaders:
      server: {{value: shop}}
      requestId: {{disabled: true}}
      attemptCount: {{disabled: true}}
      envoyDebugHeaders: {{disabled: true}}
      preserveHttp1HeaderCase: true
      xForwardedHost: {{enabled: true}}
      xForwardedPort: {{enabled: true}}
    connectionSettings:
      httpHeadersWithUnderscoresAction: HEADERS_WITH_UNDERSCORES_DROP_HEADER
      httpPathWithEscapedSlashesAction: UNESCAPE_AND_REDIRECT
---
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
spec:
  hosts: [web.example]
  gateways: [edge]
  http:
  - match: [{{uri: {{prefix: /raw}}}}]
    route: [{{destination: {{host: raw.test}}}}]
  - match: [{{uri: {{prefix: /short}}}}]
    timeout: 0.3s
    retries: {{attempts: 0}}
    route: [{{destination: {{host: web.test}}}}]
  - rewrite: {{authority: inner.example}}
    retries: {{attempts: 0}}
    route: [{{destination: {{host: web.test}}}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: raw, namespace: default}}
spec:
  hosts: [raw.test]
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {raw}}}]
  location: MESH_EXTERNAL
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: web, namespace: default}}
spec:
  hosts: [web.test]
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {port}}}]
  location: MESH_EXTERNAL
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1}}]
"""


class _Raw(socketserver.BaseRequestHandler):
    """Answers with the head of the request, as it was written."""

    def handle(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head and (data := self.request.recv(65536)):
            head += data
        self.request.sendall(
            b"HTTP/1.1 200 OK\r\nX-Mixed-Case: yes\r\nContent-Length: %d\r\n\r\n%s" % (len(head), head)
        )


class _RawServer(socketserver.ThreadingTCPServer):
    daemon_threads = True


@pytest.fixture(scope="module")
def edge() -> Iterator[tuple[int, Envoy]]:
    """The gateway's port, and the gateway."""
    with (
        serving(HttpBackend("127.0.0.1", 0, "web")) as web,
        serving(_RawServer(("127.0.0.1", 0), _Raw)) as raw,
    ):
        port = free_port()
        resources = RESOURCES.format(port=web.server_address[1], raw=raw.server_address[1])
        identity = ir.ProxyIdentity(
            name=ProxyName("router", "127.0.0.1", "edge", "default"), service_account="edge",
            labels=(("istio", "ingressgateway"),), port_map=((80, port),),
            attachment=ir.Attachment(capture=ir.Capture.NONE),
        )  # fmt: skip
        with run_compiled(
            world(resources), identity, TestAuthority(), kept_stats=("cluster.web.test.",)
        ) as envoy:
            yield port, envoy


def ask(port: int, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to a request for web.example."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        sent = {name.replace("__", "-"): value for name, value in headers.items()}
        connection.request("GET", path, headers={"host": "web.example", **sent})
        response = connection.getresponse()
        return response.status, dict(response.headers), response.read()
    finally:
        connection.close()


def test_headers_that_the_proxy_makes(edge: tuple[int, Envoy]) -> None:
    port, _ = edge
    status, headers, body = ask(port, "/", x_mark="1", x__user="me")
    seen: dict[str, Any] = json.loads(body)["headers"]
    assert (status, headers["Server"]) == (200, "shop")  # in the backend's own spelling
    assert "x-envoy-upstream-service-time" not in {name.lower() for name in headers}
    assert seen["host"] == "inner.example"
    assert seen["x-forwarded-host"] == "web.example"
    assert seen["x-forwarded-port"] == str(port)
    assert seen["x-user"] == "me"
    absent = {"x_mark", "x-request-id", "x-envoy-attempt-count", "x-envoy-expected-rq-timeout-ms"}
    assert not absent & seen.keys()


def test_names_of_headers_keep_their_case(edge: tuple[int, Envoy]) -> None:
    _, headers, body = ask(edge[0], "/raw", X__Trace__ID="7")
    assert b"\r\nX-Trace-ID: 7\r\n" in body
    assert "X-Mixed-Case" in headers


def test_escaped_slashes_are_sent_back(edge: tuple[int, Envoy]) -> None:
    status, headers, _ = ask(edge[0], "/a%2Fb")
    assert (status, headers["location"]) == (307, "/a/b")


def test_a_cluster_has_the_name_that_was_asked_for_in_statistics(edge: tuple[int, Envoy]) -> None:
    ask(edge[0], "/")
    assert "cluster.web.test.upstream_cx_total" in edge[1].admin(
        "/stats?filter=^cluster.web.test.upstream_cx_total"
    )


@pytest.mark.parametrize(
    ("path", "deadline", "status"),
    [
        ("/?delay=3", "100m", "14"),  # the client's own
        ("/short?delay=3", "20S", "14"),  # not beyond the route's
        ("/", "20S", None),
        ("/", "never", None),
    ],
)
def test_a_deadline_of_grpc_counts_up_to_the_route_s(
    edge: tuple[int, Envoy], path: str, deadline: str, status: str | None
) -> None:
    sent = {"content__type": "application/grpc", "grpc__timeout": deadline}
    _, headers, _ = ask(edge[0], path, **sent)
    assert headers.get("grpc-status") == status
