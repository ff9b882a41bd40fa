"""Three hosts, real processes: discovery, identity and survival across them.

The control plane runs on host a. The tests share one mesh and run in this order; each leaves it whole.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.cluster import MEMBER, PYTHON, Cluster, Machine, Member, cluster
from tests.support.mesh import WEFT, wait_until

from weft.node.capture.cgroup import Hierarchy

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.getuid() != 0 or shutil.which("nft") is None or Hierarchy.find() is None,
        reason="needs root, nft and cgroup2",
    ),
]

WEB, API = 8080, 8081
ALL = {"10.77.0.1", "10.77.0.2", "10.77.0.3"}
PRINCIPAL = "spiffe://cluster.local/ns/shop/sa/"

# "near" and "far" are the same workloads, chosen by where they run.
MESH = """
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {name: default, namespace: istio-system}
spec: {accessLogFile: /dev/stdout}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
---
apiVersion: v1
kind: Service
metadata: {name: near, namespace: shop}
spec: {selector: {place: near}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: shop}
spec: {selector: {place: far}, ports: [{name: http, port: 8080}]}
"""

LATE = """
apiVersion: v1
kind: Service
metadata: {name: late, namespace: shop}
spec: {selector: {place: near}, ports: [{name: http, port: 8080}]}
"""


class Shop:
    """The mesh, with ``web`` on each host and ``api``, which calls it, on two."""

    def __init__(self, mesh: Cluster) -> None:
        self.mesh = mesh
        mesh.apply(MESH)
        self.web = {
            name: mesh.run(name, f"web-{name}", WEB, service="web", labels=[f"place={place}"])
            for name, place in (("a", "near"), ("b", "near"), ("c", "far"))
        }
        self.api = {name: mesh.run(name, f"api-{name}", API, service="api") for name in ("a", "c")}
        for member in self.members:
            member.wait_ready()

    @property
    def members(self) -> list[Member]:
        """All that run."""
        return [*self.web.values(), *self.api.values()]

    def wait_endpoints(self, machine: str, want: set[str]) -> None:
        """Until the sidecar of ``api`` on a machine knows just these addresses of ``web``."""
        asked = self.api[machine].id
        wait_until(
            lambda: self.mesh.endpoints(machine, asked, "web") == want, f"{asked} has {want} for web", 30
        )


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with cluster(["a", "b", "c"]) as mesh:
        shop = Shop(mesh)
        for machine in ("a", "c"):
            shop.wait_endpoints(machine, ALL)
        yield shop


def outside(machine: Machine, address: str, port: int) -> str:
    """What a plain request from a process that is not in the mesh brings."""
    return machine.host.run(PYTHON, str(MEMBER), "dial", address, str(port))


def logged(machine: Machine, workload: str, **fields: Any) -> list[dict[str, Any]]:
    """Lines of an access log, which is written a moment after the answer."""
    return wait_until(lambda: machine.requests(workload, **fields), f"{workload} logs {fields}", 20)


def configuration(shop: Shop) -> dict[str, dict[str, int]]:
    """How often each sidecar took configuration in."""
    names = "(cds|lds|rds).*(update_success|update_rejected|config_reload)$|^cluster.outbound.*update_success"
    return {member.id: member.machine.stats(member.id, names) for member in shop.members}


def connected(shop: Shop) -> bool:
    """Whether every sidecar has its stream to the control plane."""
    return all(
        member.machine.stats(member.id, "connected_state")["control_plane.connected_state"] == 1
        for member in shop.members
    )


def test_names_are_known_on_every_host(shop: Shop) -> None:
    found = [
        shop.web[machine].resolve(name)
        for machine in ("a", "b", "c")
        for name in ("web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local")
    ]
    assert len(found[0]) == 1
    assert found[0][0].startswith("240.240.")
    assert found == [found[0]] * 12
    for host in ("web", "web.shop", "web.shop.svc.cluster.local", found[0][0]):
        status, body = shop.api["c"].get(f"http://{host}:{WEB}/by-{host}")
        assert status == 200
        assert body in {"web-a", "web-b", "web-c"}
    assert shop.web["a"].resolve("nothing.shop") == []


def test_both_sides_log_who_the_other_was(shop: Shop) -> None:
    bodies = {shop.api["a"].get(f"http://web.shop:{WEB}/who")[1] for _ in range(30)}
    assert bodies == {"web-a", "web-b", "web-c"}
    sent = logged(shop.mesh["a"], "shop/api-a", path="/who", reporter="source")
    assert {line["upstream_peer_principal"] for line in sent} == {f"{PRINCIPAL}web"}
    assert {line["upstream_local_principal"] for line in sent} == {f"{PRINCIPAL}api"}
    assert {line["requested_server_name"] for line in sent} == {None}
    for name, member in shop.web.items():
        got = logged(shop.mesh[name], member.id, path="/who", reporter="destination")
        assert {line["downstream_peer_principal"] for line in got} == {f"{PRINCIPAL}api"}
        assert {line["downstream_local_principal"] for line in got} == {f"{PRINCIPAL}web"}
        assert {line["downstream_tls_version"] for line in got} == {"TLSv1.3"}


def test_who_is_refused(shop: Shop) -> None:
    mesh = shop.mesh
    b, c = mesh["b"], mesh["c"]
    assert shop.api["c"].dial("web.shop", WEB).startswith("HTTP/1.1 200")
    # From outside the mesh: on another host, on the workload's own host, by its address and by loopback.
    assert outside(c, b.address, WEB) == ""
    assert outside(b, b.address, WEB) == ""
    assert outside(b, "127.0.0.1", WEB) == ""
    # One workload's way out is not another's, nor anybody's.
    ways = {
        member.id: json.loads(
            member.machine.runtime.joinpath(
                "workloads", member.id.replace("/", "."), "bootstrap.json"
            ).read_text()
        )["node"]["metadata"]["WEFT"]["outboundPort"]
        for member in (shop.web["a"], shop.api["a"])
    }
    assert shop.api["a"].dial("127.0.0.1", ways["shop/web-a"]) == ""
    assert outside(mesh["a"], "127.0.0.1", ways["shop/web-a"]) == ""
    assert len(set(ways.values())) == 2


def test_the_control_plane_is_killed_under_load(shop: Shop) -> None:
    mesh = shop.mesh
    before = configuration(shop)
    with (
        shop.api["a"].load(f"http://web.shop:{WEB}/load") as near,
        shop.api["c"].load(f"http://web.shop:{WEB}/load") as far,
    ):
        mesh.kill_plane()
        wait_until(
            lambda: all(
                member.machine.stats(member.id, "connected_state")["control_plane.connected_state"] == 0
                for member in shop.members
            ),
            "every sidecar has lost its stream",
        )
        assert shop.api["a"].machine.status()["controlPlane"]["connected"] is False  # type: ignore[index]
        assert shop.web["b"].resolve("api.shop") != []
        mesh.start_plane()
        wait_until(lambda: connected(shop), "every sidecar has a stream again", 30)
        wait_until(
            lambda: all(m.status()["controlPlane"]["connected"] for m in mesh.machines.values()),  # type: ignore[index]
            "every node has its session again",
        )
        pushes = {
            line
            for line in mesh.metrics()
            if line.startswith("pilot_xds_pushes{") and not line.endswith(" 0.0")
        }
    for outcome in (near, far):
        assert outcome["failed"] == []
        assert outcome["sent"] > 100
        assert set(outcome["by"]) == {"web-a", "web-b", "web-c"}
    assert pushes == set()
    assert configuration(shop) == before
    answer = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: far, namespace: shop}
spec: {hosts: [far], http: [{directResponse: {status: 299}}]}
"""
    mesh.apply(answer, "--wait")
    assert shop.api["a"].get(f"http://far:{WEB}/")[0] == 299
    mesh.first.weft("delete", "vs/far", "-n", "shop")
    wait_until(lambda: shop.api["a"].get(f"http://far:{WEB}/") == (200, "web-c"), "the rule is gone")


def test_a_host_is_cut_off_and_comes_back(shop: Shop) -> None:
    mesh, c = shop.mesh, shop.mesh["c"]
    with (
        shop.api["a"].load(f"http://near.shop:{WEB}/elsewhere") as elsewhere,
        shop.api["c"].load(f"http://far.shop:{WEB}/inside") as inside,
    ):
        c.host.partition()
        try:
            shop.wait_endpoints("a", ALL - {c.address})
            # Its own sidecars keep what they had, and its names.
            assert mesh.endpoints("c", "shop/api-c", "web") == ALL
            assert shop.web["c"].resolve("web.shop") != []
            bodies = {shop.api["a"].get(f"http://web.shop:{WEB}/")[1] for _ in range(10)}
            assert bodies == {"web-a", "web-b"}
            mesh.apply(LATE)
        finally:
            c.host.heal()
        wait_until(lambda: shop.web["c"].resolve("late.shop"), "the new name has arrived", 30)
        wait_until(lambda: shop.api["c"].get(f"http://late:{WEB}/")[0] == 200, "and its configuration", 30)
        shop.wait_endpoints("a", ALL)
    for outcome, by in ((elsewhere, {"web-a", "web-b"}), (inside, {"web-c"})):
        assert outcome["failed"] == []
        assert outcome["sent"] > 100
        assert set(outcome["by"]) == by


def test_a_node_agent_is_killed_and_its_successor_adopts(shop: Shop) -> None:
    b = shop.mesh["b"]
    before = b.rows()["shop/web-b"]
    dns = b.status()["dns"]["pid"]  # type: ignore[index]
    for number in (signal.SIGKILL, signal.SIGTERM):
        with shop.api["a"].load(f"http://web.shop:{WEB}/agent") as outcome:
            assert b.node is not None
            b.node.send_signal(number)
            b.node.wait()
            assert shop.web["b"].get(f"http://api.shop:{API}/")[0] == 200
            assert shop.web["b"].resolve("api.shop") != []
            b.start_node()
            wait_until(
                lambda: (row := b.rows()["shop/web-b"])["ready"] and row["pid"] == before["pid"],
                "it is ready again, and its wrapper has found the new agent",
            )
            shop.wait_endpoints("a", ALL)
        assert outcome["failed"] == []
        after = b.rows()["shop/web-b"]
        assert {key: after[key] for key in ("pid", "proxyPid", "ports", "address")} == {
            key: before[key] for key in ("pid", "proxyPid", "ports", "address")
        }
        assert b.status()["dns"]["pid"] == dns  # type: ignore[index]
    assert shop.web["b"].process.poll() is None


def test_run_passes_streams_exit_codes_and_signals(shop: Shop) -> None:
    b = shop.mesh["b"]
    run = ("run", "--mesh", b.mesh, "--namespace", "shop", "-q", "--name", "once")
    assert b.weft(*run, "--", "tr", "a-z", "A-Z", stdin="through\n") == "THROUGH\n"
    b.weft(*run, "--", "sh", "-c", "exit 7", code=7)
    process = b.host.popen(
        *WEFT, *run, "--", "sh", "-c", "trap 'echo asked; exit 5' TERM; echo up; while :; do sleep 0.1; done",
        stdout=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.terminate()
        assert process.stdout.read() == "asked\n"
        assert process.wait(30) == 5
    wait_until(lambda: set(b.rows()) == {"shop/web-b"}, "nothing of them is left")


def test_a_new_version_is_rolled_out_under_load(shop: Shop) -> None:
    mesh = shop.mesh
    with shop.api["a"].load(f"http://web.shop:{WEB}/v1", 4) as outcome:
        for name, port in (("b", 8090), ("c", 8090)):
            new = mesh.run(name, f"web-{name}2", port, service="web", labels=["version=v2"], latency_s=0.05)
            new.wait_ready()
            old = shop.web[name]
            old.process.terminate()
            assert old.process.wait(40) in {128 + signal.SIGTERM, -signal.SIGTERM}, mesh[name].tail(old.name)
            assert old.id not in mesh[name].rows()
            shop.web[name] = new
        wait_until(
            lambda: shop.api["c"].get(f"http://web.shop:{WEB}/")[1] == "web-c2", "the new one is called"
        )
    assert outcome["failed"] == []
    assert set(outcome["by"]) == {"web-a", "web-b", "web-c", "web-b2", "web-c2"}
