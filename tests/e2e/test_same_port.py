"""Several applications on one port under ``weft up``: by network namespaces, bind rewriting and variables."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.support.mesh import Mesh, up, wait_until
from tests.support.user import User, interpreter, ordinary_user

# Two programs, and one that listens only when a file appears: all on 8080, as their authors wrote them.
PROGRAM = """
import os, socket, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
name, wait = sys.argv[1], sys.argv[2:]
while wait and not os.path.exists(wait[0]):
    time.sleep(0.05)
class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", str(len(name))); self.end_headers()
        self.wfile.write(name.encode())
def datagrams():
    with socket.socket(type=socket.SOCK_DGRAM) as asked:
        asked.bind((os.environ.get("HOST", ""), 8080))
        while True:
            asked.sendto(name.encode(), asked.recvfrom(1500)[1])
threading.Thread(target=datagrams, daemon=True).start()
ThreadingHTTPServer((os.environ.get("HOST", ""), 8080), Answer).serve_forever()
"""
WORKLOAD = """
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http, port: 8080}}]
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  command: [{python}, program.py, {name}{wait}]
  ports: [{{name: http, port: 8080}}, {{name: datagrams, port: 8080, protocol: UDP}}]
  readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1, initialDelaySeconds: 0}}
---
"""


# A program that is only told its address opens UDP there, where no peer calls it.
DATAGRAMS = (
    pytest.param("root", marks=pytest.mark.skipif(os.getuid() != 0, reason="needs root")),
    "seccomp",
)


@pytest.fixture(
    scope="module",
    params=[*DATAGRAMS, "env"],
)
def mesh(request: pytest.FixtureRequest) -> Iterator[tuple[Mesh, Path]]:
    """The mesh, and the file that ``late`` waits for."""
    with ExitStack() as stack:
        user: User = stack.enter_context(ordinary_user())
        root = request.param == "root"
        python, go = sys.executable if root else interpreter(user.uid), user.home / "go"
        user.write("program.py", PROGRAM)
        text = "".join(
            WORKLOAD.format(name=name, python=python, wait=f", {go}" if name == "late" else "")
            for name in ("one", "two", "late")
        )
        file = user.write("mesh.yaml", text)
        options: dict[str, Any] = {"ready": False}
        if not root:
            options |= {"prefix": user.prefix, "env": user.env, "runtime_root": user.runtime_root}
        capture = "nft" if root else request.param
        running = stack.enter_context(up(file, "--capture", capture, **options))
        for name in ("one", "two"):
            running.output.wait_for(f"workload default/{name}-0 ready")
        yield running, go


def rows(mesh: Mesh) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(mesh.weft("ps", "--mesh", mesh.name, "-o", "json"))}


def call(mesh: Mesh, source: str, target: str) -> str:
    """The answer of a service to a workload."""
    return mesh.weft(
        "call", "--mesh", mesh.name, "--from", f"default/{source}-0", f"http://{target}:8080/"
    ).strip()


def test_each_is_reached_under_its_name(mesh: tuple[Mesh, Path]) -> None:
    running, _ = mesh
    assert call(running, "one", "two") == "two"
    assert call(running, "two", "one") == "one"
    assert call(running, "one", "one") == "one"


def test_nobody_elses_port_makes_one_ready(mesh: tuple[Mesh, Path]) -> None:
    running, go = mesh
    # Two others answer on 8080. The probe of the third says why it is not ready, so it was asked.
    wait_until(lambda: "not ready" in rows(running)["late-0"]["message"], "the first failure of its probe")
    assert rows(running)["late-0"]["ready"] is False
    assert rows(running)["one-0"]["ready"] is True
    assert "no healthy upstream" in call(running, "one", "late")
    go.touch()
    wait_until(lambda: rows(running)["late-0"]["ready"], "late is ready")
    assert wait_until(lambda: call(running, "one", "late") == "late", "the answer of late")


def test_all_have_one_port_and_addresses_of_their_own(mesh: tuple[Mesh, Path]) -> None:
    found = rows(mesh[0])
    assert {tuple(row["ports"].values()) for row in found.values()} == {(8080, 8080)}
    assert len({row["address"] for row in found.values()}) == 3


@pytest.mark.parametrize("mesh", DATAGRAMS, indirect=True)
def test_datagrams_are_answered_from_where_they_were_sent(mesh: tuple[Mesh, Path]) -> None:
    for name in ("one", "two"):
        with socket.socket(type=socket.SOCK_DGRAM) as peer:
            peer.settimeout(5)
            peer.connect((rows(mesh[0])[f"{name}-0"]["address"], 8080))
            peer.send(b"who?")
            assert peer.recv(100) == name.encode()
