"""What a port speaks, by Istio's rules (istio.io: Protocol Selection)."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Protocol(StrEnum):
    """``AUTO``: not declared, so the proxy looks at the first bytes."""

    HTTP = "http"
    HTTP2 = "http2"
    GRPC = "grpc"
    GRPC_WEB = "grpc-web"
    HTTPS = "https"
    TLS = "tls"
    TCP = "tcp"
    UDP = "udp"
    AUTO = "auto"

    @property
    def is_http(self) -> bool:
        """HTTP that a proxy can read: not inside TLS that it does not end."""
        return self in _HTTP

    @property
    def may_be_http(self) -> bool:
        """HTTP, or not known before the first bytes."""
        return self in _HTTP or self is Protocol.AUTO

    @property
    def is_http2(self) -> bool:
        """HTTP/2 with prior knowledge."""
        return self in _HTTP2

    @property
    def may_be_grpc(self) -> bool:
        """HTTP/2, or not known before the first bytes."""
        return self in _HTTP2 or self is Protocol.AUTO

    @property
    def is_tls(self) -> bool:
        """TLS that passes through: only SNI can be read."""
        return self in _TLS


_HTTP: Final = frozenset({Protocol.HTTP, Protocol.HTTP2, Protocol.GRPC, Protocol.GRPC_WEB})
_HTTP2: Final = frozenset({Protocol.HTTP2, Protocol.GRPC, Protocol.GRPC_WEB})
_TLS: Final = frozenset({Protocol.HTTPS, Protocol.TLS})
_NAMES: Final = {p.value: p for p in Protocol if p is not Protocol.AUTO} | {
    "mongo": Protocol.TCP,
    "mysql": Protocol.TCP,
    "redis": Protocol.TCP,
    "hbone": Protocol.TCP,
    "http_proxy": Protocol.HTTP,
}
_KUBERNETES: Final = {
    "kubernetes.io/h2c": Protocol.HTTP2,
    "kubernetes.io/ws": Protocol.HTTP,
    "kubernetes.io/wss": Protocol.HTTPS,
}
_SERVER_FIRST_PORTS: Final = frozenset({25, 53, 3306, 27017})  # SMTP, DNS, MySQL, MongoDB


def parse_protocol(name: str) -> Protocol:
    """The protocol of a name, as ServiceEntry and Gateway ports write it; unknown names are ``AUTO``."""
    return _NAMES.get(name.lower(), Protocol.AUTO)


def protocol_of(
    number: int, name: str = "", transport: str = "TCP", app_protocol: str | None = None
) -> Protocol:
    """The protocol of a Kubernetes port: ``appProtocol`` first, then the name up to its first ``-``."""
    if transport == "UDP":
        return Protocol.UDP
    text = (app_protocol if app_protocol is not None else name).lower()
    if text in _KUBERNETES:
        return _KUBERNETES[text]
    if text.startswith("grpc-web"):
        return Protocol.GRPC_WEB
    found = parse_protocol(text.partition("-")[0])
    if found is Protocol.AUTO and number in _SERVER_FIRST_PORTS:
        return Protocol.TCP  # the server speaks first there, so looking at the client's bytes would hang
    return found
