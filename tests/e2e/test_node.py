"""The node with real Envoys, applications, rules and namespaces, from start to removal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.node_mesh import MiniMesh, until

from weft.errors import WeftError
from weft.node.adoption import sweep
from weft.node.app import Node, NodeOptions
from weft.node.capture import nft
from weft.node.capture.cgroup import Hierarchy
from weft.node.capture.choose import Mode
from weft.node.layout import Layout
from weft.node.probe import HttpGet, Probe
from weft.node.process import Process
from weft.node.serve import serve
from weft.node.spec import WorkloadSpec

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.getuid() != 0 or shutil.which("nft") is None or Hierarchy.find() is None,
        reason="needs root, nft and cgroup2",
    ),
]

# argv: port. /NAME calls http://NAME:port/ and answers what that says; / answers the environment's HOSTNAME.
APP = """
import http.server, os, sys, urllib.request
port = int(sys.argv[1])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.strip("/")
        try:
            if name: body = urllib.request.urlopen(f"http://{name}:{port}/", timeout=5).read()
            else: body = os.environ.get("HOSTNAME", "").encode()
            self.send_response(200)
        except OSError as error: body = repr(error).encode(); self.send_response(502)
        self.send_header("content-length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("0.0.0.0", port), Handler).serve_forever()
"""
CALL = """
import sys, urllib.request
try: print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())
except OSError as error: print("failed:", error)
"""
PYTHON = "/usr/bin/python3"


@pytest.fixture
async def mesh() -> AsyncIterator[MiniMesh]:
    async with MiniMesh("127.0.0.1").running() as found:
        yield found


@pytest.fixture
async def layout() -> AsyncIterator[Layout]:
    name = f"t{uuid.uuid4().hex[:6]}"
    with tempfile.TemporaryDirectory(prefix="weft-t") as base:
        Path(base).chmod(0o711)
        found = Layout(name, Path(base) / "run" / name, Path(base) / "state" / name)
        yield found
        # A test that failed half-way must not leave a mesh on the host.
        await sweep(found, keep=False)


def traces(layout: Layout) -> list[str]:
    """All that a mesh of this name left on the host."""
    mesh = layout.mesh
    hierarchy = Hierarchy.find()
    assert hierarchy is not None
    found = [str(path) for path in Path("/run/netns").glob(f"weft-{mesh}-*")]
    found += [str(path) for path in hierarchy.mount.glob(f"weft-{mesh}*")]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(layout.runtime).encode() in process.read_bytes():
                found.append(f"process {process.parent.name}")
    return found


def app(name: str, port: int = 8080, **more: Any) -> WorkloadSpec:
    return WorkloadSpec(
        name=f"{name}-0",
        namespace="shop",
        service_account=name,
        service=name,
        ports={"http": port},
        own_network=True,
        command=(PYTHON, "-ISc", APP, str(port)),
        env={"HOSTNAME": f"{name}-0"},
        **more,
    )


async def call(url: str, *prefix: str) -> str:
    child = await asyncio.create_subprocess_exec(
        *prefix, PYTHON, "-ISc", CALL, url, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(child.communicate(), 20)
    return out.decode().strip()


async def test_replicas_on_the_same_port_reach_each_other_by_name_over_mtls(
    mesh: MiniMesh, layout: Layout
) -> None:
    async with Node(layout, mesh, NodeOptions(name="host-1", resolvers=())) as node:
        network = await node.places.make_network()
        mesh.host = network.gateway
        await asyncio.gather(node.add(app("web")), node.add(app("catalog")))
        await until(lambda: mesh.ready == {"shop/web-0": True, "shop/catalog-0": True})
        web, catalog = node.workloads["shop/web-0"], node.workloads["shop/catalog-0"]
        inside = ("nsenter", f"--net={web.placement.netns}")
        # From the application: its name, its short name, a service of its own namespace, itself.
        assert await call("http://127.0.0.1:8080/catalog", *inside) == "catalog-0"
        assert await call("http://127.0.0.1:8080/catalog.shop.svc.cluster.local", *inside) == "catalog-0"
        assert await call("http://127.0.0.1:8080/web", *inside) == "web-0"
        # Without a sidecar the inbound listener wants a certificate that nobody has.
        assert "failed" in await call(f"http://{catalog.placement.address}:8080/")
        steps = [what for what, who in mesh.events if who in {"shop/web-0", "shop.web-0"}]
        assert steps[:3] == ["register", "certify", "ready"]
        assert web.describe()["certificate"]["notAfter"]
        assert web.placement.mode is Mode.NETNS
        await node.remove("shop/catalog-0")
        assert ("deregister", "shop/catalog-0") in mesh.events
    assert traces(layout) == []
    assert not layout.runtime.exists()


async def test_a_workload_on_the_hosts_network(mesh: MiniMesh, layout: Layout) -> None:
    port = free_port()
    async with (
        Node(layout, mesh, NodeOptions(name="host-1", resolvers=(), advertise="127.0.0.1")) as node,
        serve(node),
    ):
        wrapper, events = await join(layout, "web", port)
        try:
            await until(lambda: mesh.ready.get("shop/web"))
            assert events[-1]["capture"] == "nft"
            assert "failed" in await call(f"http://127.0.0.1:{port}/")
            group = node.workloads["shop/web"].placement.app_cgroup
            entered = ("sh", "-c", f'echo 0 > {group}/cgroup.procs && exec "$@"', "sh")
            assert await call(f"http://web:{port}/", *entered) == "web"
            assert await call(f"http://127.0.0.1:{port}/", *entered) == "web"
        finally:
            wrapper.terminate()
            await wrapper.wait()
        await until(lambda: not node.workloads)
        async with asyncio.timeout(10):
            while [name for name in await nft.tables() if layout.mesh in name]:
                pass  # the rules go just after the workload
    assert traces(layout) == []


async def test_the_next_agent_adopts_what_runs(mesh: MiniMesh, layout: Layout) -> None:
    port = free_port()
    options = NodeOptions(name="host-1", resolvers=(), advertise="127.0.0.1", keep_workloads=True, adopt=True)
    async with Node(layout, mesh, options) as node, serve(node):
        wrapper, _ = await join(layout, "web", port)
        await until(lambda: mesh.ready.get("shop/web"))
        pid, dns = node.workloads["shop/web"].sidecar.pid, node.resolver.pid
        group = node.workloads["shop/web"].placement.app_cgroup
    entered = ("sh", "-c", f'echo 0 > {group}/cgroup.procs && exec "$@"', "sh")
    try:
        # No agent lives: names and traffic go on.
        assert await call(f"http://web:{port}/", *entered) == "web"
        async with Node(layout, mesh, options) as node:
            adopted = node.workloads["shop/web"]
            assert (adopted.sidecar.pid, node.resolver.pid) == (pid, dns)
            assert await call(f"http://web:{port}/", *entered) == "web"
            wrapper.terminate()
            await wrapper.wait()
            await until(lambda: not node.workloads)
    finally:
        if wrapper.returncode is None:
            wrapper.kill()
            await wrapper.wait()
    async with Node(layout, mesh, NodeOptions(name="host-1", resolvers=())):
        pass
    assert traces(layout) == []


async def test_what_a_killed_agent_left_is_swept_by_the_next(mesh: MiniMesh, layout: Layout) -> None:
    code = f"""
import asyncio, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from tests.e2e.node_mesh import MiniMesh
from tests.e2e.test_node import app
from weft.node.adoption import sweep
from weft.node.app import Node, NodeOptions
from weft.node.layout import Layout
async def main():
    async with MiniMesh("127.0.0.1").running() as mesh:
        layout = Layout({layout.mesh!r}, Path({str(layout.runtime)!r}), Path({str(layout.state)!r}))
        async with Node(layout, mesh, NodeOptions(name="h", resolvers=())) as node:
            mesh.host = (await node.places.make_network()).gateway
            await node.add(app("web"))
            print("ready", flush=True)
            await asyncio.sleep(600)
asyncio.run(main())
"""
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    assert await asyncio.wait_for(child.stdout.readline(), 30) == b"ready\n"
    child.kill()
    await child.wait()
    assert traces(layout) != []
    async with Node(layout, mesh, NodeOptions(name="host-1", resolvers=())):
        assert traces(layout) == []


async def test_two_agents_in_one_directory_are_refused(mesh: MiniMesh, layout: Layout) -> None:
    async with Node(layout, mesh, NodeOptions(name="host-1")):
        with pytest.raises(WeftError, match="runs already"):
            async with Node(layout, mesh, NodeOptions(name="host-1")):
                pass
        assert layout.runtime.exists()


async def test_a_command_that_cannot_be_executed_says_so_and_others_go_on(
    mesh: MiniMesh, layout: Layout
) -> None:
    async with Node(layout, mesh, NodeOptions(name="host-1", resolvers=())) as node:
        mesh.host = (await node.places.make_network()).gateway
        broken = WorkloadSpec(name="broken", own_network=True, command=("/no/such/program",))
        workload = await node.add(broken)
        await until(lambda: workload.state == "failed")
        assert "/no/such/program" in workload.message
        with pytest.raises(WeftError, match="runs on this node already"):
            await node.add(broken)


async def test_an_application_that_dies_is_started_again_and_one_that_hangs_too(
    mesh: MiniMesh, layout: Layout
) -> None:
    async with Node(layout, mesh, NodeOptions(name="host-1", resolvers=())) as node:
        mesh.host = (await node.places.make_network()).gateway
        probe = Probe(handler=HttpGet(port="http"), period_s=0.2, failure_threshold=2)
        workload = await node.add(app("web", readiness=probe, liveness=probe))
        await until(lambda: mesh.ready.get("shop/web-0"))
        application = workload.application
        assert application is not None
        assert application.pid is not None
        first = Process.of(application.pid)
        assert first is not None
        first.send(signal.SIGKILL)
        await until(lambda: application.pid not in {None, first.pid})
        await until(lambda: mesh.ready.get("shop/web-0"))
        assert application.pid is not None
        second = Process.of(application.pid)
        assert second is not None
        second.send(signal.SIGSTOP)
        await until(lambda: not mesh.ready.get("shop/web-0"))
        second.send(signal.SIGCONT)
        await until(lambda: application.pid not in {None, second.pid}, 20)
        await until(lambda: mesh.ready.get("shop/web-0"))


def free_port() -> int:
    """Below the ephemeral ports, which connections of other tests take at any moment."""
    for port in range(21000, 31000, 7):
        with contextlib.suppress(OSError), socket.create_server(("0.0.0.0", port)):
            return port
    raise AssertionError("no port is free")


# What `weft run` does, in a few lines: join, wait for ready, execute, leave when told to stop.
WRAPPER = """
import json, os, signal, socket, subprocess, sys
node, request, *command = sys.argv[1:]
s = socket.socket(socket.AF_UNIX); s.connect(node); s.sendall(request.encode() + b"\\n")
for line in s.makefile():
    print(line, end="", flush=True)
    if json.loads(line)["event"] in {"ready", "error"}: break
child = subprocess.Popen(command, env={**os.environ, "HOSTNAME": "web"})
s.sendall(json.dumps({"op": "started", "pid": child.pid}).encode() + b"\\n")
def stop(*_):
    child.kill(); os._exit(0)
signal.signal(signal.SIGTERM, stop)
child.wait()
"""


async def join(
    layout: Layout, name: str, port: int
) -> tuple[asyncio.subprocess.Process, list[dict[str, Any]]]:
    request = {
        "op": "join",
        "name": name,
        "namespace": "shop",
        "serviceAccount": name,
        "service": name,
        "ports": {"http": port},
        "capture": "nft",
    }
    child = await asyncio.create_subprocess_exec(
        *(PYTHON, "-ISc", WRAPPER, str(layout.node_socket), json.dumps(request)),
        *(PYTHON, "-ISc", APP, str(port)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    events: list[dict[str, Any]] = []
    while not events or events[-1]["event"] not in {"ready", "error"}:
        line = await asyncio.wait_for(child.stdout.readline(), 20)
        assert line, "the wrapper ended"
        events.append(json.loads(line))
    assert events[-1]["event"] == "ready", events
    return child, events
