"""The shop as an ordinary user runs it, by seccomp and by proxy variables."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support.envoy import UnixConnection
from tests.support.mesh import SHOP, Mesh, Output, leftovers, up, wait_until
from tests.support.user import User, interpreter, ordinary_user

GATEWAY = "istio-system.istio-ingressgateway"
PRINCIPAL = "spiffe://cluster.local/ns/shop/sa/"
CALLEES = ("users", "catalog", "inventory", "payments", "notifications")


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    with ordinary_user() as made:
        yield made


@pytest.fixture(scope="module", params=["seccomp", "env"])
def shop(request: pytest.FixtureRequest, user: User) -> Iterator[Mesh]:
    asked = () if request.param == "seccomp" else ("--capture", request.param)
    files = (SHOP / "mesh.yaml", SHOP / "gateway.yaml")
    with up(*files, *asked, prefix=user.prefix, env=user.env, runtime_root=user.runtime_root) as mesh:
        mesh.output.wait_for(f"capture: {request.param}")
        yield mesh


def ask(mesh: Mesh, path: str, body: Any = None) -> Any:
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(mesh.url + path, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read().decode()


def lines(mesh: Mesh, workload: str, **fields: Any) -> list[dict[str, Any]]:
    """Access log lines of a workload that have these fields."""
    found = [json.loads(line) for line in mesh.log(workload).splitlines() if line.startswith("{")]
    return [line for line in found if all(line.get(key) == value for key, value in fields.items())]


class TestTheShop:
    def test_it_says_how_it_captures_and_what_that_lacks(self, shop: Mesh) -> None:
        text = shop.output.text
        assert "not covered: " in text
        if "capture: env" in text:
            assert "$HOST:$PORT" in text
        else:
            assert "not root" in text
            assert "no boundary between processes" in text

    def test_all_of_it_belongs_to_the_user(self, shop: Mesh, user: User) -> None:
        """Not one process has another uid, so not one can have rights that the user lacks."""
        rows = json.loads(shop.weft("ps", "--mesh", shop.name, "-o", "json"))
        assert len(rows) == 10
        for pid in [row["proxyPid"] for row in rows] + [row["pid"] for row in rows if row["pid"]]:
            status = Path(f"/proc/{pid}/status").read_text()
            assert f"Uid:\t{user.uid}\t{user.uid}\t{user.uid}\t{user.uid}" in status
            assert "CapEff:\t0000000000000000" in status

    def test_what_workloads_use_is_told_by_proc(self, shop: Mesh) -> None:
        with UnixConnection(shop.runtime / "metrics.sock") as connection:
            connection.request("GET", "/metrics")
            page = connection.getresponse().read().decode()
        series = r'container_memory_rss{namespace="shop",pod="catalog-v1-0",container="([a-z0-9-]+)"} (\d+)'
        used = {container: int(size) for container, size in re.findall(series, page)}
        # By seccomp our wrapper stands between the node and the application.
        wrapper = {"weft-run"} if "capture: seccomp" in shop.output.text else set()
        assert used.keys() == {"istio-proxy", "catalog-v1"} | wrapper
        assert min(used.values()) > 4_000_000

    def test_an_order_goes_from_principal_to_principal(self, shop: Mesh) -> None:
        placed = json.loads(ask(shop, "/api/orders", {"user": "ada", "items": {"book-tea": 1}}))
        assert placed["cents"] == 3200
        assert {step["service"] for step in placed["trail"]} == set(CALLEES)

        def first() -> list[dict[str, Any]]:
            return lines(shop, GATEWAY, method="POST", response_code=201)

        (edge,) = wait_until(first, "the order in the gateway's log")
        assert edge["upstream_peer_principal"] == f"{PRINCIPAL}orders"
        assert edge["upstream_tls_version"] == "TLSv1.3"
        journey = {"reporter": "destination", "request_id": edge["request_id"]}
        (taken,) = wait_until(lambda: lines(shop, "shop.orders-v1-0", **journey), "it in that of orders")
        assert taken["downstream_peer_principal"] == edge["upstream_local_principal"]
        assert taken["downstream_tls_version"] == "TLSv1.3"
        for callee in CALLEES:
            workload = f"shop.{callee}-v1-0"
            (hop,) = wait_until(partial(lines, shop, workload, **journey), f"it in that of {callee}")
            assert hop["downstream_peer_principal"] == f"{PRINCIPAL}orders"
            assert hop["downstream_local_principal"] == f"{PRINCIPAL}{callee}"
            assert hop["downstream_tls_version"] == "TLSv1.3"
            # What it left by is the other end of that connection.
            (left,) = lines(
                shop,
                "shop.orders-v1-0",
                reporter="source",
                request_id=edge["request_id"],
                upstream_peer_principal=f"{PRINCIPAL}{callee}",
            )
            assert left["upstream_local_principal"] == f"{PRINCIPAL}orders"

    def test_the_page_has_parts_of_four_services(self, shop: Mesh) -> None:
        page = ask(shop, "/")
        assert "The tea atlas" in page
        assert "recommendations v" in page
        assert "Ada" in page
        (asked,) = wait_until(
            lambda: lines(shop, GATEWAY, path="/", response_code=200), "the page in the gateway's log"
        )
        journey = {"reporter": "destination", "request_id": asked["request_id"]}
        for callee in ("catalog", "users"):
            workload = f"shop.{callee}-v1-0"
            (hop,) = wait_until(partial(lines, shop, workload, **journey), f"it in that of {callee}")
            assert hop["downstream_peer_principal"] == f"{PRINCIPAL}front"

    def test_every_replica_has_the_same_port_and_an_address_of_its_own(self, shop: Mesh) -> None:
        rows = json.loads(shop.weft("ps", "--mesh", shop.name, "-o", "json"))
        services = [row for row in rows if row["kind"] == "sidecar"]
        assert {tuple(row["ports"].values()) for row in services} == {(8080,)}
        assert len({row["address"] for row in services}) == len(services) == 9

    def test_nothing_speaks_to_a_sidecar_without_a_certificate(self, shop: Mesh) -> None:
        rows = json.loads(shop.weft("ps", "--mesh", shop.name, "-o", "json"))
        (users,) = [row for row in rows if row["id"] == "shop/users-v1-0"]
        with pytest.raises(OSError, match=r"reset|closed|Remote end"):
            urllib.request.urlopen(f"http://{users['address']}:8080/users", timeout=5)

    def test_weft_call_asks_as_a_workload(self, shop: Mesh) -> None:
        """Without root there is nothing to enter: it says to the sidecar where it wants to go."""
        said = shop.weft(
            "call", "--mesh", shop.name, "--from", "shop/front-v1-0", "http://users:8080/users/ada?by=call"
        )
        assert '"id": "ada"' in said
        (hop,) = wait_until(
            lambda: lines(shop, "shop.users-v1-0", reporter="destination", path="/users/ada?by=call"),
            "the call in the log of users",
        )
        assert hop["downstream_peer_principal"] == f"{PRINCIPAL}front"

    def test_ctrl_c_leaves_nothing(self, shop: Mesh, user: User) -> None:
        assert shop.stop() == 0
        assert user.processes() == {}
        assert leftovers(shop.name) == []
        assert not user.runtime_root.exists()
        # The cache of Envoy's descriptors is kept on purpose; databases of the shop are not.
        assert {path.name for path in user.home.iterdir()} <= {"run", ".cache"}


WORKLOAD = """
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {{name: web}}
spec:
  command: [{python}, -m, http.server, "8080"]
  ports: [{{name: http, port: 8080}}]
"""


@contextmanager
def started(user: User, mesh: str) -> Iterator[tuple[subprocess.Popen[str], Output]]:
    """``weft up`` of a gateway and a workload, and nothing that says where the gateway's port shall be."""
    file = user.write("web.yaml", WORKLOAD.format(python=interpreter(user.uid)))
    process = subprocess.Popen(
        user.weft("up", str(SHOP / "gateway.yaml"), str(file), "--mesh", mesh),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**os.environ, **user.env},
    )  # fmt: skip
    try:
        output = Output(process)
        output.wait_for("everything is ready: 2 proxies")
        yield process, output
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def envoys(user: User) -> set[int]:
    return {pid for pid, line in user.processes().items() if line.split()[0].endswith("envoy")}


def kill_agents(user: User) -> None:
    """``weft up``, its control plane and its node, at once: none can clean up after another."""
    agents = [pid for pid, line in user.processes().items() if " -m weft " in line]
    assert len(agents) == 3
    for pid in agents:
        os.kill(pid, signal.SIGSTOP)
    for pid in agents:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not set(agents) & set(user.processes()), "the end of the agents")


class TestAfterKill9:
    def test_of_weft_up_alone_the_others_end_in_order(self, user: User) -> None:
        with started(user, f"k{os.getpid()}") as (process, output):
            moved = output.wait_for(r"gateway port 80 is open on (\d+) \((.*)\)")
            assert "not allowed without root" in moved[2] or int(moved[1]) == 80
            process.kill()
            wait_until(lambda: not user.processes(), "the end of all processes")

    def test_of_all_at_once_the_next_start_cleans_up_and_so_does_clean(self, user: User) -> None:
        mesh = f"k{os.getpid()}"
        with started(user, mesh):
            first = envoys(user)
            assert len(first) == 2
            kill_agents(user)
            assert envoys(user) == first, "sidecars survive their agent"
        with started(user, mesh):
            second = envoys(user)
            assert len(second) == 2
            assert not first & second
            kill_agents(user)
        done = user.run("clean", "--mesh", mesh)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "removed workload default.web-0" in done.stdout
        wait_until(lambda: not user.processes(), "the end of all processes")
        assert not (user.runtime_root / mesh).exists()
        assert user.run("clean", "--mesh", mesh).stdout == "nothing to clean\n"
