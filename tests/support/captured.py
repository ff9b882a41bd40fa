"""A node for one wrapper, with a stand-in for its sidecar that tells where connections wanted to go."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import weft.node.run
from tests.support.mesh import ROOT
from tests.support.user import road

NOBODY = 65534
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def interpreter() -> str:
    """A Python that an ordinary user can execute: ours may lie in root's home."""
    for path in (sys.executable, "/usr/bin/python3"):
        # By a shell: setpriv itself still has root's rights when it looks a program up.
        probe = as_user("sh", "-c", f"exec {path} -I -S -c '' 2>/dev/null")
        if Path(path).exists() and subprocess.run(probe, check=False).returncode == 0:
            return path
    raise FileNotFoundError("no Python that an ordinary user can execute")


def as_user(*argv: str) -> list[str]:
    """The command as an ordinary user."""
    if os.getuid():
        return list(argv)
    nothing = [f"--{which}=-all" for which in ("inh-caps", "ambient-caps", "bounding-set")]
    return [
        *road(ROOT),
        "setpriv",
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        *nothing,
        *argv,
    ]


class Sidecar:
    """Accepts on a loopback address, reads PROXY v2, answers HTTP with the original destination."""

    def __init__(self, address: str, backlog: int = 128) -> None:
        self.listener = socket.create_server((address, 0), backlog=backlog)
        self.port: int = self.listener.getsockname()[1]
        self.seen: list[str] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection:
            stream = connection.makefile("rwb")
            head = stream.read(16)
            if head[:12] != _SIGNATURE:
                self.seen.append(f"no header: {head!r}")
                return
            (length,) = struct.unpack_from("!H", head, 14)
            body = stream.read(length)
            wide = head[13] == 0x21
            size, family = (16, socket.AF_INET6) if wide else (4, socket.AF_INET)
            ip = socket.inet_ntop(family, body[size : 2 * size])
            (port,) = struct.unpack_from("!H", body, 2 * size + 2)
            self.seen.append(to := f"[{ip}]:{port}" if wide else f"{ip}:{port}")
            while (line := stream.readline()) not in {b"\r\n", b"\n", b""}:
                del line
            stream.write(
                f"HTTP/1.1 200 OK\r\ncontent-length: {len(to)}\r\nconnection: close\r\n\r\n{to}".encode()
            )
            stream.flush()

    def close(self) -> None:
        self.listener.close()


class Node:
    """Answers one ``join`` or ``attach`` after another with the same place; keeps what it was told."""

    def __init__(self, directory: Path, sidecar: Sidecar, app_address: str, advertised: str) -> None:
        self.path = directory / "node.sock"
        self.hosts = directory / "hosts"
        self.hosts.write_text("127.0.0.1 localhost\n240.240.0.7 catalog catalog.shop\n")
        self.hosts.chmod(0o644)
        self.told: list[dict[str, Any]] = []
        self.capture = "seccomp"
        self.env: dict[str, str] = {}
        self.refuse: dict[str, Any] | None = None
        self.drain = threading.Event()
        self.drain.set()
        self.place = {
            "outboundAddress": sidecar.listener.getsockname()[0],
            "outboundPort": sidecar.port,
            "inboundAddress": advertised,
            "appAddress": app_address,
        }
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(self.path))
        self.path.chmod(0o666)
        self._server.listen(8)
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def hang_up(self) -> None:
        """As a node that is killed."""
        for connection in self._connections:
            connection.shutdown(socket.SHUT_RDWR)

    def ops(self) -> list[str]:
        """What was asked, in order."""
        return [str(message.get("op")) for message in self.told]

    def tell(self, event: dict[str, Any]) -> None:
        """Say something to the wrapper of the last connection."""
        self._connections[-1].sendall(json.dumps(event).encode() + b"\n")

    def _one(self, connection: socket.socket) -> None:
        for line in connection.makefile("rb"):
            message = json.loads(line)
            self.told.append(message)
            match message["op"]:
                case "join" | "attach" if self.refuse:
                    self._say(connection, {"event": "error", **self.refuse})
                case "join" | "attach":
                    self._say(connection, {"event": "progress", "step": "proxy", "message": "starting"})
                    self._say(connection, self._ready())
                case "leave":
                    self.drain.wait(20)
                    self._say(connection, {"event": "drained"})
                case "exited":
                    self._say(connection, {"event": "left"})

    @staticmethod
    def _say(connection: socket.socket, event: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # who asked may be gone already
            connection.sendall(json.dumps(event).encode() + b"\n")

    def _ready(self) -> dict[str, Any]:
        return {
            "event": "ready",
            "id": "shop/web",
            "address": self.place["inboundAddress"],
            "capture": self.capture,
            "covers": "TCP",
            "limits": ["UDP"],
            "env": self.env,
            "hosts": str(self.hosts) if self.capture == "seccomp" else None,
            "attachment": self.place,
        }

    def close(self) -> None:
        self._server.close()


@contextmanager
def node(directory: Path, *, second: int = 0, backlog: int = 128) -> Iterator[tuple[Node, Sidecar]]:
    """A node and a sidecar with loopback addresses that no other test has (by process id)."""
    tail = f"{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}"
    app = f"127.{64 + second}.{tail}"
    directory.chmod(0o755)
    sidecar = Sidecar(app, backlog)
    served = Node(directory, sidecar, app, f"127.{128 + second}.{tail}")
    try:
        yield served, sidecar
    finally:
        served.close()
        sidecar.close()


def wrapped(served: Node, command: Sequence[str], *, user: bool = True) -> list[str]:
    """The command line that runs ``command`` under the wrapper; see ``environment`` for its variables."""
    argv = [
        interpreter() if user else sys.executable,
        "-I",
        "-S",
        str(weft.node.run.__file__),
        "--",
        *command,
    ]
    return as_user(*argv) if user else argv


def environment(served: Node, **more: str) -> dict[str, str]:
    """What the wrapper needs to find ``served``."""
    plan = {"join": {"name": "web", "namespace": "shop"}, "quiet": True}
    return {
        "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
        "WEFT_NODE_SOCKET": str(served.path),
        "WEFT_RUN": json.dumps(plan),
        "HOME": "/nonexistent",
        **more,
    }
