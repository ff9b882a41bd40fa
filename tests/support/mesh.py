"""Meshes for end-to-end tests: ``weft up`` as a user starts it, and the commands that speak to it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.support.envoy import UnixConnection, ask_admin
from tests.support.ports import free_port

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
SHOP = ROOT / "examples" / "shop"
WEFT = (sys.executable, "-m", "weft")
# A mesh that is just starting has a directory, and nobody answers there yet.
_STALE_S = 60


def wait_until(found: Callable[[], T], what: str, seconds: float = 20) -> T:
    """Ask again and again until the answer is true.

    Raises:
        AssertionError: it was not within ``seconds``.
    """
    end = time.monotonic() + seconds
    while True:
        answer = found()
        if answer:
            return answer
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        threading.Event().wait(0.05)


class Output:
    """What a process says, line by line, while it runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.lines: list[str] = []
        self._grown = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._thread.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._grown:
                self.lines.append(line.rstrip("\n"))
                self._grown.notify_all()
        with self._grown:
            self._ended = True
            self._grown.notify_all()

    def wait_for(self, pattern: str, seconds: float = 60) -> re.Match[str]:
        """The first line that has it, past or future.

        Raises:
            AssertionError: the process ended or the time was over; bears all that was said.
        """
        end = time.monotonic() + seconds
        seen = 0
        with self._grown:
            while True:
                for line in self.lines[seen:]:
                    if match := re.search(pattern, line):
                        return match
                seen = len(self.lines)
                left = end - time.monotonic()
                if self._ended or left <= 0:
                    raise AssertionError(f"no line has {pattern!r}:\n{self.text}")
                self._grown.wait(left)

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(self.lines)


@dataclass
class Mesh:
    """A running ``weft up``. ``prefix`` is put before every command (another user, another namespace)."""

    name: str
    process: subprocess.Popen[str]
    output: Output
    runtime: Path
    gateway_port: int
    prefix: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The gateway's address on this machine."""
        return f"http://127.0.0.1:{self.gateway_port}"

    def weft(self, *argv: str, check: bool = True, stdin: str | None = None, timeout: float = 60) -> str:
        """Run a command against this mesh; its output, errors included when ``check`` is off.

        Raises:
            AssertionError: when it fails and ``check`` is on.
        """
        done = self.run(*argv, stdin=stdin, timeout=timeout)
        if check:
            assert done.returncode == 0, f"weft {' '.join(argv)}: {done.stdout}{done.stderr}"
            return done.stdout
        return done.stdout + done.stderr

    def run(
        self, *argv: str, stdin: str | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """The same, with exit code and both streams."""
        return subprocess.run(
            [*self.prefix, *WEFT, *argv], input=stdin, capture_output=True, text=True, timeout=timeout,
            env={**os.environ, **self.env, "WEFT_SERVER": str(self.runtime / "api.sock")}, check=False,
        )  # fmt: skip

    def log(self, workload: str, name: str = "stdout.log") -> str:
        """A log of a workload (``namespace.name``): its sidecar's, with the access log, or ``app.log``."""
        return (self.runtime / "workloads" / workload / name).read_text()

    def rows(self) -> dict[str, dict[str, Any]]:
        """What ``weft ps`` says, by ``namespace/name``."""
        rows = json.loads(self.weft("ps", "--mesh", self.name, "-o", "json"))
        return {row["id"]: row for row in rows}

    def netns(self, workload: str) -> Path:
        """The network namespace of a replica (``namespace/name``) of a mesh that root runs."""
        return Path(f"/proc/{self.rows()[workload]['proxyPid']}/ns/net")

    def admin(self, workload: str, path: str) -> Any:
        """What the Envoy of a workload (``namespace.name``) itself says: JSON, or else text."""
        text = ask_admin(self.runtime / "workloads" / workload / "admin.sock", path)
        return json.loads(text) if text[:1] in "{[" else text

    def requests(self, workload: str, **fields: Any) -> list[dict[str, Any]]:
        """Lines of a workload's access log (``namespace.name``) that have these fields."""
        lines = [json.loads(line) for line in self.log(workload).splitlines() if line.startswith("{")]
        return [line for line in lines if all(line.get(key) == value for key, value in fields.items())]

    def kubectl(self, *argv: str, timeout: float = 60) -> str:
        """The real kubectl with the kubeconfig that the mesh wrote.

        Raises:
            subprocess.CalledProcessError: when it fails.
        """
        command = ["kubectl", "--kubeconfig", str(self.runtime / "kubeconfig"), *argv]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout).stdout

    def metric(self, name: str) -> float:
        """A series of the control plane that has no labels."""
        with UnixConnection(self.runtime / "api.sock") as connection:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def stop(self, seconds: float = 60) -> int:
        """Ctrl-C; the exit code.

        Raises:
            subprocess.TimeoutExpired: it did not end.
        """
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(seconds)


@functools.cache
def _sweep() -> None:
    """Remove what a test run that was killed in the middle left of its meshes."""
    for folder in Path("/run/weft").glob("t" + "[0-9a-f]" * 6):
        with contextlib.suppress(FileNotFoundError):
            age = time.time() - folder.stat().st_mtime
            if age > _STALE_S and not any(_answers(folder / name) for name in ("api.sock", "node.sock")):
                subprocess.run([*WEFT, "clean", "--mesh", folder.name], check=False, capture_output=True)
                shutil.rmtree(folder, ignore_errors=True)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@contextmanager
def up(
    *argv: str | Path,
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    runtime_root: Path = Path("/run/weft"),
    ready: bool = True,
    command: str = "up",
) -> Iterator[Mesh]:
    """``weft up`` with a mesh's name and a gateway port of its own; stopped at the end in any case."""
    _sweep()
    name = f"t{secrets.token_hex(3)}"
    port = free_port()
    process = subprocess.Popen(
        [*prefix, *WEFT, command, *map(str, argv), "--mesh", name, "--port-map", f"80={port}"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    mesh = Mesh(name, process, Output(process), runtime_root / name, port, prefix, env or {})
    try:
        if ready:
            mesh.output.wait_for("everything is ready")
        yield mesh
    finally:
        try:
            mesh.stop()
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            assert process.stdout is not None
            process.stdout.close()


def leftovers(name: str) -> list[str]:
    """Namespaces, bridges, nft tables, cgroups and files that still bear a mesh's name."""
    found: list[str] = []
    for argv in (["ip", "netns"], ["ip", "-o", "link"], ["nft", "list", "tables"]):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        found += [line for line in done.stdout.splitlines() if name in line]
    for root in (Path("/run/weft"), Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")):
        if root.is_dir():
            found += [str(path) for path in root.iterdir() if name in path.name]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if name in line and str(os.getpid()) != process.parent.name:
            found.append(line)
    return found


def port_open(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0
