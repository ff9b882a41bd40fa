"""Trust bundles in SPIFFE's form: a JWK set whose keys bear certificates.

Source: SPIFFE Trust Domain and Bundle, section 4; X509-SVID, section 6.2 (one certificate in ``x5c``).
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from weft.identity.pem import AuthorityError, write_certificates

REFRESH_HINT: Final = timedelta(minutes=5)
_USE: Final = "x509-svid"
_TOKENS: Final = "jwt-svid"
_PUBLIC: Final = ("kid", "kty", "alg", "crv", "x", "y", "n", "e")
_MOST: Final = 100
_CURVES: Final = {"secp256r1": ("P-256", 32), "secp384r1": ("P-384", 48), "secp521r1": ("P-521", 66)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What a trust domain publishes: roots (PEM), public keys of tokens (JWKs), when to read it again."""

    roots: str
    token_keys: tuple[Mapping[str, Any], ...]
    refresh: timedelta


def write_bundle(roots: Iterable[x509.Certificate], *, sequence: int) -> dict[str, Any]:
    """The JSON form. ``sequence`` grows with every change."""
    return {
        "keys": [
            {
                **_public(root),
                "use": _USE,
                "x5c": [b64encode(root.public_bytes(Encoding.DER)).decode()],
            }
            for root in roots
        ],
        "spiffe_sequence": sequence,
        "spiffe_refresh_hint": int(REFRESH_HINT.total_seconds()),
    }


def read_bundle(body: bytes) -> Bundle:
    """What somebody else published. A set without roots is refused: it would take all trust away.

    Raises:
        AuthorityError: it is no bundle, has no roots or too many, or one of them is no authority.
    """
    try:
        found = json.loads(body)
        keys = [key for key in found["keys"] if key.get("use") == _USE]
        roots = [x509.load_der_x509_certificate(b64decode(key["x5c"][0], validate=True)) for key in keys]
        tokens = tuple(
            _token_key(key) for key in found["keys"] if key.get("use") == _TOKENS and key.get("kid")
        )
        hint = timedelta(seconds=int(found.get("spiffe_refresh_hint") or REFRESH_HINT.total_seconds()))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise AuthorityError("the answer is no SPIFFE bundle") from error
    if not 0 < len(roots) <= _MOST:
        raise AuthorityError(f"the SPIFFE bundle has {len(roots)} roots, not 1 to {_MOST}")
    if len(tokens) > _MOST:
        raise AuthorityError(f"the SPIFFE bundle has {len(tokens)} keys of tokens, more than {_MOST}")
    for root in roots:
        try:
            authority = root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (x509.ExtensionNotFound, ValueError):
            authority = False
        if not authority:
            raise AuthorityError("the SPIFFE bundle holds a certificate that is no authority's")
    return Bundle(roots=write_certificates(roots), token_keys=tokens, refresh=hint)


def _token_key(key: Mapping[str, Any]) -> dict[str, Any]:
    """The members that make a public key, and no others. Like ours, without ``use``."""
    return {name: key[name] for name in _PUBLIC if isinstance(key.get(name), str)}


def _public(root: x509.Certificate) -> dict[str, str]:
    """The members of a JWK for the root's key (RFC 7518, 6); none for kinds that are not known there."""
    key = root.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        curve, size = _CURVES[key.curve.name]
        point = key.public_numbers()
        return {"kty": "EC", "crv": curve, "x": _number(point.x, size), "y": _number(point.y, size)}
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        size = (numbers.n.bit_length() + 7) // 8
        return {"kty": "RSA", "n": _number(numbers.n, size), "e": _number(numbers.e, 3)}
    return {"kty": "OKP"}


def _number(value: int, size: int) -> str:
    return urlsafe_b64encode(value.to_bytes(size, "big")).rstrip(b"=").decode()
