"""A real sidecar tells a real telemetry process of each request and connection that it decides about."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.envoy.control import ControlPlane
from tests.support.backend import HttpBackend, TcpBackend, serving
from tests.support.certificates import TestAuthority
from tests.support.dial import Connection
from tests.support.envoy import Envoy, short_directory, wait_until
from tests.support.telemetry import Telemetry, running_telemetry
from weft.analysis.policy.observed import read_flows
from weft.analysis.policy.suggest import suggest
from weft.model.parse import Part, parse
from weft.names import TAP_SHARE
from weft.node.admin import Reply, ask
from weft.node.taps import WHOLE, Taps
from weft.yaml import Document

HTTP, TCP = 9080, 9000
METERED = "spiffe://cluster.local/ns/default/sa/metered"
WEB, STRANGER = "spiffe://cluster.local/ns/default/sa/web", "spiffe://cluster.local/ns/other/sa/stranger"


def _resource(
    kind: str, name: str, spec: dict[str, Any], group: str = "networking.istio.io/v1"
) -> dict[str, Any]:
    return {
        "apiVersion": group,
        "kind": kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def _policy(name: str, **spec: Any) -> dict[str, Any]:
    return _resource(
        "AuthorizationPolicy", name, {"selector": {"matchLabels": {"app": "reviews"}}, **spec},
        "security.istio.io/v1",
    )  # fmt: skip


def _resources(address: str) -> list[dict[str, Any]]:
    mesh = _resource(
        "MeshConfig",
        "mesh",
        {"flowSampling": 100, "accessLogFile": "access.log", "accessLogEncoding": "JSON"},
        "weft.dev/v1alpha1",
    )
    ports = [{"name": "http", "port": HTTP}, {"name": "tcp", "port": TCP}]
    web = {"source": {"principals": ["cluster.local/ns/default/sa/web"]}}
    return [
        mesh,
        _resource("Service", "reviews", {"selector": {"app": "reviews"}, "ports": ports}, "v1"),
        _resource(
            "WorkloadEntry",
            "reviews",
            {
                "address": address,
                "labels": {"app": "reviews"},
                "serviceAccount": "reviews",
                "ports": {"http": HTTP, "tcp": TCP},
            },
        ),
        _policy(
            "readers",
            rules=[
                {"from": [web], "to": [{"operation": {"methods": ["GET"]}}]},
                {"from": [web], "to": [{"operation": {"ports": [str(TCP)]}}]},
            ],
        ),
    ]


@dataclass
class Mesh:
    plane: ControlPlane
    telemetry: Telemetry
    sidecar: Envoy
    address: str
    authority: TestAuthority
    directory: Path

    def context(self, identity: str) -> ssl.SSLContext:
        """TLS as a sidecar of that identity speaks it."""
        pair = self.authority.issue(identity)
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
        made.set_alpn_protocols(["istio-http/1.1", "istio"])
        file = self.directory / f"{random.getrandbits(60):x}.pem"
        file.write_text(pair.key + pair.certificate)
        made.load_cert_chain(file)
        return made

    def connect(self, identity: str = WEB) -> Connection:
        return Connection((self.address, HTTP), tls=self.context(identity))


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    base = f"127.{random.randint(16, 250)}.{random.randint(1, 250)}"
    authority = TestAuthority()
    with ExitStack() as stack:
        stack.enter_context(serving(HttpBackend(f"{base}.2", HTTP, "reviews")))
        stack.enter_context(serving(TcpBackend(f"{base}.2", TCP, "tcp")))
        directory = stack.enter_context(short_directory())
        telemetry = stack.enter_context(running_telemetry(directory, authority))
        plane = stack.enter_context(ControlPlane(tmp_path_factory.mktemp("store"), authority))
        plane.apply(*_resources(f"{base}.1"))
        weft = {
            "outboundAddress": f"{base}.1",
            "outboundPort": 15001,
            "inboundAddress": f"{base}.1",
            "appAddress": f"{base}.2",
        }
        envoy = stack.enter_context(
            plane.sidecar("reviews", f"{base}.1", weft, account="reviews", telemetry_port=telemetry.port)
        )
        plane.settle(1)
        yield Mesh(plane, telemetry, envoy, f"{base}.1", authority, directory)


def test_counts_are_right(mesh: Mesh) -> None:
    web, stranger = mesh.connect(), mesh.connect(STRANGER)
    for number in range(12):
        assert web.ask(f"/users/{number}/orders?secret=1").status == 200
    for _ in range(5):
        assert web.ask("/broken?status=503").status == 503
    for _ in range(4):
        assert web.ask("/missing?status=404").status == 404
    for _ in range(7):
        assert stranger.ask("/users/1/orders").status == 403
    for _ in range(3):
        assert web.ask("/users/1/orders", "DELETE").status == 403
    mesh.telemetry.wait_count(31, protocol="http")

    (read,) = mesh.telemetry.flows(outcome="ok", protocol="http")
    assert read["count"] == read["kept"] == 12
    assert (read["source"], read["method"], read["path"]) == (WEB, "GET", "/users/{*}/orders")
    assert (read["namespace"], read["workload"], read["account"]) == ("default", "reviews", "reviews")
    assert (read["port"], read["service"]) == (HTTP, "reviews.default.svc.cluster.local")
    assert (read["decision"], read["policy"]) == ("allow", "ns[default]-policy[readers]-rule[0]")
    assert len(read["examples"]) == 4
    assert "secret" not in str(read), "queries stay with the proxy"
    (failed,) = mesh.telemetry.flows(outcome="failed")
    assert (failed["count"], failed["path"], failed["decision"]) == (5, "/broken", "allow")
    (missing,) = mesh.telemetry.flows(outcome="refused", decision="allow")
    assert (missing["count"], missing["path"]) == (4, "/missing")
    denied = {
        (flow["source"], flow["method"]): flow["count"] for flow in mesh.telemetry.flows(decision="deny")
    }
    assert denied == {(STRANGER, "GET"): 7, (WEB, "DELETE"): 3}


def test_metrics_are_pushed_and_add_up(mesh: Mesh) -> None:
    def counted(by: str) -> dict[str, Any]:
        rows = mesh.telemetry.ask("stat", by=by, of="default/reviews", window="1h")["rows"]
        return {row["key"]: row for row in rows}

    connection = mesh.connect(METERED)
    for _ in range(9):
        assert connection.ask("/metered").status == 403
    wait_until(lambda: counted("caller").get(METERED, {}).get("requests", 0) >= 9, 60, "the counter")
    row = counted("caller")[METERED]
    assert (row["requests"], row["refused"], row["errors"], row["mtls"]) == (9, 9, 0, 1.0)
    wait_until(lambda: counted("caller")[METERED]["p50"] is not None, 60, "the histogram")
    assert counted("code")["403"]["requests"] >= 9
    (edge,) = (
        edge
        for edge in mesh.telemetry.ask("edges", window="1h")["edges"]
        if edge["source"]["principal"] == METERED
    )
    assert (edge["destination"]["workload"], edge["toldBy"], edge["secured"]) == (
        "reviews", ["destination"], True,
    )  # fmt: skip
    health = mesh.telemetry.ask("health")
    assert (health["tellers"], health["lost"]["points_unusable"]) == (1, 0)


def test_connections_are_told_of(mesh: Mesh) -> None:
    def say(identity: str) -> bytes:
        with (
            socket.create_connection((mesh.address, TCP), 20) as plain,
            mesh.context(identity).wrap_socket(plain) as tls,
        ):
            # Envoy looks at the caller when its first bytes come, so a server may greet before.
            answer = b""
            try:
                tls.sendall(b"ping")
                while b"ping" not in answer and (more := tls.recv(100)):
                    answer += more
            except OSError:
                pass
            return answer

    assert say(WEB) == b"hello from tcp\nping"
    assert b"ping" not in say(STRANGER)
    mesh.telemetry.wait_count(2, protocol="tcp")
    (good,) = mesh.telemetry.flows(protocol="tcp", decision="allow")
    assert (good["source"], good["port"], good["count"]) == (WEB, TCP, 1)
    (bad,) = mesh.telemetry.flows(protocol="tcp", decision="deny")
    assert (bad["source"], bad["port"], bad["count"]) == (STRANGER, TCP, 1)


def test_watched_requests_are_told_of_once_more_and_counted_in_no_flow(mesh: Mesh) -> None:
    socket_path = mesh.sidecar.directory / "admin.sock"

    async def ask_envoy(workload: str, method: str, path: str) -> Reply:
        return await ask(socket_path, path, method=method)

    def watched(after: int) -> list[str]:
        found = mesh.telemetry.ask("tap", after=str(after), proxies="default/reviews", caller=WEB)
        return [record["path"] for record in found["records"]]

    def share() -> str:
        values = json.loads(mesh.sidecar.admin("/runtime"))["entries"]
        return str(values.get(TAP_SHARE, {}).get("final_value", ""))

    async def run() -> None:
        taps = Taps(ask_envoy)
        begun = mesh.telemetry.ask("tap")["next"]
        before = mesh.telemetry.count()
        assert (await taps.hold("default/reviews", WHOLE, 60)).status == 200
        connection = await asyncio.to_thread(mesh.connect)
        paths = [f"/watched/{number}" for number in range(9)]
        for path in paths:
            await asyncio.to_thread(connection.ask, path)
        await asyncio.to_thread(wait_until, lambda: len(watched(begun)) >= len(paths), 60, "what was watched")
        assert watched(begun) == paths
        mesh.telemetry.wait_count(len(paths), path="/watched/{*}")
        assert mesh.telemetry.count(path="/watched/{*}") == len(paths)
        assert mesh.telemetry.count() == before + len(paths)
        await taps.close()
        assert share() == ""
        await taps.hold("default/reviews", WHOLE // 2, 0.2)
        await asyncio.to_thread(wait_until, lambda: share() == "", 60, "the end of the lease")
        await asyncio.to_thread(connection.ask, "/unwatched")
        await asyncio.to_thread(mesh.telemetry.wait_count, 1, path="/unwatched")
        assert watched(begun) == paths

    asyncio.run(run())


def test_hostile_text_is_inert(mesh: Mesh) -> None:
    before = mesh.telemetry.ask("health")["received"]["records"]
    raw = [
        b"GET /\xff\xfe\x80 HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET /%1b%5b31m%00 HTTP/1.1\r\nhost: \xe2\x80\xaeevil\r\n\r\n",
        b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET /<script>alert(1)</script> HTTP/1.1\r\nhost: h\r\nx-request-id: \x85\xc2\x9b31m\r\n\r\n",
        b"GET /b HTTP/1.1\r\nhost: h\r\nuser-agent: \xff\xfe\r\nx-request-id: \xe2\x80\xaetxt\r\n\r\n",
        b"GET /a HTTP/1.1\r\nhost: " + b"h" * 4096 + b"\r\n\r\n",
    ]
    sent = 0
    for request in raw:
        with (
            socket.create_connection((mesh.address, HTTP), 20) as plain,
            mesh.context(WEB).wrap_socket(plain) as tls,
        ):
            tls.sendall(request)
            sent += bool(tls.recv(1000))
    assert sent == len(raw)
    wait_until(
        lambda: mesh.telemetry.ask("health")["received"]["records"] >= before + len(raw), 60, "the records"
    )
    told = mesh.telemetry.ask("records", limit="50")["records"]
    texts = [text for record in told for text in record.values() if isinstance(text, str)]
    assert texts
    assert all(len(text) <= 1024 and text.isprintable() for text in texts), texts
    assert mesh.telemetry.ask("health")["lost"]["unreadable"] == 0
    for flow in mesh.telemetry.flows():
        assert len(flow["path"]) < 300


def test_traffic_outlives_a_process_that_is_killed(mesh: Mesh) -> None:
    counted = mesh.telemetry.count(path="/users/{*}/orders", outcome="ok")
    over, failures, sent = threading.Event(), [], [0]

    def ask() -> None:
        connection = mesh.connect()
        while not over.is_set():
            reply = connection.ask("/users/5/orders")
            sent[0] += 1
            if reply.status != 200:
                failures.append(reply)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        wait_until(lambda: sent[0] > 20, 60, "requests")
        restarts = mesh.telemetry.metrics.telemetry_restarts
        began = restarts.value()
        mesh.telemetry.kill()
        wait_until(lambda: restarts.value() > began, 60, "its end")
        mark = sent[0]
        wait_until(lambda: sent[0] > mark + 50, 60, "requests without it")
        wait_until(mesh.telemetry.answers, 60, "its return")
        known = mesh.telemetry.count(path="/users/{*}/orders", outcome="ok")
        assert known >= counted, "what was seen before is kept"
        mesh.telemetry.wait_count(known + 20, path="/users/{*}/orders", outcome="ok")
    finally:
        over.set()
        thread.join()
    assert not failures


def test_suggested_policies_let_pass_what_was_seen_and_nothing_else(mesh: Mesh) -> None:
    """Last: the policies of the other tests are replaced."""
    web = mesh.connect()
    seen = [("GET", f"/items/{number}") for number in (1, 2, 3)] + [("GET", "/health")]
    for method, path in seen:
        assert web.ask(path, method).status == 200
    mesh.telemetry.wait_count(3, path="/items/{*}", outcome="ok")
    mesh.telemetry.wait_count(1, path="/health", outcome="ok")
    read = []
    for data in _resources(mesh.address):
        part = Part(Document("mesh", 0, data, {}), data)
        resource, problems = parse(part)
        assert resource is not None, problems
        read.append((part, resource))
    wanted = mesh.telemetry.flows(outcome="ok", protocol="http", path="/items/{*}")
    wanted += mesh.telemetry.flows(outcome="ok", protocol="http", path="/health")
    made, lacking = suggest(read_flows(wanted), tuple(read))
    assert lacking == ()
    mesh.plane.apply(*(one.policy for one in made))
    mesh.plane.delete(_policy("readers"))
    web = mesh.connect()
    for method, path in (*seen, ("GET", "/items/17")):
        assert web.ask(path, method).status == 200, path
    for method, path in (("DELETE", "/items/1"), ("GET", "/items/1/owner"), ("GET", "/admin")):
        assert web.ask(path, method).status == 403, path
    assert mesh.connect(STRANGER).ask("/health").status == 403
