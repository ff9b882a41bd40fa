"""Who calls: a name and groups, and how that was proven."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from starlette.requests import HTTPConnection

PEER: Final = "weft.peer"
MASTERS: Final = "system:masters"
AUTHENTICATED: Final = "system:authenticated"
UNAUTHENTICATED: Final = "system:unauthenticated"
ANONYMOUS: Final = "system:anonymous"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Somebody whose identity is proven. ``name`` and ``groups`` are what roles are bound to.

    ``how``: ``socket``, ``certificate``, ``token``; ``credential`` says which one (a serial number, the id of
    a token). ``by`` is who really asks when it is somebody who may speak for others.
    """

    name: str
    groups: tuple[str, ...] = ()
    how: str = ""
    credential: str = ""
    by: str = ""


Authenticate = Callable[[HTTPConnection], Awaitable[Subject | None]]
"""Who sends this request; None when that is not proven."""


@dataclass(frozen=True, slots=True)
class UnixPeer:
    """The process at the other end of a Unix socket (SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int


def unix_peer(connection: HTTPConnection) -> UnixPeer | None:
    """Who is at the other end, when the request came over the Unix socket."""
    extensions = connection.scope.get("extensions") or {}
    peer = extensions.get(PEER)
    return peer if isinstance(peer, UnixPeer) else None


def client_certificate(connection: HTTPConnection) -> bytes | None:
    """The verified client certificate (DER), when the request came over TLS with one."""
    extensions = connection.scope.get("extensions") or {}
    certificate = (extensions.get("tls") or {}).get("client_cert")
    return certificate if isinstance(certificate, bytes) else None


def origin(connection: HTTPConnection) -> str:
    """From where: ``10.1.2.3:40000``, or ``uid 1000, pid 77`` over the Unix socket."""
    if (peer := unix_peer(connection)) is not None:
        return f"uid {peer.uid}, pid {peer.pid}"
    client = connection.client
    if client is None or not client.host:
        return "unknown"
    return f"[{client.host}]:{client.port}" if ":" in client.host else f"{client.host}:{client.port}"
