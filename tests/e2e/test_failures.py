"""Parts of a running mesh are killed: traffic goes on, what died comes back, and the end leaves nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.load import Load, load
from tests.support.mesh import SHOP, WEFT, Mesh, leftovers, port_open, up, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.getuid() != 0 or shutil.which("nft") is None, reason="needs root and nft"),
]

FEW = f"""
apiVersion: v1
kind: Service
metadata: {{name: echo}}
spec:
  selector: {{app: echo}}
  ports: [{{name: http, port: 8080}}]
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {{name: echo, labels: {{app: echo}}}}
spec:
  command: [{sys.executable}, -m, weft, echo]
  ports: [{{name: http, port: 8080}}]
  readinessProbe: {{httpGet: {{path: /, port: http}}}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: door}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
    - port: {{number: 80, name: http, protocol: HTTP}}
      hosts: ["*"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: echo}}
spec:
  hosts: ["*"]
  gateways: [door]
  http:
    - route: [{{destination: {{host: echo}}}}]
"""


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small service behind the gateway."""
    file = tmp_path_factory.mktemp("failures") / "few.yaml"
    file.write_text(FEW)
    return file


@pytest.fixture(scope="module")
def shop(few: Path) -> Iterator[Mesh]:
    with up(SHOP / "mesh.yaml", few) as mesh:
        yield mesh
    assert leftovers(mesh.name) == []


def part(mesh: Mesh, command: str) -> int:
    """The process of ``weft control-plane`` or ``weft node`` of a mesh."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            argv = path.read_bytes().decode(errors="replace").split("\0")
            if command in argv[:6] and mesh.name in argv and "-m" in argv:
                return int(path.parent.name)
    raise AssertionError(f"no {command} of {mesh.name} runs")


def clean(mesh: Mesh) -> str:
    """What ``weft clean`` removed."""
    done = subprocess.run([*WEFT, "clean", "--mesh", mesh.name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def traffic(mesh: Mesh) -> Iterator[Load]:
    """Requests through the gateway to the echo service; none may fail."""
    with load("127.0.0.1", mesh.gateway_port, pause_s=0.01) as sent:
        sent.wait_for(20)
        yield sent
        sent.wait_for(100)
    assert sent.failures == []
    assert set(sent.answers) == {200}


def test_an_envoy_that_is_killed_is_back_at_once(shop: Mesh) -> None:
    before = shop.rows()["shop/front-v1-0"]
    os.kill(before["proxyPid"], signal.SIGKILL)
    # Bounded generously for a busy machine; the node starts it again without a pause.
    wait_until(
        lambda: (row := shop.rows()["shop/front-v1-0"])["ready"] and row["proxyPid"] != before["proxyPid"],
        "the sidecar of front is back", seconds=5,
    )  # fmt: skip
    after = shop.rows()["shop/front-v1-0"]
    assert (after["pid"], after["proxyRestarts"]) == (before["pid"], 1), "the application was left alone"
    reply = shop.weft("call", "--mesh", shop.name, "--from", "front-v1-0.shop", "http://users:8080/users/ada")
    assert "ada" in reply


def test_an_application_that_crashes_is_started_again(shop: Mesh) -> None:
    before = shop.rows()["shop/users-v1-0"]
    os.kill(before["pid"], signal.SIGKILL)
    wait_until(
        lambda: (row := shop.rows()["shop/users-v1-0"])["restarts"] == 1 and row["pid"],
        "users was started again", seconds=10,
    )  # fmt: skip
    after = shop.rows()["shop/users-v1-0"]
    assert (after["proxyPid"], after["address"]) == (before["proxyPid"], before["address"])
    wait_until(
        lambda: (
            "ada"
            in shop.run(
                "call", "--mesh", shop.name, "--from", "front-v1-0.shop", "http://users:8080/users/ada"
            ).stdout
        ),
        "users answers again",
    )


def test_a_control_plane_that_is_killed_comes_back_while_traffic_goes_on(shop: Mesh) -> None:
    revision = shop.kubectl("get", "service", "echo", "-o", "jsonpath={.metadata.resourceVersion}")
    old = part(shop, "control-plane")
    proxies = {row["proxyPid"] for row in shop.rows().values()}
    with traffic(shop):
        os.kill(old, signal.SIGKILL)
        shop.output.wait_for("the control plane ended by itself")
        shop.output.wait_for("the control plane runs again")
        # The same ports and the same objects: nobody has to be told.
        assert (
            shop.kubectl("get", "service", "echo", "-o", "jsonpath={.metadata.resourceVersion}") == revision
        )
        wait_until(
            lambda: len(json.loads(shop.weft("proxy", "status", "-o", "json"))) == len(proxies),
            "every proxy has come back",
        )
        service = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: after}\ndata: {a: b}\n"
        assert "created" in shop.weft("apply", "--wait", "-", stdin=service)
    assert part(shop, "control-plane") != old
    assert {row["proxyPid"] for row in shop.rows().values()} == proxies


def test_a_node_that_is_killed_is_followed_by_one_that_adopts(shop: Mesh) -> None:
    def processes() -> dict[str, tuple[int, int]]:
        return {name: (row["pid"], row["proxyPid"]) for name, row in shop.rows().items() if row["ready"]}

    wait_until(lambda: len(processes()) == 11, "all are ready")
    before = processes()
    with traffic(shop):
        os.kill(part(shop, "node"), signal.SIGKILL)
        shop.output.wait_for("the node ended by itself")
        # Names are answered by a process that the agent's death does not touch.
        network = f"--net=/proc/{before['shop/front-v1-0'][1]}/ns/net"
        found = subprocess.run(
            ["nsenter", network, "getent", "hosts", "orders.shop"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        assert found.stdout.startswith("240.240.")
        shop.output.wait_for("the node runs again")
        wait_until(lambda: processes() == before, "all was adopted: the same processes, and ready")
    # It is in charge of them all: what crashes is started again.
    os.kill(before["shop/catalog-v1-0"][0], signal.SIGKILL)
    wait_until(
        lambda: (
            (row := shop.rows()["shop/catalog-v1-0"])["pid"] not in {None, before["shop/catalog-v1-0"][0]}
            and row["ready"]
        ),
        "catalog was started again",
    )


def running(name: str) -> list[str]:
    """What is left of a mesh but its directory."""
    return [one for one in leftovers(name) if one != f"/run/weft/{name}"]


def test_nothing_runs_on_after_a_weft_up_that_is_killed(few: Path) -> None:
    with up(few) as mesh:
        assert port_open(mesh.gateway_port)
        mesh.process.kill()
        mesh.process.wait()
        # The kernel tells its parts, and they end in order.
        wait_until(lambda: running(mesh.name) == [], "everything ends", seconds=30)
        assert not port_open(mesh.gateway_port)
        clean(mesh)
    assert leftovers(mesh.name) == []


def test_weft_clean_removes_what_a_crash_of_everything_left(few: Path) -> None:
    with up(few) as mesh:
        doomed = [mesh.process.pid, part(mesh, "node"), part(mesh, "control-plane")]
        for pid in doomed:
            os.kill(pid, signal.SIGKILL)
        mesh.process.wait()
        assert port_open(mesh.gateway_port), "gateway and services still run: there is something to clean"
        assert "removed" in clean(mesh)
    assert leftovers(mesh.name) == []
    assert not port_open(mesh.gateway_port)


@pytest.mark.parametrize("at", ["revision", "workload default/echo-0"])
def test_ctrl_c_in_the_middle_of_a_start_leaves_nothing(few: Path, at: str) -> None:
    with up(few, ready=False) as mesh:
        mesh.output.wait_for("mutual TLS" if at == "revision" else at)
        assert mesh.stop() == 0
    assert leftovers(mesh.name) == []
    assert "Traceback" not in mesh.output.text


def test_ctrl_c_before_anything_runs_leaves_nothing(few: Path) -> None:
    with up(few, ready=False) as mesh:
        wait_until(lambda: mesh.runtime.is_dir(), "the control plane is being started")
        mesh.stop()
    assert leftovers(mesh.name) == []
    assert "Traceback" not in mesh.output.text
