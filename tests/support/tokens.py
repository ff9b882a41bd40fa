"""Keys and tokens for tests: good ones, and such as nobody should believe."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER: Final = "https://login.shop.example"
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def b64(data: bytes | str | Mapping[str, Any]) -> str:
    """Base64url without padding; a mapping as JSON."""
    if isinstance(data, Mapping):
        data = json.dumps(data)
    raw = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def rsa_key() -> rsa.RSAPrivateKey:
    """A new RSA key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def ec_key() -> ec.EllipticCurvePrivateKey:
    """A new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def _number(value: int, length: int = 0) -> str:
    return b64(value.to_bytes(length or (value.bit_length() + 7) // 8, "big"))


def jwk(key: Key, kid: str = "") -> dict[str, Any]:
    """The public part as a JSON web key."""
    named = {"kid": kid} if kid else {}
    if isinstance(key, rsa.RSAPrivateKey):
        public = key.public_key().public_numbers()
        return {"kty": "RSA", "alg": "RS256", **named, "n": _number(public.n), "e": _number(public.e)}
    point = key.public_key().public_numbers()
    x, y = _number(point.x, 32), _number(point.y, 32)
    return {"kty": "EC", "crv": "P-256", "alg": "ES256", **named, "x": x, "y": y}


def jwks(*keys: dict[str, Any]) -> str:
    """A key set."""
    return json.dumps({"keys": list(keys)})


def claims(**more: Any) -> dict[str, Any]:
    """Claims of a good token; None takes one away."""
    now = int(time.time())
    made = {"iss": ISSUER, "sub": "ann", "aud": "web", "iat": now, "exp": now + 86_400, **more}
    return {name: value for name, value in made.items() if value is not None}


def token(
    key: Key | bytes | None,
    said: Mapping[str, Any] | str | None = None,
    header: Mapping[str, Any] | str | None = None,
) -> str:
    """A signed token. ``key``: bytes are an HMAC secret, None leaves the signature empty.

    ``said`` and ``header`` may be text that is no JSON object; a mapping of headers replaces what is usual,
    None taking a member away.
    """
    usual = {rsa.RSAPrivateKey: "RS256", ec.EllipticCurvePrivateKey: "ES256", bytes: "HS256"}
    alg = next((name for kind, name in usual.items() if isinstance(key, kind)), "none")
    if not isinstance(header, str):
        whole = {"alg": alg, "typ": "JWT", **(header or {})}
        header = json.dumps({name: value for name, value in whole.items() if value is not None})
    body = claims() if said is None else said
    signed = f"{b64(header)}.{b64(body)}"
    return f"{signed}.{b64(_signature(key, signed.encode()))}"


def _signature(key: Key | bytes | None, data: bytes) -> bytes:
    if key is None:
        return b""
    if isinstance(key, bytes):
        made = hmac.HMAC(key, hashes.SHA256())
        made.update(data)
        return made.finalize()
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")
