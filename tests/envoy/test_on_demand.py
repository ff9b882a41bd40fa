"""A sidecar in a mesh of 400 services has the clusters that its application uses, and no request notices."""

from __future__ import annotations

import json
import random
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.envoy.control import ControlPlane
from tests.support.authorizers import HttpAuthorizer
from tests.support.backend import HttpBackend, TcpBackend, serving
from tests.support.certificates import TestAuthority
from tests.support.dial import Connection, Reply, dial
from tests.support.envoy import Envoy, wait_until
from tests.support.ports import free_port

SERVICES = 400
HTTP, TCP = 80, 9000
HERE = "127.0.0.1"


def resource(api: str, kind: str, name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec}


def istio(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return resource("networking.istio.io/v1", kind, name, **spec)


def service(name: str, port: int = HTTP, protocol: str = "http") -> dict[str, Any]:
    ports = [{"name": protocol, "port": port, "targetPort": protocol}]
    return resource("v1", "Service", name, selector={"app": protocol}, ports=ports)


def entry(name: str, app: str, version: str, port: int) -> dict[str, Any]:
    labels = {"app": app, "version": version}
    return istio("WorkloadEntry", name, address=HERE, labels=labels, ports={app: port})


def rule(host: str, *versions: str, balancer: str = "ROUND_ROBIN") -> dict[str, Any]:
    subsets = [{"name": version, "labels": {"version": version}} for version in versions]
    return istio(
        "DestinationRule",
        host,
        host=host,
        subsets=subsets,
        trafficPolicy={"loadBalancer": {"simple": balancer}},
    )


def routes(host: str, *to: dict[str, Any]) -> dict[str, Any]:
    """Requests for a host, each tried once."""
    route = [{"destination": {"host": host, **one}, "weight": 1} for one in to]
    return istio("VirtualService", host, hosts=[host], http=[{"route": route, "retries": {"attempts": 0}}])


@dataclass
class Application:
    """What calls through a sidecar."""

    plane: ControlPlane
    envoy: Envoy
    port: int
    _addresses: dict[str, str] = field(default_factory=dict)

    def address(self, name: str) -> str:
        """Of a service, as DNS told it once."""
        return self._addresses.get(name) or self._addresses.setdefault(name, self.plane.address(name))

    def connect(self, name: str) -> Connection:
        return Connection((self.address(name), HTTP), through=(HERE, self.port))

    def get(self, name: str, method: str = "GET") -> Reply:
        return self.connect(name).ask(host=f"{name}.default", method=method)

    def dial(self, name: str) -> socket.socket:
        return dial((self.address(name), TCP), through=(HERE, self.port))

    def clusters(self) -> set[str]:
        """Services that it has clusters of, with their subsets."""
        rows = json.loads(self.envoy.admin("/config_dump?resource=dynamic_active_clusters")).get(
            "configs", ()
        )
        names = (row["cluster"]["name"].split("|") for row in rows)
        return {f"{parts[3].split('.')[0]}{parts[2]}" for parts in names if parts[0] == "outbound"}


@dataclass
class Load:
    """Requests without a pause, over a lasting connection and over new ones; ``failures`` are not 200."""

    application: Application
    name: str
    failures: list[object] = field(default_factory=list)
    count: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def _call(self) -> None:
        lasting = self.application.connect(self.name)
        while not self._over.is_set():
            try:
                for reply in (
                    lasting.ask(host=self.name),
                    self.application.get(self.name),
                ):
                    self.count += 1
                    if reply.status != 200:
                        self.failures.append(reply)
            except OSError as error:
                self.failures.append(error)
                lasting = self.application.connect(self.name)

    @contextmanager
    def going(self) -> Iterator[None]:
        thread = threading.Thread(target=self._call)
        thread.start()
        try:
            self.more()
            yield
            self.more()
        finally:
            self._over.set()
            thread.join()

    def more(self) -> None:
        """Until some were answered that began after this."""
        goal = self.count + 10
        wait_until(lambda: self.count >= goal, 20, "requests")


@dataclass
class Mesh:
    plane: ControlPlane
    stack: ExitStack
    http: int
    proxies: int = 0

    def start(self, name: str) -> Application:
        """An application with a sidecar that takes its connections by a PROXY header."""
        base, port = f"127.{random.randint(16, 250)}.{random.randint(1, 250)}", free_port()
        weft = {
            "outboundAddress": HERE,
            "outboundPort": port,
            "inboundAddress": f"{base}.1",
            "appAddress": f"{base}.2",
        }
        envoy = self.stack.enter_context(self.plane.sidecar(name, f"{base}.1", weft))
        self.proxies += 1
        self.plane.settle(self.proxies)
        return Application(self.plane, envoy, port)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with ExitStack() as stack:
        http = stack.enter_context(serving(HttpBackend(HERE, 0, "web")))
        tcp = stack.enter_context(serving(TcpBackend(HERE, 0, "tcp")))
        directory: Path = tmp_path_factory.mktemp("store")
        plane = stack.enter_context(ControlPlane(directory, TestAuthority()))
        plane.apply(
            *(service(f"s{number}") for number in range(SERVICES)),
            *(service(f"t{number}", TCP, "tcp") for number in range(4)),
            *(entry(f"web-{version}", "http", version, http.server_port) for version in ("v1", "v2")),
            entry("tcp", "tcp", "v1", tcp.server_address[1]),
        )
        yield Mesh(plane, stack, http.server_port)


@pytest.fixture(scope="module")
def application(mesh: Mesh) -> Application:
    return mesh.start("app")


def test_the_first_calls_succeed(application: Application) -> None:
    before = application.clusters()
    assert application.get("s1").status == 200
    connection = application.connect("s2")
    connection.request("POST", "/", body=b"x" * 300_000, headers={"host": "s2"})
    assert json.loads(connection.getresponse().read())["received"] == 300_000
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda turn: application.get(f"s{3 + turn % 2}").status, range(16))
        assert set(answers) == {200}
    for _ in range(2):
        with application.dial("t1") as tcp:
            assert tcp.recv(100) == b"hello from tcp\n"
            tcp.sendall(b"ping")
            assert tcp.recv(100) == b"ping"
    assert application.clusters() - before == {"s1", "s2", "s3", "s4", "t1"}


def test_a_request_that_goes_on_for_longer_than_its_cluster_takes(application: Application) -> None:
    connection = application.connect("s5")
    connection.putrequest("POST", "/", skip_host=True)
    connection.putheader("host", "s5")
    connection.putheader("content-length", "3")
    connection.endheaders()
    wait_until(lambda: "s5" in application.clusters(), what="the cluster")
    connection.send(b"abc")
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["received"]) == (200, 3)


def test_each_request_counts_once(application: Application) -> None:
    assert application.get("s10").status == 200

    def counted() -> list[str]:
        rows = application.envoy.admin("/stats?filter=istio_requests_total").splitlines()
        return [row for row in rows if ".destination_service_name.s10." in row]

    wait_until(counted, what="the metric")
    assert [row.rpartition(": ")[2] for row in counted()] == ["1"]
    assert ".response_code.200" in counted()[0]


def test_routes_by_weight_need_clusters_one_by_one(mesh: Mesh, application: Application) -> None:
    mesh.plane.apply(rule("s20", "v1", "v2"), routes("s20", {"subset": "v1"}, {"subset": "v2"}))
    assert {application.get("s20").status for _ in range(20)} == {200}
    assert application.clusters() & {"s20v1", "s20v2", "s20"} == {"s20v1", "s20v2"}


def test_what_does_not_exist_fails_at_once_and_its_like_works(mesh: Mesh, application: Application) -> None:
    """As where all clusters are there: nobody waits for what will not come."""
    mesh.plane.apply(routes("s30", {"subset": "none"}))
    reply = application.get("s30")
    assert (reply.status, reply.text) == (503, "")
    mesh.plane.apply(rule("s30", "none"))
    mesh.plane.apply(routes("s30", {}))
    assert application.get("s30").status == 200


def test_changes_under_load_fail_no_request(mesh: Mesh, application: Application) -> None:
    mesh.plane.apply(rule("s40", "v1"), routes("s40", {"subset": "v1"}))
    load = Load(application, "s40")
    with load.going():
        for turn in range(3):
            mesh.plane.apply(rule("s40", "v1", balancer=("RANDOM", "LEAST_REQUEST")[turn % 2]))
            load.more()
            mesh.plane.apply(rule("s40", "v2"), routes("s40", {"subset": "v2"}))
            load.more()
            # The one that was removed comes back.
            mesh.plane.apply(rule("s40", "v1"), routes("s40", {"subset": "v1"}))
            load.more()
    assert load.failures == []
    assert {"s40v1", "s40v2"} <= application.clusters()


def test_a_service_that_is_removed_and_comes_back(mesh: Mesh, application: Application) -> None:
    assert application.get("s50").status == 200
    address = mesh.plane.address("s50")
    mesh.plane.delete(service("s50"))
    mesh.plane.apply(service("s50"))
    assert mesh.plane.address("s50") == address
    assert application.get("s50").status == 200
    with application.dial("t2") as tcp:
        assert tcp.recv(100) == b"hello from tcp\n"
    mesh.plane.delete(service("t2", TCP, "tcp"))
    mesh.plane.apply(service("t2", TCP, "tcp"))
    with application.dial("t2") as tcp:
        assert tcp.recv(100) == b"hello from tcp\n"


def test_a_control_plane_that_starts_again(mesh: Mesh, application: Application) -> None:
    """Traffic goes on, nothing is sent twice, and who calls for the first time waits for its return."""
    load = Load(application, "s60")

    def stats() -> list[int]:
        names = ("cluster_added", "cluster_modified", "cluster_removed")
        return [application.envoy.stat(f"cluster_manager.{name}") for name in names]

    with load.going():
        before, known = stats(), application.clusters()
        mesh.plane.stop()
        load.more()
        with ThreadPoolExecutor(1) as pool:
            connection = Connection((HERE, HTTP), through=(HERE, application.port))
            first = pool.submit(connection.ask, host="s61.default")
            load.more()
            mesh.plane.start()
            assert first.result().status == 200
        mesh.plane.settle(mesh.proxies)
        load.more()
    assert load.failures == []
    assert application.clusters() == known | {"s61"}
    assert [now - then for now, then in zip(stats(), before, strict=True)] == [1, 0, 0]
    assert application.get("s62").status == 200


def test_the_next_of_its_kind_has_what_this_one_used(mesh: Mesh, application: Application) -> None:
    assert application.get("s70").status == 200
    known = application.clusters()
    second = mesh.start("app-2")
    assert "s70" in second.clusters() <= known
    assert second.get("s70").status == 200
    assert second.get("s71").status == 200


def test_whom_a_route_asks_is_there_before_the_first_request(mesh: Mesh, application: Application) -> None:
    with serving(HttpAuthorizer()) as authorizer:
        asks = {
            "type": "ExternalAuth",
            "externalAuth": {
                "protocol": "HTTP",
                "backendRef": {"name": "authorizer", "port": HTTP},
                "http": {"path": "/check"},
            },
        }
        ports = [{"name": "http", "port": HTTP, "targetPort": "authz"}]
        mesh.plane.apply(
            resource("v1", "Service", "authorizer", selector={"app": "authz"}, ports=ports),
            entry("authorizer", "authz", "v1", authorizer.server_port),
            resource(
                "gateway.networking.k8s.io/v1",
                "HTTPRoute",
                "s90",
                parentRefs=[{"group": "", "kind": "Service", "name": "s90"}],
                rules=[{"filters": [asks], "backendRefs": [{"name": "s90", "port": HTTP}]}],
            ),
        )
        for path, status in (("/", 200), ("/?decide=deny", 401), ("/", 200)):
            connection = application.connect("s90")
            assert connection.ask(path, host="s90.default").status == status
        assert {"authorizer", "s90"} <= application.clusters()


def test_an_application_with_a_proxy_variable(mesh: Mesh) -> None:
    """Requests, and tunnels, whose body never ends."""
    address, port = f"127.{random.randint(16, 250)}.{random.randint(1, 250)}.1", free_port()
    weft = {"outboundAddress": address, "inboundAddress": address, "httpProxyPort": port}
    with mesh.plane.sidecar("env", address, weft, "PROXY_ENV") as envoy:
        mesh.plane.settle(mesh.proxies + 1)
        application = Application(mesh.plane, envoy, port)
        connection = Connection((address, port))
        assert connection.ask("http://s80/", host="s80").status == 200
        with socket.create_connection((address, port), timeout=20) as tunnel:
            tunnel.sendall(f"CONNECT t3:{TCP} HTTP/1.1\r\nhost: t3:{TCP}\r\n\r\n".encode())
            received = b""
            while b"hello from tcp\n" not in received:
                data = tunnel.recv(1000)
                assert data, received
                received += data
        assert {"s80", "t3"} <= application.clusters()
