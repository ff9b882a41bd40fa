"""One host for benchmarks: a real control plane and a real node as processes, gone at the end.

Nothing of it is measured here. Names, ports and directories are its own, so that other meshes are not met.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.ports import free_port

from weft.app.nodesocket import NodeSocket
from weft.client import ApiClient, Server

ROOT = Path(__file__).resolve().parents[1]
USER = 54321
"""An ordinary user without a name, for what needs no root."""


@dataclass
class Host:
    """``rootless``: all of it runs as ``USER``. ``socket`` is the node's, ``api`` the control plane's."""

    mesh: str
    directory: Path
    rootless: bool
    url: str
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def runtime(self) -> Path:
        """Where the node keeps its sockets and its workloads."""
        return (self.directory / "run" / "weft" if self.rootless else Path("/run/weft")) / self.mesh

    @property
    def api(self) -> Path:
        """The control plane's socket."""
        return self.directory / "control" / "api.sock"

    @property
    def node(self) -> NodeSocket:
        """The node, asked."""
        return NodeSocket(self.runtime / "node.sock")

    def client(self) -> ApiClient:
        """The control plane, asked."""
        return ApiClient(Server(socket_path=self.api))

    def command(self, *argv: str) -> list[str]:
        """``weft argv`` as the user of this host types it."""
        if not self.rootless:
            return [sys.executable, "-m", "weft", *argv]
        # The environment's own interpreter may lie where only its owner goes.
        python = shutil.which("python3", path="/usr/bin") or sys.executable
        return [
            "setpriv",
            f"--reuid={USER}",
            f"--regid={USER}",
            "--clear-groups",
            python,
            "-m",
            "weft",
            *argv,
        ]

    def environment(self, **more: str) -> dict[str, str]:
        """What commands of this host are started with."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "XDG_"))}
        if self.rootless:
            kept |= {
                "HOME": str(self.directory),
                "XDG_RUNTIME_DIR": str(self.directory / "run"),
                "XDG_STATE_HOME": str(self.directory / "state"),
            }
        packages = [str(ROOT / "src"), *(path for path in sys.path if path.endswith("site-packages"))]
        return kept | {"PYTHONPATH": ":".join(packages)} | more

    def start(self, log: str, *argv: str, pipe: bool = False, **more: str) -> subprocess.Popen[bytes]:
        """Start ``weft argv``; with ``pipe`` its output can be read."""
        with (self.directory / f"{log}.log").open("ab") as file:
            child = subprocess.Popen(
                self.command(*argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if pipe else file,
                stderr=file, env=self.environment(**more), cwd="/", start_new_session=True,
            )  # fmt: skip
        self.children[log] = child
        return child

    async def wait(self, log: str, ready: Callable[[], bool], seconds: float = 60) -> None:
        """Until ``ready``.

        Raises:
            RuntimeError: the process that writes ``log`` ended, or the time is over; with what it said.
        """
        end = time.monotonic() + seconds
        while not ready():
            if self.children[log].poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{log}: {(self.directory / f'{log}.log').read_text()[-3000:]}")
            await asyncio.sleep(0.02)

    async def stop(self, log: str, seconds: float = 60) -> None:
        """End one process and wait for it."""
        child = self.children.pop(log)
        if child.poll() is None:
            child.terminate()
        try:
            await asyncio.to_thread(child.wait, seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@asynccontextmanager
async def host(
    *,
    rootless: bool = False,
    node: bool = True,
    capture: str = "auto",
    before: Callable[[Path], Awaitable[None]] | None = None,
) -> AsyncIterator[Host]:
    """A control plane and, with ``node``, a node that has joined it.

    ``before``: what is done to the control plane's directory of state before it starts.
    """
    with tempfile.TemporaryDirectory(prefix="weft-b", dir="/tmp") as base:
        ports = {name: str(free_port()) for name in ("xds", "api", "monitoring", "telemetry")}
        url = f"https://127.0.0.1:{ports['api']}"
        made = Host(f"b{secrets.token_hex(3)}", Path(base), rootless, url)
        if rootless:
            for directory in (made.directory, made.directory / "run", made.directory / "state"):
                directory.mkdir(mode=0o700, exist_ok=True)
                os.chown(directory, USER, USER)
        try:
            if before is not None:
                await before(made.directory / "state" / "c")
            made.start(
                "control", "control-plane", "--mesh", made.mesh, "--listen", "127.0.0.1",
                *(part for name, port in ports.items() for part in (f"--{name}-port", port)),
                "--runtime-dir", str(made.api.parent), "--state-dir", str(made.directory / "state" / "c"),
            )  # fmt: skip
            await made.wait("control", lambda: _answers(made.api))
            if node:
                async with made.client() as client:
                    token = (await client.raw("POST", "/weft/v1/tokens", {"node": "bench"}))["token"]
                made.start(
                    "node", "node", "--mesh", made.mesh, "--name", "bench", "--advertise", "127.0.0.1",
                    "--server", url, "--capture", capture, "--ephemeral",
                    WEFT_TOKEN=str(token),
                )  # fmt: skip
                await made.wait("node", made.node.path.exists)
            yield made
        finally:
            for log in [*reversed(made.children)]:
                await made.stop(log)
            with suppress(OSError):
                await asyncio.to_thread(
                    subprocess.run, made.command("clean", "--mesh", made.mesh, "--all"),
                    env=made.environment(), cwd="/", capture_output=True, timeout=60, check=False,
                )  # fmt: skip


def memory(pid: int) -> dict[str, float]:
    """Memory of a process in MB: ``rss`` counts what it shares with others, ``private`` is its own alone."""
    fields: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        fields[name] = int(value.split()[0])
    private = fields["Private_Clean"] + fields["Private_Dirty"]
    return {"rss_mb": round(fields["Rss"] / 1024, 1), "private_mb": round(private / 1024, 1)}


def cpu_seconds(pid: int) -> float:
    """CPU time that a process used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def objects(count: int, endpoints: int, *, first: int = 0) -> list[dict[str, Any]]:
    """Services ``service-N`` with their WorkloadEntries, as they are applied."""
    found: list[dict[str, Any]] = []
    for number in range(first, first + count):
        name = f"service-{number}"
        spec = {
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 8000 + number % 10, "targetPort": 8080}],
        }
        found.append({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
        found += [
            {
                "apiVersion": "networking.istio.io/v1",
                "kind": "WorkloadEntry",
                "metadata": {"name": f"{name}-{place}"},
                "spec": {
                    "address": f"10.{number // 256}.{number % 256}.{place + 1}",
                    "labels": {"app": name, "version": "v1"},
                    "serviceAccount": "default",
                    "ports": {"http": 8080},
                },
            }
            for place in range(endpoints)
        ]
    return found
