"""Applications that use ``http_proxy``: the mesh's hosts, hosts that it does not know, and tunnels."""

from __future__ import annotations

import http.client
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from tests.envoy.mesh import run_compiled
from tests.support.backend import HttpBackend, TcpBackend, serving
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
spec: {{accessLogFile: access.log, accessLogEncoding: JSON, outboundTrafficPolicy: {{mode: {mode}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: reviews, namespace: default}}
spec:
  selector: {{app: reviews}}
  ports: [{{name: http, port: 9080}}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: reviews-v1, namespace: default}}
spec:
  address: {address}
  labels: {{app: reviews}}
  ports: {{http: {port}}}
---
apiVersion: v1
kind: Service
metadata: {{name: ledger, namespace: default}}
spec:
  selector: {{app: ledger}}
  ports: [{{name: tcp, port: 5432}}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: ledger-v1, namespace: default}}
spec:
  address: {tcp_address}
  labels: {{app: ledger}}
  ports: {{tcp: {tcp_port}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: anywhere, namespace: default}}
spec:
  hosts: [localhost]
  ports: [{{number: {port}, name: http, protocol: HTTP}}]
  resolution: NONE
"""


@dataclass(frozen=True, slots=True)
class Client:
    """An application with ``http_proxy``, and what it may find outside."""

    proxy: tuple[str, int]
    web: tuple[str, int]
    tcp: tuple[str, int]
    envoy: Envoy

    def get(self, url: str) -> tuple[int, str]:
        """As curl does it: the whole URL in the request line. The status, and the answer."""
        connection = http.client.HTTPConnection(*self.proxy, timeout=20)
        connection.request("GET", url, headers={"host": url.split("/")[2]})
        response = connection.getresponse()
        return response.status, response.read().decode()

    def tunnel(self, authority: str) -> tuple[str, socket.socket]:
        """CONNECT; the status line, and what comes behind it."""
        connection = socket.create_connection(self.proxy, timeout=20)
        connection.sendall(f"CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = connection.recv(1)
            assert byte, head
            head += byte
        return head.decode().split("\r\n")[0], connection


@contextmanager
def client(mode: str) -> Iterator[Client]:
    address = f"127.{random.randint(16, 250)}.{random.randint(0, 250)}.1"
    authority = TestAuthority()
    with ExitStack() as stack:
        web = stack.enter_context(serving(HttpBackend("127.0.0.1", 0, "web")))
        tcp = stack.enter_context(serving(TcpBackend(address, 0, "tcp")))
        port = free_port()
        identity = ir.ProxyIdentity(
            name=ProxyName("sidecar", address, "app", "default"),
            service_account="app",
            attachment=ir.Attachment(
                capture=ir.Capture.PROXY_ENV,
                outbound_address=address,
                inbound_address=address,
                http_proxy_port=port,
            ),
        )
        outside = (address, int(tcp.server_address[1]))
        text = RESOURCES.format(
            mode=mode,
            address="127.0.0.1",
            port=web.server_port,
            tcp_address=outside[0],
            tcp_port=outside[1],
        )
        envoy = stack.enter_context(run_compiled(world(text), identity, authority))
        yield Client((address, port), ("127.0.0.1", web.server_port), outside, envoy)


@pytest.fixture(scope="module")
def open_mesh() -> Iterator[Client]:
    with client("ALLOW_ANY") as made:
        yield made


@pytest.fixture(scope="module")
def closed_mesh() -> Iterator[Client]:
    with client("REGISTRY_ONLY") as made:
        yield made


def test_a_service_of_the_mesh(open_mesh: Client) -> None:
    assert open_mesh.get("http://reviews:9080/mesh")[0] == 200
    (line,) = open_mesh.envoy.requests(path="/mesh")
    assert line["upstream_cluster"].startswith("outbound|9080||reviews.")


def test_a_host_that_the_mesh_does_not_know(open_mesh: Client) -> None:
    host, port = open_mesh.web
    status, body = open_mesh.get(f"http://{host}:{port}/outside?status=404")
    assert status == 404
    assert '"name": "web"' in body
    (line,) = open_mesh.envoy.requests(path="/outside?status=404")
    assert line["upstream_cluster"].startswith("PassthroughCluster")
    assert line["upstream_host"] == f"{host}:{port}"


def test_a_host_whose_endpoints_nobody_lists(open_mesh: Client) -> None:
    port = open_mesh.web[1]
    assert open_mesh.get(f"http://localhost:{port}/named")[0] == 200
    (line,) = open_mesh.envoy.requests(path="/named")
    assert line["upstream_cluster"].startswith(f"outbound|{port}||localhost")


def test_a_host_that_does_not_exist(open_mesh: Client) -> None:
    assert open_mesh.get("http://nothing.invalid/")[0] == 503


def test_a_tunnel(open_mesh: Client) -> None:
    host, port = open_mesh.tcp
    status, connection = open_mesh.tunnel(f"{host}:{port}")
    assert status.split()[1] == "200"
    with connection, connection.makefile("rb") as lines:
        assert lines.readline() == b"hello from tcp\n"
        connection.sendall(b"\x16\x03 anything\n")
        assert lines.readline() == b"\x16\x03 anything\n"


def test_a_tunnel_to_a_service_of_the_mesh(closed_mesh: Client) -> None:
    status, connection = closed_mesh.tunnel("ledger.default:5432")
    assert status.split()[1] == "200"
    with connection, connection.makefile("rb") as lines:
        assert lines.readline() == b"hello from tcp\n"


def test_a_closed_mesh_lets_out_nothing_that_it_does_not_know(closed_mesh: Client) -> None:
    host, port = closed_mesh.web
    assert closed_mesh.get(f"http://{host}:{port}/")[0] == 502
    status, connection = closed_mesh.tunnel("{}:{}".format(*closed_mesh.tcp))
    connection.close()
    assert status.split()[1] == "502"
    assert closed_mesh.get(f"http://localhost:{port}/")[0] == 200
