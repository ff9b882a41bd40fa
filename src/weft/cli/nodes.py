"""Which node of this host a command speaks to."""

from __future__ import annotations

import os
from pathlib import Path

from weft.client.locate import SERVER_VARIABLE, runtime_directories
from weft.errors import UsageError, WeftError
from weft.node.layout import DEFAULT_MESH, Layout


def find_socket(mesh: str) -> Path:
    """The socket of the caller's own node, else of the host's.

    Who names no mesh means the one whose control plane WEFT_SERVER names, else the default one, else the only
    one that runs here.

    Raises:
        UsageError: several run, and none of them is meant.
        WeftError: none runs.
    """
    if named := os.environ.get("WEFT_NODE_SOCKET"):
        return Path(named)
    server = os.environ.get(SERVER_VARIABLE, "").removeprefix("unix://")
    if mesh == DEFAULT_MESH and server.startswith("/"):
        beside = (Path(server) if Path(server).is_dir() else Path(server).parent) / "node.sock"
        if beside.exists():
            return beside
    own, host = Layout.of(mesh).node_socket, Layout.of(mesh, uid=0).node_socket
    for path in (own, host):
        if path.exists():
            return path
    running = _running()
    if mesh == DEFAULT_MESH and len(running) == 1:
        return running[0]
    message, start = f"no node runs for mesh {mesh!r}", "start one: weft up FILE…, or weft node"
    meshes = ", ".join(path.parent.name for path in running)
    if running and mesh == DEFAULT_MESH:
        raise UsageError(message, hint=f"these run here: {meshes}; choose with --mesh")
    raise WeftError(message, hint=f"these run here: {meshes}; or {start}" if running else start)


def _running() -> list[Path]:
    """Sockets of nodes that the caller or root runs: in /tmp anybody may make one."""
    uid = os.getuid()
    sockets = [
        path
        for directory in runtime_directories(os.environ, uid)
        for path in (directory / "node.sock", *sorted(directory.glob("*/node.sock")))
    ]
    return [path for path in sockets if path.exists() and path.lstat().st_uid in {0, uid}]
