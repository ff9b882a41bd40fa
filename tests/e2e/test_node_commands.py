"""`weft control-plane`, `node`, `run`, `ps`, `logs`, `check` and `clean` as their users type them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from weft.node.capture.cgroup import Hierarchy
from weft.node.layout import Layout

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.getuid() != 0 or shutil.which("nft") is None or Hierarchy.find() is None,
        reason="needs root, nft and cgroup2",
    ),
]

WEFT = (sys.executable, "-m", "weft")


@dataclass
class Host:
    mesh: str
    directory: Path
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, name: str, *argv: str, **env: str) -> subprocess.Popen[bytes]:
        with (self.directory / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                [*WEFT, *argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **env},
                start_new_session=True,
            )
        self.children.append(child)
        return child

    def weft(self, *argv: str, code: int = 0) -> str:
        done = subprocess.run(
            [*WEFT, *argv], capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.weft("ps", "--mesh", self.mesh, "-o", "json"))
        return rows


def until(condition: Callable[[], object], what: Callable[[], str], seconds: float = 25) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


@pytest.fixture
def host() -> Iterator[Host]:
    mesh = f"t{uuid.uuid4().hex[:6]}"
    with tempfile.TemporaryDirectory(prefix="weft-t") as base:
        found = Host(mesh, Path(base))
        try:
            yield found
        finally:
            for child in reversed(found.children):
                if child.poll() is None:
                    child.terminate()
            for child in found.children:
                try:
                    child.wait(20)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
            found.weft("clean", "--mesh", mesh, "--all")


@pytest.fixture
def joined(host: Host) -> Host:
    directory = host.directory
    api = free_port()
    host.start(
        "control", "control-plane", "--mesh", host.mesh, "--listen", "127.0.0.1",
        *("--xds-port", str(free_port()), "--api-port", str(api), "--monitoring-port", str(free_port())),
        *("--telemetry-port", "0"),
        *("--runtime-dir", str(directory / "control"), "--state-dir", str(directory / "state")),
    )  # fmt: skip
    api_socket = directory / "control" / "api.sock"
    until(lambda: _answers(api_socket), lambda: host.log("control"))
    token = ask_for_token(api_socket, "host-1")
    start_node(host, api, token)
    return host


def start_node(host: Host, api: int | None = None, token: str = "") -> subprocess.Popen[bytes]:
    where = ("--server", f"https://127.0.0.1:{api}") if api else ()
    argv = ("node", "--mesh", host.mesh, "--name", "host-1", "--advertise", "127.0.0.1", *where)
    child = host.start("node", *argv, **({"WEFT_TOKEN": token} if token else {}))
    path = Layout.of(host.mesh).node_socket

    def answers() -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            return True
        return False

    until(answers, lambda: host.log("node"))
    return child


def _answers(path: Path) -> bool:
    """Whether somebody listens there: the file is made before."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def ask_for_token(path: Path, node: str) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        body = json.dumps({"node": node})
        client.sendall(
            f"POST /weft/v1/tokens HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode()
        )
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["token"])


def free_port() -> int:
    for port in range(22000 + os.getpid() % 5000, 31000):
        with contextlib.suppress(OSError), socket.create_server(("0.0.0.0", port)):
            if port not in _given:
                _given.add(port)
                return port
    raise AssertionError("no port is free")


_given: set[int] = set()


def test_from_a_token_to_a_running_service_through_a_killed_agent_to_nothing(joined: Host) -> None:
    port = free_port()
    server = ("/usr/bin/python3", "-um", "http.server", str(port))
    joined.start(
        "app", "run", "--mesh", joined.mesh, "--name", "web", "--namespace", "shop", "--service", "web",
        "--port", f"http:{port}", "--", *server,
    )  # fmt: skip
    until(
        lambda: (rows := joined.rows()) and rows[0]["ready"],
        lambda: joined.log("app") + joined.log("node") + joined.log("control"),
    )
    row = joined.rows()[0]
    assert (row["id"], row["state"], row["capture"]) == ("shop/web", "running", "nft")
    assert "web" in joined.weft("ps", "--mesh", joined.mesh)
    joined.weft("logs", "--mesh", joined.mesh, "web", "--proxy", "-n", "5")
    report = joined.weft("check", "--mesh", joined.mesh)
    assert "control plane: connected" in report
    assert "workload shop/web: ready" in report
    refusal = joined.weft("clean", "--mesh", joined.mesh, code=1)
    assert "is running" in refusal

    node = joined.children[1]
    node.send_signal(signal.SIGKILL)
    node.wait()
    start_node(joined)
    until(lambda: (rows := joined.rows()) and rows[0]["ready"], lambda: joined.log("node"))
    assert joined.rows()[0]["proxyPid"] == row["proxyPid"]

    app = joined.children[2]
    app.terminate()
    assert app.wait(20) in {-signal.SIGTERM, 128 + signal.SIGTERM, 0}, joined.log("app")
    until(lambda: joined.rows() == [], lambda: joined.log("node"))


def test_clean_finds_by_name_what_lost_its_record(host: Host) -> None:
    hierarchy = Hierarchy.find()
    assert hierarchy is not None
    group = hierarchy.mount / f"weft-{host.mesh}" / "shop.web" / "app"
    group.mkdir(parents=True)
    sleeper = subprocess.Popen(
        ["sh", "-c", f"echo 0 > {group}/cgroup.procs && exec sleep 300"], start_new_session=True
    )
    table = f"weft-{host.mesh}"
    subprocess.run(["nft", "add", "table", "inet", table], check=True)
    try:
        until(lambda: (group / "cgroup.procs").read_text(), lambda: "it did not enter")
        assert "nothing to clean" in host.weft("clean", "--mesh", host.mesh)
        said = host.weft("clean", "--mesh", host.mesh, "--all")
        assert "cgroup" in said
        assert "nft tables" in said
        assert sleeper.wait(5) == -signal.SIGKILL
        assert not group.parents[1].exists()
        assert table not in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_host_that_has_not_joined_is_told_how(host: Host) -> None:
    said = host.weft("node", "--mesh", host.mesh, code=2)
    assert "has not joined a mesh yet" in said
    assert "weft token create" in said


def test_without_a_node_commands_say_so(host: Host) -> None:
    assert "no node runs" in host.weft("ps", "--mesh", host.mesh, code=1)
    assert "nothing to clean" in host.weft("clean", "--mesh", host.mesh)
