"""gRPC of the test backend: who answers and what was asked, in the messages of the Gateway API's conformance
backend (package ``gateway_api_conformance.echo_basic.grpcecho``). Other services get their message back.

The few messages are written here by hand: fields of text and of messages only.
"""

from __future__ import annotations

from typing import Final

from weft.app.echo.answer import Asked, Echo

SERVICE: Final = "/gateway_api_conformance.echo_basic.grpcecho.GrpcEcho/"
_METHODS: Final = frozenset({"Echo", "EchoTwo"})
_TLS: Final = ((1, "version"), (2, "negotiatedProtocol"), (3, "serverName"), (4, "cipherSuite"))
_UNIMPLEMENTED: Final = 12
_PREFIX: Final = 5  # of each message: whether it is compressed, and its length in four bytes


def answer(echo: Echo, asked: Asked, body: bytes) -> tuple[int, str, bytes]:
    """gRPC status, its message, and the answer with its prefix, for a unary call."""
    if not asked.target.startswith(SERVICE):
        return 0, "", body
    method = asked.target.removeprefix(SERVICE)
    if method not in _METHODS:
        return _UNIMPLEMENTED, f"method {method} not implemented", b""
    message = _field(1, _assertions(echo, asked)) + _field(2, body[_PREFIX:])
    return 0, "", b"\0" + len(message).to_bytes(_PREFIX - 1, "big") + message


def _assertions(echo: Echo, asked: Asked) -> bytes:
    headers = [(":authority", asked.host), *asked.headers]
    parts = [_text(1, asked.target)]
    parts += (_field(2, _text(1, name) + _text(2, value)) for name, value in headers)
    parts += [_text(3, asked.host)]
    parts += [_field(4, _text(1, echo.namespace) + _text(3, echo.name) + _text(4, echo.pod))]
    if asked.tls is not None:
        said = [_text(number, str(asked.tls[key])) for number, key in _TLS]
        said += (_text(5, str(pem)) for pem in asked.tls.get("peerCertificates") or ())
        parts += [_field(5, b"".join(said))]
    return b"".join(parts)


def _text(number: int, value: str) -> bytes:
    """An empty text is not sent, as in proto3."""
    return _field(number, value.encode()) if value else b""


def _field(number: int, value: bytes) -> bytes:
    """A field of the wire type for texts and messages; ``number`` is below 16."""
    size, length = bytearray(), len(value)
    while length > 0x7F:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    size.append(length)
    return bytes([number << 3 | 2]) + bytes(size) + value
