"""Key sets that Envoy takes, and those that it refuses with the whole listener: weft must know before."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.compiled import identity, resources, service
from tests.support.envoy import validate
from tests.support.tokens import b64, ec_key, jwk
from weft import ir
from weft.cli.placeholder import placeholders
from weft.compile.proxy import compile_proxy
from weft.compile.world import World
from weft.emit.bootstrap import Settings
from weft.emit.bundle import emit
from weft.emit.static import bundle_secrets, static_bootstrap
from weft.model.jwks import is_plain, usable
from weft.model.parse import parse_object
from weft.model.resource import Resource


def rsa(bits: int = 2048, e: int = 65537, **more: Any) -> dict[str, Any]:
    """A key with a modulus of so many bits; whether it is a product of primes nobody asks."""
    n = secrets.randbits(bits) | 1 << bits - 1 | 1
    return {"kty": "RSA", "n": number(n), "e": number(e), **more}


def number(value: int, size: int = 0) -> str:
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


def point(curve: ec.EllipticCurve, name: str, size: int, **more: Any) -> dict[str, Any]:
    numbers = ec.generate_private_key(curve).public_key().public_numbers()
    return {"kty": "EC", "crv": name, "x": number(numbers.x, size), "y": number(numbers.y, size), **more}


P256 = {name: value for name, value in jwk(ec_key()).items() if name != "alg"}
ED = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
OCT = {"kty": "oct", "k": "c2VjcmV0"}
GOOD: dict[str, dict[str, Any]] = {
    "RSA of 512 bits": rsa(512),
    "RSA of 1023 bits": rsa(1023),
    "RSA of 2048 bits": rsa(),
    "RSA of 16384 bits": rsa(16384),
    "RSA with the exponent 3": rsa(e=3),
    "RSA for PS512": rsa(alg="PS512"),
    "RSA with leading zeros": {**rsa(), "e": "AAEAAQ", "n": "AAAA" + rsa()["n"]},
    "P-256": P256,
    "P-256 for ES256": {**P256, "alg": "ES256", "kid": "a", "use": "sig", "key_ops": ["verify"]},
    "P-384": point(ec.SECP384R1(), "P-384", 48),
    "P-521": point(ec.SECP521R1(), "P-521", 66, alg="ES512"),
    "P-256 with leading zeros": {**P256, "x": b64(bytes(8) + base64.urlsafe_b64decode(P256["x"] + "="))},
    "Ed25519": ED,
    "Ed25519 for EdDSA": {**ED, "alg": "EdDSA"},
    "a secret": OCT,
    "a secret for HS256": {**OCT, "alg": "HS256"},
}
BAD: dict[str, dict[str, Any]] = {
    "RSA of 511 bits": rsa(511),
    "RSA of 16385 bits": rsa(16385),
    "RSA with the exponent 1": rsa(e=1),
    "RSA with the exponent 257": rsa(e=257),
    "RSA with a large exponent": rsa(e=(1 << 32) + 1),
    "RSA with an even modulus": {**rsa(), "n": number(1 << 2047)},
    "RSA with padding": {**rsa(), "e": "AQAB=="},
    "RSA in the other alphabet": {**rsa(), "n": "+/" + rsa()["n"]},
    "RSA for ES256": rsa(alg="ES256"),
    "no point of its curve": {**P256, "y": P256["x"]},
    "P-256 for ES384": {**P256, "alg": "ES384"},
    "P-256 for encryption": {**P256, "alg": "ECDH-ES"},
    "P-256 cut off": {**P256, "x": P256["x"][:10]},
    "another curve": {**P256, "crv": "secp256k1"},
    "X25519": {**ED, "crv": "X25519"},
    "Ed25519 cut off": {**ED, "x": ED["x"][:8]},
    "Ed25519 under its new name": {**ED, "alg": "Ed25519"},
    "a secret for encryption": {**OCT, "alg": "A128KW"},
    "an empty secret": {**OCT, "k": "="},
}
ONE = json.dumps(P256)
ODD: dict[str, str] = {
    "twice keys": f'{{"keys": [{ONE}], "keys": [{ONE}]}}',
    "twice a member": f'{{"keys": [{ONE[:-1]}, "crv": "P-256"}}]}}',
    "no number": f'{{"a": NaN, "keys": [{ONE}]}}',
    "no finite number": f'{{"a": 1e999, "keys": [{ONE}]}}',
    "a large number": f'{{"a": {"9" * 400}, "keys": [{ONE}]}}',
    "deep": f'{{"a": {"[" * 200}{"]" * 200}, "keys": [{ONE}]}}',
    "half a letter": f'{{"a": "\\ud800", "keys": [{ONE}]}}',
}


def proxy(*sets: str) -> ir.Proxy:
    """A sidecar that believes issuers with these keys."""
    wire = {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "users", "namespace": "default"},
        "spec": {"jwtRules": [{"issuer": f"i{number:03}", "jwks": one} for number, one in enumerate(sets)]},
    }
    policy, problems = parse_object(wire, None)
    assert policy is not None, problems
    all_of_it: tuple[Resource, ...] = (*resources(service("web", 8080)), policy)
    made, _ = compile_proxy(
        World.build(all_of_it), identity("sidecar~10.0.0.1~web-0.default", {"app": "web"})
    )
    return made


def given(made: ir.Proxy, text: str) -> ir.Proxy:
    """The same, with a set that nobody has looked at."""

    def chain(one: ir.FilterChain) -> ir.FilterChain:
        if not isinstance(one.handler, ir.HttpHandler) or one.handler.authentication is None:
            return one
        old = one.handler.authentication
        rules = tuple(replace(rule, keys=text) for rule in old.rules)
        return replace(one, handler=replace(one.handler, authentication=replace(old, rules=rules)))

    listeners = tuple(replace(one, chains=tuple(map(chain, one.chains))) for one in made.listeners)
    return replace(made, listeners=listeners)


def take(made: ir.Proxy, directory: Path) -> None:
    """Have Envoy look at it."""
    bundle = emit(made)
    secret = placeholders(*bundle_secrets(bundle))
    validate(static_bootstrap(bundle, [], Settings(name=made.identity.name), secret, made), directory)


def keys(key: dict[str, Any]) -> str:
    return json.dumps({"keys": [key]})


def test_envoy_takes_all_sets_with_a_usable_key_and_they_stay_as_they_are(tmp_path: Path) -> None:
    assert [name for name, key in GOOD.items() if not usable(key)] == []
    sets = [keys(key) for key in GOOD.values()]
    made = proxy(*sets)
    take(made, tmp_path)
    (rules,) = {
        chain.handler.authentication.rules
        for listener in made.listeners
        for chain in listener.chains
        if isinstance(chain.handler, ir.HttpHandler) and chain.handler.authentication is not None
    }
    assert [rule.keys for rule in rules] == sets


def test_sets_that_are_not_usable_are_known() -> None:
    assert [name for name, key in BAD.items() if usable(key)] == []
    assert [name for name, text in ODD.items() if is_plain(text)] == []


# Each is a start of Envoy; all of them were tried once.
REFUSED = {
    "RSA with the exponent 257": keys(BAD["RSA with the exponent 257"]),
    "no point of its curve": keys(BAD["no point of its curve"]),
    "twice keys": ODD["twice keys"],
    "no key": '{"keys": []}',
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_envoy_refuses_everything_for_such_a_set(text: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="invalid local jwks"):
        take(given(proxy(keys(P256)), text), tmp_path)


def test_whatever_the_keys_envoy_takes_what_weft_makes_of_them(tmp_path: Path) -> None:
    bad, odd = map(keys, BAD.values()), ODD.values()
    mixed = json.dumps({"keys": [*BAD.values(), P256]})
    take(proxy(*bad, *odd, mixed, '{"keys": []}', ONE, json.dumps(BAD["X25519"])), tmp_path)
