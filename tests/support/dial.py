"""Connections as a captured application makes them: steered to its sidecar with a PROXY v2 header."""

from __future__ import annotations

import http.client
import ipaddress
import json
import socket
import ssl
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_PROXY = 0x21
_TCP4 = 0x11


def proxy_header(source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    """PROXY protocol version 2, TCP over IPv4."""
    addresses = ipaddress.IPv4Address(source[0]).packed + ipaddress.IPv4Address(destination[0]).packed
    body = addresses + struct.pack("!HH", source[1], destination[1])
    return _SIGNATURE + struct.pack("!BBH", _PROXY, _TCP4, len(body)) + body


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; ``body`` is what the backend said, if it was JSON."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def body(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.text)
        return loaded


class Connection(http.client.HTTPConnection):
    """HTTP to ``destination``, perhaps through a sidecar's outbound port, perhaps inside TLS."""

    def __init__(
        self,
        destination: tuple[str, int],
        *,
        through: tuple[str, int] | None = None,
        tls: ssl.SSLContext | None = None,
        sni: str | None = None,
    ) -> None:
        super().__init__(destination[0], destination[1], timeout=20)
        self._destination, self._through, self._tls, self._sni = destination, through, tls, sni

    def connect(self) -> None:
        self.sock = dial(self._destination, through=self._through)
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._sni)

    def ask(self, path: str = "/", method: str = "GET", host: str = "", **headers: str) -> Reply:
        """One request; underscores in the names of headers are dashes."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        if host:
            named["host"] = host
        self.request(method, path, headers=named)
        response = self.getresponse()
        return Reply(
            response.status,
            {key.lower(): value for key, value in response.getheaders()},
            response.read().decode(),
        )


def dial(destination: tuple[str, int], *, through: tuple[str, int] | None = None) -> socket.socket:
    """A TCP connection, as the application sees it."""
    connection = socket.create_connection(through or destination, timeout=20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if through is not None:
        connection.sendall(proxy_header(("127.0.0.1", 40000), destination))
    return connection
