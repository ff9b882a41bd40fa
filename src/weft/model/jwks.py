"""Sets of JSON web keys (RFC 7517), as far as their form goes."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

# y² = x³ - 3x + b modulo p, and the algorithm that goes with the curve.
_CURVES: Final = {
    "P-256": (
        2**256 - 2**224 + 2**192 + 2**96 - 1,
        0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
        "ES256",
    ),
    "P-384": (
        2**384 - 2**128 - 2**96 + 2**32 - 1,
        int(
            "b3312fa7e23ee7e4988e056be3f82d19181d9c6efe814112"
            "0314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aef",
            16,
        ),
        "ES384",
    ),
    "P-521": (
        2**521 - 1,
        int(
            "51953eb9618e1c9a1f929a21a0b68540eea2da725b99b315f3b8b489918ef109e"
            "156193951ec7e937b1652c0bd3bb1bf073573df883d2c34f1ef451fd46b503f00",
            16,
        ),
        "ES512",
    ),
}
_ED25519_BYTES: Final = 32
# What of a key verifies signatures.
_MEMBERS: Final = ("kty", "kid", "alg", "use", "crv", "x", "y", "n", "e", "k")
_DEEPEST: Final = 20
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")
_NEEDED: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "oct": ("k",)}


def key_set(text: str) -> str:
    """A complaint, or the empty text for a set of keys or one key."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"this is not JSON: {error}"
    if not isinstance(found, dict):
        return 'a key set is a JSON object, {"keys": […]}'
    keys = found.get("keys")
    if "keys" in found and not isinstance(keys, list):
        return "keys must be a list"
    return next((wrong for key in (keys if isinstance(keys, list) else [found]) if (wrong := _key(key))), "")


_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})


def public_part(key: Mapping[str, Any]) -> dict[str, Any]:
    """A key without what only its owner may know. A shared secret (``oct``) has no public part: it stays."""
    if key.get("kty") == "oct":
        return dict(key)
    return {name: value for name, value in key.items() if name not in _PRIVATE}


def private_keys(text: str) -> Iterator[int]:
    """The positions of keys that hold more than their public part."""
    if key_set(text):
        return
    found = json.loads(text)
    for number, key in enumerate(found.get("keys", [found])):
        if "d" in key or key["kty"] == "oct":
            yield number


def _key(key: object) -> str:
    if not isinstance(key, Mapping):
        return "a key must be a JSON object"
    kind = key.get("kty")
    if not isinstance(kind, str) or kind not in _NEEDED:
        return f"{kind!r} is not a type of key: write RSA, EC, OKP or oct under kty"
    if not isinstance(key.get("kid", ""), str):
        return "the key's kid must be text"
    return next((wrong for name in _NEEDED[kind] if (wrong := _member(key, name))), "")


def _member(key: Mapping[str, Any], name: str) -> str:
    value = key.get(name)
    if not isinstance(value, str) or not value:
        return f"the key has no {name}"
    if name == "crv":
        return ""
    try:
        base64.b64decode(
            value.rstrip("=") + "=" * (-len(value.rstrip("=")) % 4), altchars=b"-_", validate=True
        )
    except (binascii.Error, ValueError):
        return f"the key's {name} is not base64"
    return ""


def usable(key: object) -> bool:
    """Whether Envoy can verify signatures with a key. A set without any such key it refuses, with all else.

    Source: google/jwt_verify_lib (jwks.cc) and BoringSSL's bounds; a test holds it against Envoy.
    """
    if not isinstance(key, Mapping):
        return False
    algorithm = key.get("alg", "")
    if not isinstance(algorithm, str) or not isinstance(key.get("kid", ""), str):
        return False
    match key.get("kty"):
        case "RSA":
            return algorithm[:2] in {"", "RS", "PS"} and _is_rsa(_number(key.get("n")), _number(key.get("e")))
        case "EC":
            return _is_point(key.get("crv"), algorithm, _number(key.get("x")), _number(key.get("y")))
        case "OKP":
            size = len(_bytes(key.get("x")))
            return key.get("crv") == "Ed25519" and algorithm in {"", "EdDSA"} and size == _ED25519_BYTES
        case "oct":
            return algorithm[:2] in {"", "HS"} and bool(_bytes(key.get("k")))
    return False


def _is_rsa(n: int, e: int) -> bool:
    return n % 2 == 1 and 512 <= n.bit_length() <= 16384 and e in {3, 65537}


def _is_point(curve: object, algorithm: str, x: int, y: int) -> bool:
    if not isinstance(curve, str) or curve not in _CURVES:
        return False
    p, b, fitting = _CURVES[curve]
    inside = 0 < x < p and 0 < y < p
    return algorithm in {"", fitting} and inside and (y * y - x * x * x + 3 * x - b) % p == 0


def _bytes(value: object) -> bytes:
    if not isinstance(value, str) or not _PLAIN.fullmatch(value) or len(value) % 4 == 1:
        return b""
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))


def _number(value: object) -> int:
    return int.from_bytes(_bytes(value))


def slim(key: Mapping[str, Any]) -> dict[str, str]:
    """A key's public part, and nothing of it that verifies no signature."""
    return {name: key[name] for name in _MEMBERS if isinstance(key.get(name), str)}


def is_plain(text: str) -> bool:
    """Whether a JSON text means the same to everybody: nothing twice, no odd numbers, not too deep."""
    try:
        return _is_shallow(json.loads(text, object_pairs_hook=_once, parse_constant=_odd, parse_int=_small))
    except (ValueError, RecursionError):
        return False


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a member is there twice")
    return found


def _odd(name: str) -> None:
    raise ValueError(name)


def _small(digits: str) -> int:
    if len(digits) > 18:
        raise ValueError("too large")
    return int(digits)


def _is_shallow(value: object, depth: int = 0) -> bool:
    if isinstance(value, str):
        return not any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, float):
        return abs(value) < 1e300
    if not isinstance(value, dict | list):
        return True
    parts = [*value, *value.values()] if isinstance(value, dict) else value
    return depth < _DEEPEST and all(_is_shallow(part, depth + 1) for part in parts)
