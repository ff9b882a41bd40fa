"""The messages of the SPIFFE Workload API in protobuf's wire format: a handful, so no library is needed.

Fields: workload.proto of https://github.com/spiffe/go-spiffe; the format: protobuf.dev, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5
_DEPTH_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class X509Svid:
    """All DER: ``chain`` and ``bundle`` are certificates one after the other, ``key`` is PKCS 8."""

    spiffe_id: str
    chain: bytes
    key: bytes = field(repr=False)
    bundle: bytes


def x509_svids(
    svids: Sequence[X509Svid], federated: Mapping[str, bytes], revoked: Sequence[bytes] = ()
) -> bytes:
    """``X509SVIDResponse``. ``federated``: the bundles (DER) of other trust domains, by their SPIFFE ID."""
    made = b"".join(
        _message(
            1,
            _text(1, svid.spiffe_id) + _bytes(2, svid.chain) + _bytes(3, svid.key) + _bytes(4, svid.bundle),
        )
        for svid in svids
    )
    return made + b"".join(_bytes(2, crl) for crl in revoked) + _map(3, federated)


def x509_bundles(bundles: Mapping[str, bytes], revoked: Sequence[bytes] = ()) -> bytes:
    """``X509BundlesResponse``: DER by trust domain (its SPIFFE ID)."""
    return b"".join(_bytes(1, crl) for crl in revoked) + _map(2, bundles)


def jwt_svids(spiffe_id: str, tokens: Sequence[str]) -> bytes:
    """``JWTSVIDResponse``."""
    return b"".join(_message(1, _text(1, spiffe_id) + _text(2, token)) for token in tokens)


def jwt_bundles(bundles: Mapping[str, bytes]) -> bytes:
    """``JWTBundlesResponse``: a JWK set (JSON) by trust domain (its SPIFFE ID)."""
    return _map(1, bundles)


def validated(spiffe_id: str, claims: Mapping[str, Any]) -> bytes:
    """``ValidateJWTSVIDResponse``."""
    return _text(1, spiffe_id) + _message(2, _struct(claims))


def read_jwt_request(body: bytes) -> tuple[tuple[str, ...], str]:
    """``JWTSVIDRequest``: the audiences, and the SPIFFE ID that is wanted (empty: all).

    Raises:
        ValueError: it is malformed.
    """
    audience, wanted = [], ""
    for number, value in _fields(body):
        if number == 1:
            audience.append(_read_text(value))
        elif number == 2:
            wanted = _read_text(value)
    return tuple(audience), wanted


def read_validate_request(body: bytes) -> tuple[str, str]:
    """``ValidateJWTSVIDRequest``: the audience and the token.

    Raises:
        ValueError: it is malformed.
    """
    audience, token = "", ""
    for number, value in _fields(body):
        if number == 1:
            audience = _read_text(value)
        elif number == 2:
            token = _read_text(value)
    return audience, token


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _message(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(body)) + body


def _bytes(number: int, value: bytes) -> bytes:
    return _message(number, value) if value else b""


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode())


def _map(number: int, entries: Mapping[str, bytes]) -> bytes:
    return b"".join(
        _message(number, _text(1, key) + _bytes(2, value)) for key, value in sorted(entries.items())
    )


def _struct(fields: Mapping[str, Any], depth: int = 0) -> bytes:
    """``google.protobuf.Struct``."""
    return b"".join(
        _message(1, _text(1, str(key)) + _message(2, _value(value, depth + 1)))
        for key, value in fields.items()
    )


def _value(value: object, depth: int) -> bytes:
    """``google.protobuf.Value``. Numbers are doubles there."""
    import struct

    if depth > _DEPTH_MAX:
        raise ValueError("claims are nested too deeply")
    match value:
        case None:
            return _varint(1 << 3 | _VARINT) + b"\0"
        case bool():
            return _varint(4 << 3 | _VARINT) + bytes([value])
        case int() | float():
            return _varint(2 << 3 | _FIXED64) + struct.pack("<d", float(value))
        case str():
            return _message(3, value.encode())
        case Mapping():
            return _message(5, _struct(value, depth))
        case Sequence():
            return _message(6, b"".join(_message(1, _value(one, depth + 1)) for one in value))
    raise ValueError(f"{type(value).__name__} has no place in a message")


def _fields(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Fields that have a length; numbers are skipped, groups are refused."""
    at = 0
    while at < len(body):
        tag, at = _read_varint(body, at)
        match tag & 7:
            case 0:
                _, at = _read_varint(body, at)
                continue
            case 1:
                at += 8
                continue
            case 5:
                at += 4
                continue
            case 2:
                length, at = _read_varint(body, at)
            case kind:
                raise ValueError(f"wire type {kind}")
        if length > len(body) - at:
            raise ValueError("the message is cut off")
        yield tag >> 3, body[at : at + length]
        at += length
    if at > len(body):
        raise ValueError("the message is cut off")


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(body):
            break
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("the message is cut off")


def _read_text(value: bytes) -> str:
    return value.decode()
