"""Who calls, and what they may do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from starlette.requests import HTTPConnection

READING: Final = frozenset({"get", "list", "watch"})
PEER: Final = "weft.peer"


class Role(StrEnum):
    """What a subject may do with resources."""

    ADMIN = "admin"
    READER = "reader"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Somebody whose identity is proven. ``name`` is for people and history."""

    name: str
    role: Role = Role.NONE
    groups: tuple[str, ...] = ()

    def may(self, verb: str) -> bool:
        """Whether the verb (as ``list``, ``patch``) is allowed to it."""
        return self.role is Role.ADMIN or (self.role is Role.READER and verb in READING)


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
