from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from weft.identity.jwt import LIFETIME, SigningKeys, SvidError, check_audience, issue, verify
from weft.spiffe import SpiffeId

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
WEB = SpiffeId("cluster.local", "shop", "web")
KEYS = SigningKeys.create(NOW)
BUNDLES = {"cluster.local": KEYS.public()}


def made(at: datetime = NOW, **changes: Any) -> str:
    """A token of ours with other claims; None leaves one out."""
    claims = {"sub": str(WEB), "aud": ["bank"], "exp": int((at + LIFETIME).timestamp()), **changes}
    key = KEYS.signer(at)
    said = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(said, key.pem, algorithm="ES256", headers={"kid": key.id})


def part(value: Any) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


class TestKeys:
    def test_the_first_signs_at_once(self) -> None:
        token, until = issue(KEYS.signer(NOW), WEB, ["bank"], now=NOW, token_id="one")
        assert until == NOW + LIFETIME
        who, claims = verify(token, "bank", BUNDLES, now=NOW)
        assert (who, claims["jti"]) == (str(WEB), "one")

    def test_a_successor_is_known_for_a_day_before_it_signs(self) -> None:
        eve = KEYS.keys[0].until - timedelta(hours=24)
        assert KEYS.at(eve - timedelta(seconds=1)) is KEYS
        both = KEYS.at(eve)
        assert [key.id for key in both.keys][:1] == [KEYS.keys[0].id]
        assert (len(both.keys), both.generation) == (2, 2)
        assert both.signer(eve) == KEYS.keys[0]
        assert both.signer(KEYS.keys[0].until) == both.keys[1]
        assert both.at(eve) is both

    def test_a_predecessor_is_known_as_long_as_its_tokens_are_good(self) -> None:
        last = KEYS.keys[0].until
        both = KEYS.at(last - timedelta(hours=1))
        token, _ = issue(both.signer(last - timedelta(seconds=1)), WEB, ["bank"], now=last, token_id="x")
        later = both.at(last + LIFETIME)
        verify(token, "bank", {"cluster.local": later.public()}, now=last + timedelta(seconds=1))
        assert len(later.at(last + timedelta(days=1)).keys) == 1

    def test_after_a_long_rest_a_new_one_signs_at_once(self) -> None:
        late = NOW + timedelta(days=300)
        fresh = KEYS.at(late)
        assert (fresh.keys[0].since, len(fresh.keys)) == (late, 1)
        assert fresh.signer(late).id != KEYS.keys[0].id

    def test_what_is_written_is_read(self) -> None:
        both = KEYS.at(KEYS.keys[0].until - timedelta(hours=1))
        assert SigningKeys.from_json(both.to_json()) == both
        assert "PRIVATE" not in repr(both)
        assert all("d" not in key for key in both.public())


BAD: dict[str, str] = {
    "expired": made(exp=int(NOW.timestamp())),
    "not yet valid": made(nbf=int(NOW.timestamp()) + 120),
    "never expires": made(exp=None),
    "expiry no number": made(exp="tomorrow"),
    "another audience": made(aud=["other"]),
    "no audience": made(aud=None),
    "no subject": made(sub=None),
    "subject no text": made(sub=7),
    "subject no SPIFFE ID": made(sub="web"),
    "another trust domain": made(sub="spiffe://other.example/ns/shop/sa/web"),
    "unknown key": jwt.encode(
        {"sub": str(WEB), "aud": "bank", "exp": 2e9},
        ec.generate_private_key(ec.SECP256R1()),
        algorithm="ES256",
        headers={"kid": "other"},
    ),
    "another key under a known id": jwt.encode(
        {"sub": str(WEB), "aud": "bank", "exp": 2e9},
        ec.generate_private_key(ec.SECP256R1()),
        algorithm="ES256",
        headers={"kid": KEYS.keys[0].id},
    ),
    "no key id": jwt.encode(
        {"sub": str(WEB), "aud": "bank", "exp": 2e9}, KEYS.keys[0].pem, algorithm="ES256"
    ),
    "no algorithm": f"{part({'alg': 'none', 'kid': KEYS.keys[0].id})}."
    f"{part({'sub': str(WEB), 'aud': 'bank', 'exp': 2e9})}.",
    "HMAC with what is public": jwt.encode(
        {"sub": str(WEB), "aud": "bank", "exp": 2e9},
        (KEYS.public()[0]["x"] + KEYS.public()[0]["y"]).encode(),
        algorithm="HS256",
        headers={"kid": KEYS.keys[0].id},
    ),
    "another type": jwt.encode(
        {"sub": str(WEB), "aud": "bank", "exp": 2e9},
        KEYS.keys[0].pem,
        algorithm="ES256",
        headers={"kid": KEYS.keys[0].id, "typ": "at+jwt"},
    ),
    "claims changed": ".".join(
        [made().split(".")[0], part({"sub": str(WEB), "aud": "bank", "exp": 2e9}), made().split(".")[2]]
    ),
    "two parts": made().rpartition(".")[0],
    "no token": "",
    "huge": made(more="x" * 20_000),
}


class TestTokens:
    def test_a_good_one(self) -> None:
        assert verify(made(aud=["x", "bank"]), "bank", BUNDLES, now=NOW)[0] == str(WEB)
        assert verify(made(aud="bank"), "bank", BUNDLES, now=NOW)[0] == str(WEB)

    @pytest.mark.parametrize("token", BAD.values(), ids=BAD.keys())
    def test_bad_ones(self, token: str) -> None:
        with pytest.raises(SvidError):
            verify(token, "bank", BUNDLES, now=NOW)

    @pytest.mark.parametrize("audience", [None, [], "bank", [1], [""], ["x" * 257], ["x"] * 17])
    def test_audiences_that_no_token_has(self, audience: Any) -> None:
        with pytest.raises(SvidError):
            check_audience(audience)
