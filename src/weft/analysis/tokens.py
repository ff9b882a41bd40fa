"""A token as Envoy reads it: what is wrong with it, in Envoy's words, and what it claims.

Rules: google/jwt_verify_lib (jwt.cc, check_audience.cc, verify.cc), which Envoy is built with; a test holds
them against a running Envoy.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

MISSING: Final = "Jwt is missing"
UNKNOWN_ISSUER: Final = "Jwt issuer is not configured"
AUDIENCE: Final = "Audiences in Jwt are not allowed"
_SKEW_S: Final = 60
_FAMILIES: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "HS": "oct", "Ed": "OKP"}
_ALGORITHMS: Final = frozenset(
    {*(f"{kind}{size}" for kind in ("RS", "PS", "ES", "HS") for size in (256, 384, 512)), "EdDSA"}
)
_MOST: Final = 1 << 64


class TokenError(Exception):
    """The token is not believed. The text is Envoy's."""


@dataclass(frozen=True, slots=True)
class Token:
    """``text`` is empty when nobody wrote it out: then its signature is taken for granted."""

    claims: Mapping[str, Any]
    header: Mapping[str, Any]
    text: str = ""

    @property
    def issuer(self) -> str:
        """Who made it; empty when it does not say."""
        return str(self.claims.get("iss", ""))

    @property
    def payload(self) -> str:
        """The claims as they stand in a token."""
        if self.text:
            return self.text.split(".")[1]
        return base64.urlsafe_b64encode(json.dumps(self.claims).encode()).rstrip(b"=").decode()


def _decoded(part: str, name: str) -> bytes:
    try:
        return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise TokenError(f"Jwt {name} is an invalid Base64url encoded") from error


def _object(part: str, name: str) -> dict[str, Any]:
    try:
        found = json.loads(_decoded(part, name), parse_constant=_no_constant, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise TokenError(f"Jwt {name} is an invalid JSON") from error
    if not isinstance(found, dict):
        raise TokenError(f"Jwt {name} is an invalid JSON")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a member is there twice")
    return found


def parse(text: str) -> Token:
    """The token in a text.

    Raises:
        TokenError: it is none.
    """
    parts = text.split(".")
    if len(parts) != 3 or not all(parts):
        raise TokenError("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")
    header = _object(parts[0], "header")
    if not isinstance(header.get("alg"), str):
        raise TokenError("Jwt header [alg] field is required and must be a string")
    if header["alg"] not in _ALGORITHMS:
        raise TokenError("Jwt header [alg] is not supported")
    if not isinstance(header.get("kid", ""), str):
        raise TokenError("Jwt header [kid] field is not a string")
    claims = _object(parts[1], "payload")
    check(claims)
    _decoded(parts[2], "signature")
    return Token(claims, header, text)


def check(claims: Mapping[str, Any]) -> None:
    """See to the types of the claims that are known.

    Raises:
        TokenError: one has another type.
    """
    for name in ("iss", "sub"):
        _text(claims, name)
    for name in ("iat", "nbf", "exp"):
        value = claims.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TokenError(f"Jwt payload [{name}] field is not an integer")
        if not 0 <= value < _MOST:
            raise TokenError(f"Jwt payload [{name}] field is not a positive 64 bit integer")
    _text(claims, "jti")
    audiences = claims.get("aud", "")
    if not isinstance(audiences, str) and not (
        isinstance(audiences, list) and all(isinstance(one, str) for one in audiences)
    ):
        raise TokenError("Jwt payload [aud] field is not a string or string list")


def _text(claims: Mapping[str, Any], name: str) -> None:
    if not isinstance(claims.get(name, ""), str):
        raise TokenError(f"Jwt payload [{name}] field is not a string")


def check_time(token: Token, now: float) -> None:
    """See to it that the token holds now.

    Raises:
        TokenError: it does not.
    """
    if token.claims.get("nbf", 0) > now + _SKEW_S:
        raise TokenError("Jwt not yet valid")
    until = token.claims.get("exp", 0)
    if until and now > until + _SKEW_S:
        raise TokenError("Jwt is expired")


def check_audience(token: Token, allowed: Iterable[str]) -> None:
    """See to it that the token is for one of these, if there are any.

    Raises:
        TokenError: it is for others.
    """
    wanted = {_bare(one) for one in allowed}
    said = token.claims.get("aud", [])
    names = [said] if isinstance(said, str) else said
    if wanted and not any(_bare(one) in wanted for one in names):
        raise TokenError(AUDIENCE)


def _bare(audience: str) -> str:
    """Without a scheme and a slash at the end, which do not count."""
    for scheme in ("http://", "https://"):
        if audience.startswith(scheme):
            audience = audience.removeprefix(scheme)
            break
    return audience.removesuffix("/")


def check_signature(token: Token, keys: Iterable[Mapping[str, Any]]) -> None:
    """See to it that one of the keys signed the token; one that nobody wrote out is taken to be.

    Raises:
        TokenError: none did.
    """
    if not token.text:
        return
    signed, _, signature = token.text.rpartition(".")
    algorithm, kid = str(token.header["alg"]), str(token.header.get("kid", ""))
    matched = False
    for key in keys:
        if kid and key.get("kid") and key["kid"] != kid:
            continue
        if key.get("alg") and key["alg"] != algorithm:
            continue
        matched = True
        fits = key.get("kty") == _FAMILIES[algorithm[:2]]
        if fits and _signs(key, algorithm, signed.encode(), _decoded(signature, "signature")):
            return
    if matched:
        raise TokenError("Jwt verification fails")
    raise TokenError("Jwks doesn't have key to match kid or alg from Jwt")


def _signs(key: Mapping[str, Any], algorithm: str, data: bytes, signature: bytes) -> bool:
    from jwt import PyJWK, PyJWTError

    try:
        found = PyJWK(dict(key), algorithm=algorithm)
        return bool(found.Algorithm.verify(data, found.key, signature))
    except (PyJWTError, ValueError, TypeError):
        return False  # no key that can be used, or one for another curve


def claim(claims: Mapping[str, Any], path: str) -> str:
    """A claim as the value of a header; ``a.b`` leads to ``b`` in ``a``. Empty: there is nothing to send."""
    found: Any = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, int | float):
        whole = 0 <= found < _MOST and found == int(found)
        return str(int(found)) if whole else f"{found:f}"
    if isinstance(found, list | dict):
        text = json.dumps(found, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
        return base64.urlsafe_b64encode(text.encode()).decode()
    return found if isinstance(found, str) else ""


def lists(claims: Mapping[str, Any], delimited: Iterable[str]) -> dict[str, Any]:
    """The claims, where texts with blanks in some of them are lists."""
    made = dict(claims)
    for name in delimited:
        if isinstance(made.get(name), str):
            made[name] = made[name].split(" ")
            made[name] = [part for part in made[name] if part]
    return made
