"""Which node of this host a command speaks to."""

from __future__ import annotations

import os
from pathlib import Path

from weft.errors import WeftError
from weft.node.layout import Layout


def find_socket(mesh: str) -> Path:
    """The socket of the caller's own node, else of the host's.

    Raises:
        WeftError: neither is there.
    """
    if named := os.environ.get("WEFT_NODE_SOCKET"):
        return Path(named)
    own, host = Layout.of(mesh).node_socket, Layout.of(mesh, uid=0).node_socket
    for path in (own, host):
        if path.exists():
            return path
    raise WeftError(f"no node runs for mesh {mesh!r}", hint="start one: weft up FILE…, or weft node")
