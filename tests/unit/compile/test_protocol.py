"""The protocol of a port."""

from __future__ import annotations

import pytest

from weft.compile.protocol import Protocol, protocol_of


@pytest.mark.parametrize(
    ("number", "name", "transport", "app_protocol", "wanted"),
    [
        (80, "http", "TCP", None, Protocol.HTTP),
        (80, "http-web", "TCP", None, Protocol.HTTP),
        (80, "httpweb", "TCP", None, Protocol.AUTO),
        (80, "HTTP2-x", "TCP", None, Protocol.HTTP2),
        (80, "grpc-web", "TCP", None, Protocol.GRPC_WEB),
        (80, "grpc-web-x", "TCP", None, Protocol.GRPC_WEB),
        (80, "grpc-api", "TCP", None, Protocol.GRPC),
        (443, "https", "TCP", None, Protocol.HTTPS),
        (443, "tls-x", "TCP", None, Protocol.TLS),
        (1, "mongo", "TCP", None, Protocol.TCP),
        (1, "redis-cache", "TCP", None, Protocol.TCP),
        (53, "http", "UDP", None, Protocol.UDP),
        (80, "", "TCP", None, Protocol.AUTO),
        (3306, "", "TCP", None, Protocol.TCP),
        (3306, "http", "TCP", None, Protocol.HTTP),
        (80, "tcp", "TCP", "http", Protocol.HTTP),
        (80, "http", "TCP", "kubernetes.io/h2c", Protocol.HTTP2),
        (80, "tcp", "TCP", "kubernetes.io/ws", Protocol.HTTP),
        (80, "tcp", "TCP", "kubernetes.io/wss", Protocol.HTTPS),
        (80, "http", "TCP", "example.com/own", Protocol.AUTO),
    ],
)
def test_istios_rules(
    number: int, name: str, transport: str, app_protocol: str | None, wanted: Protocol
) -> None:
    assert protocol_of(number, name, transport, app_protocol) is wanted
