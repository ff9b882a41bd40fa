"""HTTP byte by byte: requests as no client library sends them, and a server that keeps what reached it."""

from __future__ import annotations

import socket
import socketserver
from dataclasses import dataclass
from typing import Final

import h2.config
import h2.connection
import h2.errors
import h2.events

_TIMEOUT_S: Final = 20
_ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass(frozen=True, slots=True)
class Received:
    """A request as a server read it: the request line, and the header lines, without their line ends."""

    line: str
    fields: tuple[str, ...]

    @property
    def target(self) -> str:
        """The request target."""
        return self.line.split(" ")[1]


class _Reader(socketserver.StreamRequestHandler):
    server: Recorder

    def handle(self) -> None:
        while line := self.rfile.readline():
            fields = []
            while (field := self.rfile.readline()).strip():
                fields.append(field.decode("latin-1").strip())
            self._skip_body({name.lower(): value.strip() for name, _, value in map(_split, fields)})
            self.server.received.append(Received(line.decode("latin-1").strip(), tuple(fields)))
            self.wfile.write(_ANSWER)

    def _skip_body(self, fields: dict[str, str]) -> None:
        if "transfer-encoding" not in fields:
            self.rfile.read(int(fields.get("content-length") or 0))
            return
        while size := int(self.rfile.readline() or b"0", 16):
            self.rfile.read(size + 2)
        self.rfile.readline()


def _split(field: str) -> tuple[str, str, str]:
    return field.partition(":")


class Recorder(socketserver.ThreadingTCPServer):
    """Answers 200 to everything, and keeps in ``received`` what that was."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: str, port: int) -> None:
        self.received: list[Received] = []
        super().__init__((address, port), _Reader)


def send(connection: socket.socket, request: bytes) -> int:
    """Send bytes and read one answer; its status, 0 when the connection ends without any."""
    try:
        connection.sendall(request)
        return read_status(connection)
    except ConnectionError:
        return 0


def read_status(connection: socket.socket) -> int:
    """The status of the next answer, its body read; 0 when the connection ends before it."""
    with connection.makefile("rb") as answer:
        first = answer.readline()
        length = 0
        while (field := answer.readline()).strip():
            name, _, value = field.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        answer.read(length)
    return int(first.split(b" ")[1]) if first else 0


def send_http2(connection: socket.socket, headers: list[tuple[bytes, bytes]]) -> int:
    """Send one HTTP/2 request without a body, whatever its headers; its status, 0 when it is not answered.

    A connection that is ended and a stream that is reset are no answer.
    """
    config = h2.config.H2Configuration(
        header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
    )
    client = h2.connection.H2Connection(config)
    client.initiate_connection()
    client.send_headers(1, headers, end_stream=True)
    try:
        connection.sendall(client.data_to_send())
        while data := connection.recv(65536):
            for event in client.receive_data(data):
                match event:
                    case h2.events.ResponseReceived():
                        return int(dict(event.headers)[b":status"])
                    case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                        return 0
            connection.sendall(client.data_to_send())
    except ConnectionError:
        pass
    return 0


def dial(address: tuple[str, int]) -> socket.socket:
    """A connection that waits for each answer for a while."""
    return socket.create_connection(address, timeout=_TIMEOUT_S)
