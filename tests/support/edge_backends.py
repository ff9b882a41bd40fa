"""Servers behind a gateway that speak what is not plain HTTP: TLS, and UDP."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import ssl
import tempfile
from collections.abc import Iterator
from typing import Any

from tests.support.backend import HttpBackend
from tests.support.certificates import Pair


class _Datagrams(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, reply = self.request
        reply.sendto(self.server.greeting + data, self.client_address)  # type: ignore[attr-defined]


class UdpBackend(socketserver.ThreadingUDPServer):
    """Sends back what it gets, behind its name."""

    def __init__(self, name: str) -> None:
        self.greeting = f"{name} ".encode()
        super().__init__(("127.0.0.1", 0), _Datagrams)

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class TlsBackend(HttpBackend):
    """An HTTP server inside TLS. ``names`` are the server names that clients asked for."""

    def __init__(self, port: int, name: str, pair: Pair, clients: str = "") -> None:
        super().__init__("127.0.0.1", port, name)
        self.names: list[str] = []
        self.callers: list[str] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with pem_file(pair) as path:
            context.load_cert_chain(path)
        if clients:
            context.load_verify_locations(cadata=clients)
            context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols(["http/1.1"])
        context.sni_callback = lambda _socket, name, _context: self.names.append(name or "")
        self._context = context

    def get_request(self) -> tuple[socket.socket, Any]:
        accepted, address = super().get_request()
        return self._context.wrap_socket(accepted, server_side=True), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Quiet: some clients are meant to fail."""


@contextlib.contextmanager
def pem_file(pair: Pair) -> Iterator[str]:
    """The path of a file with a certificate and its key, for who reads nothing else."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(pair.certificate + pair.key)
        file.flush()
        yield file.name
