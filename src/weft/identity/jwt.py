"""JWT-SVIDs: the keys that sign them, what is in them, and how one is verified. Pure: no clock, no store.

Form: SPIFFE JWT-SVID (https://github.com/spiffe/spiffe/blob/main/standards/JWT-SVID.md): ``sub`` is the
identity, ``aud`` and ``exp`` are required; keys are published as a JWK set (RFC 7517), found by ``kid``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from weft.errors import WeftError
from weft.identity.pem import read_key, write_key
from weft.identity.pin import spki_sha256
from weft.spiffe import SpiffeId

ALGORITHM: Final = "ES256"
LIFETIME: Final = timedelta(minutes=5)
# A key is known to everybody long before it signs, and for as long as a token of it may be shown.
_SIGNS: Final = timedelta(days=7)
_AHEAD: Final = timedelta(days=1)
_KEPT: Final = timedelta(hours=1)
# What the standard allows; none of them is symmetric, and "none" is not among them.
_ALGORITHMS: Final = ("ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_TYPES: Final = (None, "JWT", "JOSE")
_AUDIENCES_MAX: Final = 16
_AUDIENCE_MAX: Final = 256
_TOKEN_MAX: Final = 16 * 1024
_IDENTITY_MAX: Final = 2048
_LEEWAY_S: Final = 60


class SvidError(WeftError):
    """A JWT-SVID cannot be issued, or is not to be believed."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key, P-256, PEM. It signs from ``since`` to ``until`` (UTC)."""

    id: str
    pem: str = field(repr=False)
    since: datetime
    until: datetime

    @classmethod
    def create(cls, since: datetime) -> Self:
        """A new one; its id is the hash of its public key."""
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(spki_sha256(key.public_key()), write_key(key), since, since + _SIGNS)

    def public(self) -> dict[str, Any]:
        """The JWK of its public half, without ``use``: verifiers differ in what they want there."""
        found: dict[str, Any] = ECAlgorithm.to_jwk(read_key(self.pem.encode()).public_key(), as_dict=True)
        return {**found, "kid": self.id, "alg": ALGORITHM}


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """The keys of a trust domain, the oldest first: one that signs, its successor before its time comes, and
    predecessors whose tokens may still be valid. ``generation`` counts their changes."""

    keys: tuple[SigningKey, ...]
    generation: int = 1

    @classmethod
    def create(cls, now: datetime) -> Self:
        """The first key; it signs at once, since nobody knows any other."""
        return cls((SigningKey.create(now),))

    def at(self, now: datetime) -> SigningKeys:
        """What they have to be now: itself when nothing is due."""
        kept = tuple(key for key in self.keys if now < key.until + _KEPT)
        if not kept or kept[-1].until <= now:
            kept = (*kept, SigningKey.create(now))
        elif now >= kept[-1].until - _AHEAD:
            kept = (*kept, SigningKey.create(kept[-1].until))
        return self if kept == self.keys else SigningKeys(kept, self.generation + 1)

    def signer(self, now: datetime) -> SigningKey:
        """The key that signs now; call it on what ``at`` gave."""
        return next(key for key in self.keys if now < key.until)

    def public(self) -> list[dict[str, Any]]:
        """All of them as JWKs: what verifiers have to know."""
        return [key.public() for key in self.keys]

    def to_json(self) -> bytes:
        """Everything, the private keys included."""
        return json.dumps(asdict(self), default=datetime.isoformat).encode()

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Read what ``to_json`` wrote."""
        found = json.loads(body)
        rows = (
            {**row, **{name: datetime.fromisoformat(row[name]) for name in ("since", "until")}}
            for row in found["keys"]
        )
        return cls(tuple(SigningKey(**row) for row in rows), found["generation"])


def check_audience(audience: object) -> tuple[str, ...]:
    """The audiences that a token shall have.

    Raises:
        SvidError: none, too many, or not texts.
    """
    if (
        not isinstance(audience, list | tuple)
        or not 0 < len(audience) <= _AUDIENCES_MAX
        or not all(isinstance(one, str) and 0 < len(one) <= _AUDIENCE_MAX for one in audience)
    ):
        raise SvidError(
            f"a JWT-SVID is for 1 to {_AUDIENCES_MAX} audiences of at most {_AUDIENCE_MAX} characters",
            hint="name the service that shall accept it",
        )
    return tuple(dict.fromkeys(audience))


def issue(
    key: SigningKey, identity: SpiffeId, audience: Sequence[str], *, now: datetime, token_id: str
) -> tuple[str, datetime]:
    """A JWT-SVID, and when it expires."""
    until = now + LIFETIME
    claims = {
        "sub": str(identity),
        "aud": list(audience),
        "iat": int(now.timestamp()),
        "exp": int(until.timestamp()),
        "jti": token_id,
    }
    return jwt.encode(claims, key.pem, algorithm=ALGORITHM, headers={"kid": key.id}), until


def verify(
    token: str, audience: str, bundles: Mapping[str, Iterable[Mapping[str, Any]]], *, now: datetime
) -> tuple[str, dict[str, Any]]:
    """Who a JWT-SVID is, and all its claims. ``bundles``: the JWKs of each trust domain that is believed.

    Raises:
        SvidError: it is malformed, of an unknown trust domain or key, expired, or for somebody else.
    """
    if len(token) > _TOKEN_MAX:
        raise SvidError(f"a JWT-SVID has at most {_TOKEN_MAX} bytes")
    try:
        header = jwt.get_unverified_header(token)
        # Only to find the key: nothing of it is believed before the signature is.
        domain = _domain(jwt.decode(token, options={"verify_signature": False}).get("sub"))
    except jwt.PyJWTError as error:
        raise SvidError(f"this is no JWT: {error}") from error
    if header.get("alg") not in _ALGORITHMS or header.get("typ") not in _TYPES:
        raise SvidError(f"a JWT-SVID is not signed by {header.get('alg')!r}, typ {header.get('typ')!r}")
    if domain not in bundles:
        raise SvidError(f"the trust domain {domain!r} is not known here")
    key_id = header.get("kid")
    found = next((key for key in bundles[domain] if key_id and key.get("kid") == key_id), None)
    if found is None:
        raise SvidError(f"{domain!r} has no key {key_id!r}")
    try:
        key = jwt.PyJWK(dict(found))
        if key.algorithm_name != header["alg"]:
            raise SvidError(f"the key {key_id!r} is for {key.algorithm_name}, not {header['alg']!r}")
        # Times are judged below, by the clock that was given.
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            audience=audience,
            options={"require": ["sub", "aud", "exp"], "verify_exp": False, "verify_nbf": False,
                     "verify_iat": False},
        )  # fmt: skip
    except jwt.PyJWTError as error:
        raise SvidError(f"the JWT-SVID is refused: {error}") from error
    _check_times(claims, now)
    return str(claims["sub"]), claims


def _check_times(claims: Mapping[str, Any], now: datetime) -> None:
    for name in ("exp", "nbf", "iat"):
        value = claims.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise SvidError(f"the claim {name!r} is no time")
    seconds = now.timestamp()
    if claims["exp"] <= seconds:
        raise SvidError("the JWT-SVID has expired")
    if claims.get("nbf", seconds) > seconds + _LEEWAY_S:
        raise SvidError("the JWT-SVID is not valid yet")


def _domain(subject: object) -> str:
    """The trust domain of a ``sub``, which has to be a SPIFFE ID."""
    if isinstance(subject, str) and len(subject) <= _IDENTITY_MAX and subject.startswith("spiffe://"):
        return subject.removeprefix("spiffe://").partition("/")[0]
    raise SvidError("the 'sub' of a JWT-SVID is a SPIFFE ID")
