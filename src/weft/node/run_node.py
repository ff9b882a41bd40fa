"""The wrapper's talk with the node, in the words of docs/reference/node-socket.md. Standard library only."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

_START_S: Final = 15.0
_POLL_S: Final = 0.02
_DEFAULT_MESH: Final = "default"
_PEER: Final = struct.Struct("3i")  # pid, uid and gid: unix(7), SO_PEERCRED


class NodeError(Exception):
    """The node refused, or cannot be reached. ``hint`` is the remedy."""

    def __init__(self, message: str, hint: str = "", code: int = 1) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code


def socket_paths(mesh: str, environ: Mapping[str, str]) -> list[str]:
    """Where a node may listen: the one that was named, the user's own, the host's (as ``node/layout.py``).

    Before the default mesh's comes the one beside the control plane that WEFT_SERVER names.
    """
    if environ.get("WEFT_NODE_SOCKET"):
        return [environ["WEFT_NODE_SOCKET"]]
    paths = []
    server = environ.get("WEFT_SERVER", "").removeprefix("unix://")
    if (mesh or _DEFAULT_MESH) == _DEFAULT_MESH and server.startswith("/"):
        folder = server if os.path.isdir(server) else os.path.dirname(server)  # noqa: PTH112, PTH120
        beside = f"{folder}/node.sock"
        if os.path.exists(beside):  # noqa: PTH110
            return [beside]
    if os.getuid():
        runtime = environ.get("XDG_RUNTIME_DIR")
        base = f"{runtime}/weft" if runtime else f"{environ.get('TMPDIR') or '/tmp'}/weft-{os.getuid()}"  # noqa: S108
        paths.append(f"{base}/{mesh or _DEFAULT_MESH}/node.sock")
    return [*paths, f"/run/weft/{mesh or _DEFAULT_MESH}/node.sock"]


class Link:
    """One connection to the node, one request on it."""

    def __init__(self, sock: socket.socket, path: str) -> None:
        self.path = path
        self._socket = sock
        self._rest = b""
        self.open = True

    @classmethod
    def dial(cls, paths: list[str]) -> Link | None:
        """The first node that answers, or None. It must be root's or our own: it says what we execute.

        Raises:
            NodeError: a node listens, but not for us, or somebody else does.
        """
        for path in paths:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.connect(path)
            except PermissionError as error:
                sock.close()
                raise NodeError(f"{path}: {error.strerror}", "run as the node's user, or as root") from error
            except OSError:
                sock.close()
                continue
            owner = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[1]
            if owner not in {0, os.getuid()}:
                sock.close()
                raise NodeError(f"{path} is served by uid {owner}", "remove it, or set XDG_RUNTIME_DIR")
            return cls(sock, path)
        return None

    def fileno(self) -> int:
        """Readable when the node has said something."""
        return self._socket.fileno()

    def say(self, message: Mapping[str, Any]) -> None:
        """Send one message; nobody hears it when the node has gone."""
        with contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def read(self) -> Iterator[dict[str, Any]]:
        """What has come; waits for at least some bytes. ``open`` is False after the node's end."""
        try:
            body = self._socket.recv(1 << 16)
        except OSError:
            body = b""
        if not body:
            self.open = False
            return
        *lines, self._rest = (self._rest + body).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    yield event

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def start_node(argv: list[str], environ: Mapping[str, str], log: str) -> int:
    """Start a node of the user's own, nobody's child, so that it goes on when we end; its process id."""
    os.makedirs(os.path.dirname(log), mode=0o700, exist_ok=True)  # noqa: PTH103, PTH120 - no pathlib here
    told, tell = os.pipe()
    if os.fork():
        os.close(tell)
        os.wait()
        said = os.read(told, 20)
        os.close(told)
        return int(said)
    try:
        os.setsid()
        if pid := os.fork():
            os.write(tell, str(pid).encode())
            os._exit(0)
        null = os.open(os.devnull, os.O_RDONLY)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(null, 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execve(argv[0], argv, dict(environ))  # noqa: S606 - starting it is the purpose
    finally:
        os._exit(127)


def await_node(pid: int, paths: list[str], log: str) -> Link:
    """The node that was just started.

    Raises:
        NodeError: it ended, or does not answer within 15 s; its last line says why.
    """
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and _runs(pid):
        link = Link.dial(paths)
        if link is not None:
            return link
        time.sleep(_POLL_S)
    raise NodeError(
        f"the node did not start{_why(log)}",
        f"its first start needs --token and --control-plane (weft token create); see {log}",
    )


def _why(log: str) -> str:
    """The last error in a log, else its last line."""
    lines: list[str] = []
    with contextlib.suppress(OSError), open(log) as said:  # noqa: PTH123
        lines = said.read().strip().splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return "".join(f": {line.strip()}" for line in (errors or lines)[-1:])


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def node_command(mesh: str) -> list[str]:
    """How ``weft node`` is started from here; how it joins stands in its environment.

    Never by what else bears its name in the folder of the caller.
    """
    return [sys.executable, "-P", "-m", "weft", "node", "--mesh", mesh]
