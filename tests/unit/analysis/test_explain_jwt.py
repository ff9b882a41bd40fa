"""Tokens in explanations: described or written out, with keys that are here, fetched, or missing."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.tokens import ISSUER, b64, claims, ec_key, jwk, jwks, token

from weft.analysis import tokens
from weft.analysis.explain.mesh import Mesh
from weft.model.parse import Part, parse, unwrap
from weft.model.resource import Resource
from weft.yaml import load

OURS = ec_key()
MESH = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: ["*"]
  gateways: [edge]
  http:
  - match: [{headers: {"@request.auth.claims.role": {exact: admin}}}]
    directResponse: {status: 202}
  - match: [{headers: {"@request.auth.claims.sub": {exact: ann}}}]
    route: [{destination: {host: web}}]
---
apiVersion: weft.dev/v1alpha1
kind: RateLimit
metadata: {name: users, namespace: istio-system}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  limits: [{name: each, requests: 1, per: [{claim: sub}]}]
---
# The same issuer, believed by a workload that is not asked here.
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: users, namespace: other}
spec: {jwtRules: [{issuer: ISSUER, audiences: [web]}]}
""".replace("ISSUER", ISSUER)
EDGE = {"gateway": "istio-system/istio-ingressgateway", "labels": {"istio": "ingressgateway"}}


def policy(*rules: Mapping[str, Any]) -> str:
    made = {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "users", "namespace": "istio-system"},
        "spec": {"jwtRules": list(rules)},
    }
    return json.dumps(made)


def explain(
    *rules: Mapping[str, Any], text: str = "", jwt: Mapping[str, Any] | None = None, **headers: str
) -> dict[str, Any]:
    parts: list[Part] = []
    read: list[tuple[Part, Resource]] = []
    for name, source in (("mesh.yaml", MESH), ("policy.yaml", policy(*rules))):
        documents, problems = load(source, name)
        assert not problems
        for part in (part for document in documents for part in unwrap(document)[0]):
            resource, found = parse(part)
            assert resource is not None, found
            parts.append(part)
            read.append((part, resource))
    if text:
        headers["authorization"] = f"Bearer {text}"
    http = {"host": "shop.example", "headers": {name.replace("_", "-"): [v] for name, v in headers.items()}}
    question = {"from": EDGE, "port": 80, "http": http, **({"jwt": jwt} if jwt else {})}
    return Mesh(parts, read).explain(question)


def outcome(explained: dict[str, Any]) -> tuple[str, int, str]:
    """What its token is, the status, and why."""
    return explained["authn"]["jwt"], explained["status"], explained["trace"][-1]["detail"]


INLINE = {"issuer": ISSUER, "audiences": ["web"], "jwks": jwks(jwk(OURS))}
FETCHED = {"issuer": ISSUER, "jwksUri": "https://keys.example/set"}


def test_a_described_token_is_good_and_routes_by_what_it_claims() -> None:
    nobody = explain(INLINE)
    assert (nobody["authn"]["jwt"], nobody["status"], nobody["error"]) == ("none", 404, "no_route")
    ann = explain(INLINE, jwt={"iss": ISSUER, "sub": "ann", "aud": "web"})
    assert (ann["authn"]["jwt"], ann["status"], ann["route"]["rule"]) == ("valid", 200, 1)
    admin = explain(INLINE, jwt={"iss": ISSUER, "sub": "ann", "aud": ["web"], "claims": {"role": "admin"}})
    assert (admin["authn"]["jwt"], admin["status"], admin["route"]["rule"]) == ("valid", 202, 0)
    assert any(step["detail"].endswith("does not fit: claim role") for step in ann["trace"])


@pytest.mark.parametrize(
    ("described", "status", "why"),
    [
        ({"iss": "https://other.example", "sub": "ann"}, 401, "Jwt issuer is not configured"),
        ({"sub": "ann"}, 401, "Jwt issuer is not configured"),
        ({"iss": ISSUER, "aud": "bank"}, 403, "Audiences in Jwt are not allowed"),
        ({"iss": ISSUER, "aud": "web", "claims": {"exp": 5}}, 401, "Jwt is expired"),
        ({"iss": ISSUER, "aud": "web", "claims": {"nbf": 1 << 40}}, 401, "Jwt not yet valid"),
        ({"iss": ISSUER, "sub": 5}, 401, "Jwt payload [sub] field is not a string"),
        ({"claims": {"iss": [ISSUER]}}, 401, "Jwt payload [iss] field is not a string"),
    ],
)
def test_a_described_token_that_is_no_good(described: dict[str, Any], status: int, why: str) -> None:
    found = explain(INLINE, jwt=described)
    assert outcome(found) == ("invalid", status, why)
    assert found["action"] == "deny"
    places = {(step["file"], step["line"]) for step in found["trace"] if step["step"] == "authn"}
    assert places == {("policy.yaml", 1)}
    said = found["response"]["headers"]["www-authenticate"]
    assert said == ['Bearer realm="http://shop.example/", error="invalid_token"']


def test_a_described_token_stands_where_its_issuers_do() -> None:
    elsewhere = {**INLINE, "fromHeaders": [{"name": "x-token"}]}
    assert explain(elsewhere, jwt={"iss": ISSUER, "sub": "ann", "aud": "web"})["authn"]["jwt"] == "valid"
    assert explain(elsewhere, jwt={"iss": "https://other.example"})["authn"]["jwt"] == "none"


def test_signatures_are_verified_by_keys_that_are_here() -> None:
    assert explain(INLINE, text=token(OURS))["authn"]["jwt"] == "valid"
    assert outcome(explain(INLINE, text=token(ec_key())))[:2] == ("invalid", 401)


@pytest.mark.parametrize("rule", [FETCHED, {"issuer": ISSUER}, {"issuer": ISSUER, "jwks": '{"keys": []}'}])
def test_keys_that_are_not_here_are_taken_to_have_signed(rule: dict[str, Any]) -> None:
    assert explain(rule, text=token(ec_key()))["authn"]["jwt"] == "valid"
    expired = token(ec_key(), claims(exp=int(time.time()) - 1000))
    assert outcome(explain(rule, text=expired)) == ("invalid", 401, "Jwt is expired")
    assert outcome(explain(rule, text="no.token"))[:2] == ("invalid", 401)


def test_a_token_that_is_required_and_missing() -> None:
    found = explain({**INLINE, "presence": "REQUIRED"})
    assert outcome(found) == ("none", 401, "Jwt is missing")
    assert found["response"]["headers"]["www-authenticate"] == ['Bearer realm="http://shop.example/"']


def test_limits_count_by_the_claims_of_good_tokens() -> None:
    def counted(**question: Any) -> list[str]:
        found = explain(INLINE, **question)
        return [step["detail"] for step in found["trace"] if step["step"] == "rateLimit"]

    (ann,) = counted(jwt={"iss": ISSUER, "sub": "ann", "aud": "web"})
    (nobody,) = counted()
    assert "caller0=ann" in ann
    assert "caller0=-" in nobody


@pytest.mark.parametrize(
    ("described", "field"), [({"exp": 5}, "jwt.exp"), ({"claims": []}, "jwt.claims"), (5, "jwt")]
)
def test_what_is_no_description_is_said(described: Any, field: str) -> None:
    found = explain(INLINE, jwt=described)
    assert field in str(found["trace"]) + str(found["error"])


_PART = st.text(st.sampled_from("eyJ9hbGciOi-_=$."), max_size=12) | st.dictionaries(
    st.sampled_from(["alg", "kid", "iss", "sub", "aud", "exp", "nbf"]),
    st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.text(max_size=3), max_size=2),
).map(b64)


@given(st.lists(_PART, min_size=1, max_size=4).map(".".join))
def test_whatever_a_token_is_it_is_read_or_refused(text: str) -> None:
    with pytest.raises(tokens.TokenError, match=r"^(Jwt|Jwks|Audiences) "):
        _believe(text)


def _believe(text: str) -> None:
    found = tokens.parse(text)
    tokens.check_time(found, 0)
    tokens.check_audience(found, ["web"])
    tokens.check_signature(found, [jwk(OURS)])
