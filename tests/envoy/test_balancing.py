"""Which endpoint gets a request: hashes, sessions, failures, places and limits, by a real Envoy from YAML."""

from __future__ import annotations

import random
import socketserver
import threading
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Final

import pytest

from tests.envoy.mesh import Client, Running, run_compiled
from tests.support.backend import HttpBackend, TcpBackend, serving
from tests.support.certificates import TestAuthority
from tests.support.dial import Reply, dial
from tests.support.envoy import wait_until
from tests.support.ports import free_port
from weft import ir
from weft.cli.documents import read_resources, refuse_errors
from weft.compile.world import World
from weft.names import ProxyName

PORT: Final = 8080
LINES: Final = 7000
TUNNEL: Final = 7001
EXTERNAL: Final = "240.240.1.1"
MESH: Final = """
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {name: default, namespace: istio-system}
spec: {accessLogFile: access.log, accessLogEncoding: JSON}
"""
SLICE: Final = """---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: default, labels: {istio.io/persistent-session: cart}}
spec: {ports: [{name: http, port: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, namespace: default, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [ENDPOINTS]
"""


def entry(
    name: str,
    endpoints: dict[str, str],
    policy: str,
    protocol: str = "HTTP",
    port: int = PORT,
    distribution: str = "Any",
) -> str:
    """A service outside the mesh with endpoints at localities, and its rule."""
    listed = ", ".join(f"{{address: {address}, locality: {place}}}" for address, place in endpoints.items())
    address = f"  addresses: [{EXTERNAL}]\n" if protocol == "TCP" else ""
    return (
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\n"
        f"metadata: {{name: {name}, namespace: default, "
        f"annotations: {{networking.istio.io/traffic-distribution: {distribution}}}}}\n"
        f"spec:\n  hosts: [{name}.example]\n{address}"
        f"  resolution: STATIC\n  ports: [{{number: {port}, name: p, protocol: {protocol}}}]\n"
        f"  endpoints: [{listed}]\n"
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n"
        f"metadata: {{name: {name}, namespace: default}}\n"
        f"spec: {{host: {name}.example, trafficPolicy: {policy}}}\n"
    )


class Proxy(socketserver.ThreadingTCPServer):
    """Takes CONNECT, says what it was asked for, and sends back what it gets."""

    allow_reuse_address = True
    daemon_threads = True


class _Connect(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        asked = self.rfile.readline().rstrip()
        while self.rfile.readline().strip():
            pass
        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n" + asked + b" ")
        while data := self.connection.recv(4096):
            self.wfile.write(data)


EJECT: Final = "baseEjectionTime: 1h, maxEjectionPercent: 100"


@dataclass(frozen=True, slots=True)
class Mesh:
    """``near``, ``near_too`` and ``far`` by the client's place; ``sick`` answers 503, ``odd`` 418."""

    client: Client
    backends: dict[str, HttpBackend]

    def ask(self, host: str, path: str = "/", **headers: str) -> Reply:
        """One request on a connection of its own."""
        connection = self.client.open(PORT)
        try:
            return connection.ask(path, host=host, **headers)
        finally:
            connection.close()

    def answered(self, host: str, count: int, **headers: str) -> Counter[str]:
        """Which backends answered, how often."""
        connection = self.client.open(PORT)
        try:
            replies = [connection.ask("/", host=host, **headers) for _ in range(count)]
        finally:
            connection.close()
        assert {reply.status for reply in replies} == {200}, replies
        return Counter(str(reply.body["name"]) for reply in replies)

    def gauge(self, host: str, name: str) -> int:
        """A statistic of a host's cluster; dots stand for the bars in its name."""
        return self.client.envoy.stat(f"cluster.outbound.{PORT}..{host}.{name}")

    def provoke(self, host: str) -> None:
        """Ask until an endpoint is set aside."""

        def set_aside() -> bool:
            self.ask(host)
            return self.gauge(host, "outlier_detection.ejections_active") > 0

        wait_until(set_aside, 30, f"an endpoint of {host} to be set aside")


def _replica(zone: str) -> ir.Endpoint:
    return ir.Endpoint(address="192.0.2.1", port=1, locality=ir.Locality(region="eu", zone=zone))


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    base = f"127.{random.randint(16, 250)}.{random.randint(0, 250)}"
    names = ("near", "near_too", "far", "sick", "odd", "slow")
    at = {name: f"{base}.{number}" for number, name in enumerate(names, 1)}
    near, far = at["near"], at["far"]
    three = {near: "eu/a", at["near_too"]: "eu/a", far: "us/a"}
    text = MESH + "".join(
        (
            entry("hashed", three, "{loadBalancer: {consistentHash: {httpHeaderName: x-user}}}"),
            entry(
                "baked",
                three,
                "{loadBalancer: {consistentHash: {httpCookie: {name: c, ttl: 60s}, maglev: {tableSize: 7}}}}",
            ),
            entry(
                "sick",
                {near: "eu/a", at["sick"]: "eu/a"},
                f"{{outlierDetection: {{consecutive5xxErrors: 2, {EJECT}}}}}",
            ),
            entry(
                "odd",
                {near: "eu/a", at["odd"]: "eu/a"},
                f"{{outlierDetection: {{outlierDetectionHttpErrorCodes: [418], {EJECT}}}}}",
            ),
            entry(
                "failover",
                {at["sick"]: "eu/a", far: "us/a"},
                f"{{outlierDetection: {{consecutive5xxErrors: 2, {EJECT}}}}}",
            ),
            entry(
                "shared",
                three,
                "{loadBalancer: {localityLbSetting: {distribute: [{from: eu/*, to: {us/*: 100}}]}}}",
            ),
            entry(
                "zoned",
                {near: "eu/a", at["slow"]: "eu/b", far: "us/a"},
                "{loadBalancer: {zoneAwareLbSetting: {minClusterSize: 1}}, outlierDetection: {}}",
            ),
            entry("close", three, "{loadBalancer: {simple: ROUND_ROBIN}}", distribution="PreferClose"),
            entry(
                "reporting",
                {near: "eu/a", at["near_too"]: "eu/a"},
                "{loadBalancer: {backendUtilization: {weightStabilizationPeriod: 0s}}}",
            ),
            entry(
                "slow",
                {at["slow"]: "eu/a"},
                "{connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}}",
            ),
            entry("lines", {near: "eu/a"}, "{proxyProtocol: {version: V1}}", "TCP", LINES),
            entry(
                "tunnel", {near: "eu/a"}, "{tunnel: {targetHost: in.example, targetPort: 7}}", "TCP", TUNNEL
            ),
        )
    )
    listed = [f"{{addresses: [{address}]}}" for address in three]
    drains = [*listed[:2], f"{{addresses: [{far}], conditions: {{ready: false, serving: true}}}}"]
    path: Path = tmp_path_factory.mktemp("balancing") / "mesh.yaml"
    text += SLICE.replace("ENDPOINTS", ", ".join(listed))
    path.write_text(text + SLICE.replace("ENDPOINTS", ", ".join(drains)).replace("cart", "leaving"))
    resources, problems = read_resources([str(path)])
    refuse_errors(problems)
    outbound = free_port()
    identity = ir.ProxyIdentity(
        name=ProxyName("sidecar", "127.0.0.1", "web", "default"),
        locality=ir.Locality(region="eu", zone="a"),
        attachment=ir.Attachment(
            capture=ir.Capture.SECCOMP,
            outbound_address="127.0.0.1",
            outbound_port=outbound,
            app_address=f"{base}.100",
        ),
    )
    with ExitStack() as stack:
        backends = {
            name: stack.enter_context(serving(HttpBackend(address, PORT, name)))
            for name, address in at.items()
        }
        backends["sick"].always, backends["odd"].always = 503, 418
        for name, load in (("near", 0.9), ("near_too", 0.1)):
            backends[name].load = f"TEXT application_utilization={load},rps_fractional=100"
        stack.enter_context(serving(TcpBackend(near, LINES, "lines")))
        stack.enter_context(serving(Proxy((near, TUNNEL), _Connect)))
        envoy = stack.enter_context(
            run_compiled(
                World.build(resources),
                identity,
                TestAuthority(),
                kept_stats=("cluster.outbound",),
                replicas=[_replica("a"), _replica("b")],
            )
        )
        yield Mesh(Client(Running(envoy, ("127.0.0.1", outbound))), backends)


def test_a_header_always_leads_to_the_same_endpoint(mesh: Mesh) -> None:
    users = [mesh.answered("hashed.example", 5, x_user=f"user-{number}") for number in range(30)]
    assert all(len(user) == 1 for user in users)
    assert len({name for user in users for name in user}) > 1


def test_a_cookie_is_made_and_leads_back(mesh: Mesh) -> None:
    first = mesh.ask("baked.example")
    made = SimpleCookie(first.headers["set-cookie"])["c"]
    assert made["max-age"] == "60"
    again = mesh.answered("baked.example", 10, cookie=f"c={made.value}")
    assert again == {first.body["name"]: 10}


def test_a_session_stays_where_it_began(mesh: Mesh) -> None:
    first = mesh.ask("cart")
    cookie = SimpleCookie(first.headers["set-cookie"])["cart"]
    assert not cookie["max-age"]
    assert mesh.answered("cart", 20, cookie=f"cart={cookie.value}") == {first.body["name"]: 20}
    assert len(mesh.answered("cart", 60)) > 1


def test_an_endpoint_that_drains_keeps_its_sessions_and_gets_no_new_ones(mesh: Mesh) -> None:
    first = mesh.ask("leaving")
    value = SimpleCookie(first.headers["set-cookie"])["leaving"].value
    there, leaving = (mesh.backends[name].server_address[0] for name in (first.body["name"], "far"))
    # The cookie names the endpoint; this is the one that the endpoint which drains would have made.
    inside = b64decode(value + "==")
    assert str(there).encode() in inside
    of_old = b64encode(inside.replace(str(there).encode(), str(leaving).encode())).decode()
    assert mesh.answered("leaving", 10, cookie=f"leaving={of_old}") == {"far": 10}
    assert "far" not in mesh.answered("leaving", 40)


def test_an_endpoint_that_fails_is_set_aside(mesh: Mesh) -> None:
    mesh.provoke("sick.example")
    assert mesh.answered("sick.example", 20) == {"near": 20}


def test_the_statuses_that_count_as_failures(mesh: Mesh) -> None:
    mesh.provoke("odd.example")
    assert mesh.answered("odd.example", 20) == {"near": 20}


def test_another_region_takes_over_when_the_own_one_fails(mesh: Mesh) -> None:
    assert mesh.ask("failover.example").status == 503
    mesh.provoke("failover.example")
    assert mesh.answered("failover.example", 20) == {"far": 20}


def test_shares_go_by_place(mesh: Mesh) -> None:
    assert mesh.answered("shared.example", 20) == {"far": 20}


def test_envoy_keeps_to_its_zone_where_each_zone_serves_itself(mesh: Mesh) -> None:
    assert mesh.answered("zoned.example", 20) == {"near": 20}


def test_near_endpoints_are_preferred_where_a_service_says_so(mesh: Mesh) -> None:
    assert mesh.answered("close.example", 20).keys() == {"near", "near_too"}


def test_who_reports_less_load_gets_more(mesh: Mesh) -> None:
    def heeded() -> bool:
        found = mesh.answered("reporting.example", 20)
        return found["near_too"] >= 3 * found["near"]

    wait_until(heeded, 30, "reports of load to count")


def test_what_is_too_much_is_refused_at_once(mesh: Mesh) -> None:
    host, backend = "slow.example", mesh.backends["slow"]
    first = threading.Thread(target=mesh.ask, args=(host, "/first?held"), daemon=True)
    second = threading.Thread(target=mesh.ask, args=(host, "/second?held"), daemon=True)
    first.start()
    wait_until(lambda: backend.seen["/first"], 20, "the first request")
    second.start()
    wait_until(lambda: mesh.gauge(host, "upstream_rq_pending_active") == 1, 20, "the second one to wait")
    third = mesh.ask(host, "/third")
    assert (third.status, third.headers.get("x-envoy-overloaded")) == (503, "true")
    (line,) = mesh.client.envoy.requests(path="/third")
    assert line["response_flags"] == "UO"
    backend.gate.set()
    first.join(20)
    second.join(20)
    assert backend.seen["/second"] == 1
    assert not backend.seen["/third"]


def test_the_client_is_announced(mesh: Mesh) -> None:
    with dial((EXTERNAL, LINES), through=mesh.client.address) as connection:
        connection.sendall(b"hi")
        received = b""
        while b"hi" not in received:
            received += connection.recv(4096)
    assert received.removeprefix(b"hello from lines\n").startswith(b"PROXY TCP4 127.0.0.1 ")


def test_bytes_travel_through_a_tunnel(mesh: Mesh) -> None:
    with dial((EXTERNAL, TUNNEL), through=mesh.client.address) as connection:
        connection.sendall(b"hi")
        received = b""
        while b"hi" not in received:
            received += connection.recv(4096)
    assert received == b"CONNECT in.example:7 HTTP/1.1 hi"
