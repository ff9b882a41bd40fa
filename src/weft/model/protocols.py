"""Protocols that a port may declare in Istio's resources, by their names in any case."""

from __future__ import annotations

from typing import Final

HTTP: Final = frozenset({"http", "http2", "http_proxy", "grpc", "grpc-web"})
TLS: Final = frozenset({"https", "tls"})
TCP: Final = frozenset({"tcp", "mongo", "redis", "mysql"}) | TLS
KNOWN: Final = HTTP | TCP | {"udp"}

HINT: Final = "write HTTP, HTTPS, HTTP2, GRPC, TLS or TCP"


def is_known(name: str | None) -> bool:
    """Whether there is such a protocol; none given means that the first bytes decide."""
    return not name or name.lower() in KNOWN


def is_http(name: str | None) -> bool:
    """Whether a proxy can read its requests."""
    return (name or "").lower() in HTTP


def is_tls(name: str | None) -> bool:
    """Whether it is TLS, whatever is inside."""
    return (name or "").lower() in TLS


def is_tcp(name: str | None) -> bool:
    """Whether it was declared as what runs over TCP and is not read."""
    return (name or "").lower() in TCP
