"""Tokens of users at a real sidecar and real gateways: good ones, and all that an attacker may try.

Whatever is asked here is explained as well: ``weft explain`` must come to what Envoy does.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.envoy.control import ControlPlane
from tests.envoy.jwt_resources import (
    EC,
    EDGE,
    OTHER,
    PARTNER,
    REQUIRED,
    RSA,
    RSA_PEM,
    SERVICES,
    SIDECAR,
    THEIRS,
)
from tests.envoy.mesh import run_compiled
from tests.support.backend import HttpBackend, serving
from tests.support.certificates import TestAuthority
from tests.support.compiled import world
from tests.support.envoy import wait_until
from tests.support.identities import sidecar_of
from tests.support.key_server import IssuerServer
from tests.support.ports import free_ports
from tests.support.tokens import ISSUER, b64, claims, ec_key, jwk, jwks, token
from weft import ir
from weft.analysis.explain.answer import Answer as Explained
from weft.analysis.explain.configuration import Configuration, Decoded
from weft.analysis.explain.origins import Origins
from weft.analysis.explain.request import read_request
from weft.analysis.explain.upstream import Upstreams
from weft.analysis.explain.walk import Dialled, walk
from weft.compile.proxy import compile_proxy
from weft.control.key_server import KeyServer
from weft.control.keysets import KeyFetcher
from weft.emit.bundle import emit
from weft.names import ProxyName


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; ``got`` are the headers that the backend saw, ``at`` the path."""

    status: int
    text: str
    headers: Mapping[str, str]
    got: Mapping[str, str] = field(default_factory=dict)
    at: str = ""


@dataclass(frozen=True, slots=True)
class Door:
    """A port of a proxy, who it is to ``weft explain``, and what it runs."""

    port: int
    sender: Mapping[str, str]
    running: Configuration


@dataclass(frozen=True, slots=True)
class Site:
    """A sidecar whose users have tokens, a gateway, and one where a token is required."""

    sidecar: Door
    edge: Door
    required: Door


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with ExitStack() as stack:
        backend = stack.enter_context(serving(HttpBackend("127.0.0.1", 0, "back")))
        app = int(backend.server_address[1])
        outbound, sidecar, edge, required = free_ports(4)
        of = world(SERVICES.format(app=app), SIDECAR, EDGE, REQUIRED)
        authority = TestAuthority()
        web = sidecar_of("web", app, sidecar, outbound)

        def open_door(identity: ir.ProxyIdentity, port: int, **sender: str) -> Door:
            stack.enter_context(run_compiled(of, identity, authority))
            bundle = emit(compile_proxy(of, identity)[0])
            return Door(port, sender, Configuration.of_bundle(bundle, lambda name: None, Decoded()))

        doors = [open_door(web, sidecar, inbound="default/web")]
        for name, port in (("edge", edge), ("required", required)):
            router = ir.ProxyIdentity(
                name=ProxyName("router", "127.0.0.1", name, "default"),
                service_account=name,
                labels=(("at", "edge"), ("istio", name)),
                attachment=ir.Attachment(capture=ir.Capture.NONE),
                port_map=((80, port),),
            )
            doors.append(open_door(router, port, gateway=f"default/{name}"))
        yield Site(*doors)


def ask(door: Door, path: str = "/", method: str = "GET", **headers: str | list[str]) -> Answer:
    """One request, which is explained as well; underscores in the names of headers are dashes."""
    sent = {
        name.replace("_", "-"): [values] if isinstance(values, str) else values
        for name, values in headers.items()
    }
    answer = send(("127.0.0.1", door.port), path, method, sent)
    if answer.status not in UNFORESEEN:
        compare(answer, explain(door, {"method": method, "path": path, "headers": sent}))
    return answer


def send(to: tuple[str, int], path: str, method: str, headers: Mapping[str, list[str]]) -> Answer:
    """One request; each value of a header is a line."""
    connection = http.client.HTTPConnection(*to, timeout=20)
    try:
        connection.putrequest(method, path)
        for name, values in headers.items():
            for value in values:
                connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    received = {key.lower(): value for key, value in response.getheaders()}
    told = json.loads(text) if response.status == 200 and text.startswith("{") else {}
    got: dict[str, str] = {}
    for name, value in told.get("fields", ()):
        got[name] = f"{got[name]},{value}" if name in got else value
    return Answer(response.status, text, received, got, told.get("path", ""))


# Explain knows neither how full a bucket is nor how long a header may be.
UNFORESEEN = {429, 431}
SEEN = {
    "authorization", "cookie", "x-claims", "x-partner", "x-partner-user", "x-realm", "x-route", "x-token",
    "x-user",
}  # fmt: skip


def explain(door: Door, request: Mapping[str, Any]) -> dict[str, Any]:
    """What ``weft explain`` makes of it."""
    asked = {"host": f"127.0.0.1:{door.port}", **request}
    question = read_request({"from": door.sender, "port": door.port, "http": asked})
    explained = Explained()
    dialled = Dialled(addresses=("127.0.0.1",), port=door.port, source_ip="127.0.0.1")
    upstreams = Upstreams(door.running, lambda host: False, lambda cluster: False, offline=False)
    walk(question, dialled, upstreams, Origins(), explained)
    return explained.json()


def compare(answer: Answer, explained: dict[str, Any]) -> None:
    """The same outcome, the same words, the same request to the backend."""
    assert explained["status"] == answer.status, explained
    challenge = explained["response"]["headers"].get("www-authenticate")
    assert (challenge or [None])[0] == answer.headers.get("www-authenticate"), explained
    request = explained["upstream"]["request"]
    if answer.text.startswith("RBAC"):
        assert explained["authz"]["decision"] == "deny"
        return
    if answer.status != 200:
        assert explained["authn"]["jwt"] == ("none" if answer.text == "Jwt is missing" else "invalid")
        assert explained["trace"][-1]["detail"] == answer.text
        return
    assert request["path"] == answer.at
    headers = {name: ",".join(values) for name, values in request["headers"].items() if name in SEEN}
    assert headers == {name: value for name, value in answer.got.items() if name in SEEN}


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def test_a_request_without_a_token_passes_and_is_nobody(site: Site) -> None:
    answer = ask(site.sidecar, x_user="root", x_claims="e30", x_realm="all")
    assert answer.status == 200
    assert not {"x-user", "x-claims", "x-realm"} & answer.got.keys()


@pytest.mark.parametrize("key", [RSA, EC], ids=["RS256", "ES256"])
def test_a_good_token_passes_and_what_it_says_is_told(site: Site, key: Any) -> None:
    said = claims(realm={"name": "gold"}, nested=[1, {"a": None}])
    answer = ask(site.sidecar, **bearer(token(key, said)), x_user="root", x_claims="e30", x_realm="all")
    assert answer.status == 200
    assert (answer.got["x-user"], answer.got["x-realm"]) == ("ann", "gold")
    assert answer.got["x-claims"] == b64(said)
    assert "authorization" not in answer.got


GOOD: dict[str, tuple[str, dict[str, str]]] = {
    "in the query": (f"/x?access_token={token(RSA)}&q=1", {}),
    "array of audiences": ("/", bearer(token(EC, claims(aud=["other", "shop"])))),
    "never expires": ("/", bearer(token(EC, claims(exp=None)))),
    "no sub": ("/", bearer(token(EC, claims(sub=None)))),
    "the rest of the query": (f"/x?b=2&access_token={token(RSA)}&a=%26x+y%2F&b=1&c&=d", {}),
    "escaped in the query": ("/x?access_token=" + token(RSA).replace(".", "%2E"), {}),
    "audience with a scheme and a slash": ("/", bearer(token(EC, claims(aud="https://web/")))),
    "spaces behind the prefix": ("/", {"authorization": f"Bearer    {token(EC)}"}),
    "something before the prefix": ("/", {"authorization": f"x Bearer {token(EC)}"}),
    "times with fractions": ("/", bearer(token(EC, claims(exp=time.time() + 86_400.5, nbf=1.5)))),
    "claim that is a number": ("/", bearer(token(EC, claims(realm={"name": 7})))),
    "claim that is a fraction": ("/", bearer(token(EC, claims(realm={"name": 7.25})))),
    "claim below zero": ("/", bearer(token(EC, claims(realm={"name": -7})))),
    "claim that is true": ("/", bearer(token(EC, claims(realm={"name": True})))),
    "claim that is a list": ("/", bearer(token(EC, claims(realm={"name": ["a", "b"]})))),
    "claim that is a short list": ("/", bearer(token(EC, claims(realm={"name": ["a"]})))),
    "claim with parts": (
        "/",
        bearer(token(EC, claims(realm={"name": {"b": [1, 2.5, None, True, "ä"]}}))),
    ),
    "claim that is empty": ("/", bearer(token(EC, claims(realm={"name": ""})))),
    "claim that is null": ("/", bearer(token(EC, claims(realm={"name": None})))),
    "claim with a dot in its name": ("/", bearer(token(EC, claims(**{"realm.name": "flat"})))),
    "kid of the key": ("/", bearer(token(RSA, header={"kid": "r"}))),
    "another scheme is no token": ("/", {"authorization": "Basic YTpi"}),
    "a scheme alone is no token": ("/", {"authorization": "Bearer "}),
}


@pytest.mark.parametrize(("path", "headers"), GOOD.values(), ids=GOOD.keys())
def test_tokens_that_pass(site: Site, path: str, headers: dict[str, str]) -> None:
    assert ask(site.sidecar, path, **headers).status == 200


def test_a_token_that_expired_within_the_leeway_passes(site: Site) -> None:
    just_now = claims(exp=int(time.time()) - 20)
    assert ask(site.sidecar, "/", **bearer(token(EC, just_now))).status == 200


def _now(seconds: int) -> int:
    return int(time.time()) + seconds


BAD: dict[str, tuple[str, int, str]] = {
    "no algorithm": (token(RSA, header={"alg": "none"}), 401, "Jwt header [alg] is not supported"),
    "no algorithm, otherwise written": (token(RSA, header={"alg": "NoNe"}), 401, "alg"),
    "no algorithm and no signature": (token(None), 401, "Jwt is not in the form"),
    "algorithm missing": (token(RSA, header={"alg": None}), 401, "alg"),
    "algorithm no text": (token(RSA, header={"alg": 5}), 401, "alg"),
    "HMAC with the public key": (token(RSA_PEM), 401, ""),
    "HMAC with the public key under its kid": (token(RSA_PEM, header={"kid": "r"}), 401, ""),
    "HMAC with the modulus": (token(jwk(RSA)["n"].encode()), 401, ""),
    "another RSA key": (token(OTHER), 401, "Jwt verification fails"),
    "another key under a known kid": (token(OTHER, header={"kid": "r"}), 401, "Jwt verification fails"),
    "a key of another type under a known kid": (token(EC, header={"kid": "r"}), 401, ""),
    "unknown kid": (token(RSA, header={"kid": "new"}), 401, "Jwks doesn't have key to match kid or alg"),
    "kid no text": (token(RSA, header={"kid": 7}), 401, "kid"),
    "key in the header": (token(OTHER, header={"jwk": jwk(OTHER), "jku": "https://evil.example"}), 401, ""),
    "expired": (token(RSA, claims(exp=_now(-120))), 401, "Jwt is expired"),
    "not yet": (token(RSA, claims(nbf=_now(86_400))), 401, "Jwt not yet valid"),
    "another issuer": (token(RSA, claims(iss=PARTNER)), 401, "Jwt issuer is not configured"),
    "no issuer": (token(RSA, claims(iss=None)), 401, "Jwt issuer is not configured"),
    "issuer no text": (token(RSA, claims(iss=[ISSUER])), 401, ""),
    "issuer with a slash more": (token(RSA, claims(iss=ISSUER + "/")), 401, "issuer"),
    "another audience": (token(RSA, claims(aud="bank")), 403, "Audiences in Jwt are not allowed"),
    "other audiences": (token(RSA, claims(aud=["bank", "web2"])), 403, "Audiences"),
    "no audience": (token(RSA, claims(aud=None)), 403, "Audiences"),
    "empty audiences": (token(RSA, claims(aud=[])), 403, "Audiences"),
    "audience no text": (token(RSA, claims(aud={"web": 1})), 401, ""),
    "an audience no text": (token(RSA, claims(aud=["web", 1])), 401, ""),
    "sub no text": (token(RSA, claims(sub={"name": "ann"})), 401, ""),
    "exp no number": (token(RSA, claims(exp="tomorrow")), 401, ""),
    "exp too large": (token(RSA, claims(exp=1 << 70)), 401, ""),
    "exp true": (token(RSA, claims(exp=True)), 401, ""),
    "exp null": (token(RSA, {**claims(), "exp": None}), 401, ""),
    "jti no text": (token(RSA, claims(jti=5)), 401, ""),
    "not a number in the claims": (token(RSA, f'{{"iss": "{ISSUER}", "x": NaN}}'), 401, ""),
    "a claim twice": (token(RSA, f'{{"iss": "x", "iss": "{ISSUER}", "aud": "web"}}'), 401, ""),
    "a claim of a claim twice": (token(RSA, f'{{"iss": "{ISSUER}", "a": {{"b": 1, "b": 1}}}}'), 401, ""),
    "a header twice": (token(RSA, header='{"alg": "RS256", "kid": "x", "kid": "r"}'), 401, ""),
    "exp below zero": (token(RSA, claims(exp=-1)), 401, ""),
    "signature cut off": (token(RSA).rpartition(".")[0] + ".", 401, ""),
    "two parts": (token(RSA).rpartition(".")[0], 401, "Jwt is not in the form"),
    "four parts": (token(RSA) + ".x", 401, "Jwt is not in the form"),
    "dots": ("..", 401, ""),
    "no base64": ("a$b.c.d", 401, ""),
    "claims no object": (token(RSA, "[]"), 401, ""),
    "claims no JSON": (token(RSA, "{"), 401, ""),
    "header no JSON": (token(RSA, header="{"), 401, ""),
    "claims changed": (
        ".".join([token(RSA).split(".")[0], b64(claims(sub="root")), token(RSA).split(".")[2]]),
        401,
        "Jwt verification fails",
    ),
    "huge": (token(RSA, claims(more="x" * 200_000)), 431, ""),
    "deep": (token(RSA, '{"iss":' + "[" * 5000 + "]" * 5000 + "}"), 401, ""),
}


@pytest.mark.parametrize(("text", "status", "body"), BAD.values(), ids=BAD.keys())
def test_tokens_that_do_not_pass(site: Site, text: str, status: int, body: str) -> None:
    answer = ask(site.sidecar, "/secret", **bearer(text))
    assert (answer.status, body in answer.text) == (status, True), answer
    if status == 401:
        said = f'Bearer realm="http://127.0.0.1:{site.sidecar.port}/secret", error="invalid_token"'
        assert answer.headers["www-authenticate"] == said


def test_the_other_algorithm_of_a_scheme_is_written_in_other_letters(site: Site) -> None:
    # "Bearer " is looked for as it stands: what is written otherwise is no token, and nobody is somebody.
    answer = ask(site.sidecar, authorization=f"bearer {token(OTHER)}", x_user="root")
    assert (answer.status, "x-user" in answer.got) == (200, False)


@pytest.mark.parametrize(
    ("path", "said", "status"),
    [
        ("/staff", None, 403),
        ("/staff", {}, 200),
        ("/staff", {"sub": None}, 403),
        ("/staff", {"sub": ""}, 403),
        ("/staff/gold", {}, 403),
        ("/staff/gold", {"realm": {"name": "silver"}}, 403),
        ("/staff/gold", {"realm": {"name": "gold"}}, 200),
        ("/staff/gold", {"realm": {"name": ["gold", "silver"]}}, 200),
        ("/staff/gold", {"realm": "gold"}, 403),
        ("/staff/gold", {"realm.name": "gold"}, 403),
    ],
)
def test_policies_by_who_the_user_is(site: Site, path: str, said: dict[str, Any] | None, status: int) -> None:
    headers = {} if said is None else bearer(token(EC, claims(**said)))
    assert ask(site.sidecar, path, **headers).status == status


PREFLIGHT = {"origin": "https://shop.example", "access_control_request_method": "GET"}


def test_a_preflight_needs_no_token_and_makes_nobody_somebody(site: Site) -> None:
    answer = ask(site.sidecar, method="OPTIONS", **PREFLIGHT, x_user="root", x_claims="e30")
    assert answer.status == 200
    assert not {"x-user", "x-claims"} & answer.got.keys()


@pytest.mark.parametrize("name", ["X-USER", "x-uSer"])
def test_headers_that_tokens_make_are_nobody_elses_however_they_are_written(site: Site, name: str) -> None:
    twice: dict[str, Any] = {name: ["root", "admin"]}
    answer = ask(site.sidecar, **twice)
    assert (answer.status, "x-user" in answer.got) == (200, False)
    answer = ask(site.sidecar, **bearer(token(EC)), **twice)
    assert answer.got["x-user"] == "ann"


ADMIN = claims(realm={"roles": ["user", "admin"]})


@pytest.mark.parametrize(
    ("headers", "route"),
    [
        ({}, "nobody"),
        ({"x_user": "root"}, "nobody"),  # routes are chosen by headers of good tokens only
        (bearer(token(RSA)), "user"),
        (bearer(token(RSA, claims(sub="root"))), "root"),
        (bearer(token(RSA, ADMIN)), "admin"),
        (bearer(token(RSA, claims(realm={"roles": "admin"}))), "admin"),
        (bearer(token(RSA, claims(realm={"roles": "administrator"}))), "user"),
        (bearer(token(RSA, claims(**{"realm.roles": "admin"}))), "user"),
        (bearer(token(RSA, claims(scope="read write"))), "writer"),
        (bearer(token(RSA, claims(scope="rewrite"))), "user"),
        ({"x_partner": token(THEIRS, claims(iss=PARTNER, realm={"roles": "admin"}))}, "admin"),
    ],
)
def test_routes_of_a_gateway_by_claims(site: Site, headers: dict[str, str], route: str) -> None:
    answer = ask(site.edge, **headers)
    assert (answer.status, answer.got.get("x-route")) == (200, route), answer.text


GATEWAY: dict[str, tuple[str, dict[str, Any], int, dict[str, str | None]]] = {
    # path, headers, status, what the backend must (not) have got
    "header of its own": ("/", {"x_token": f"jwt {token(RSA)}"}, 200, {"x-user": "ann", "x-token": ""}),
    "a prefix is asked for": ("/", {"x_token": token(OTHER)}, 200, {"x-user": None}),
    "cookie": ("/", {"cookie": f"a=b; session={token(RSA)}"}, 200, {"x-user": "ann", "cookie": ""}),
    "cookie in quotes": ("/", {"cookie": f'session="{token(RSA)}"'}, 200, {"x-user": "ann"}),
    "cookie twice": ("/", {"cookie": f"session={token(RSA)}; session=x"}, 200, {"x-user": "ann"}),
    "two lines of cookies": ("/", {"cookie": ["a=b", f"session={token(RSA)}"]}, 200, {"x-user": "ann"}),
    "query twice": (f"/?t={token(RSA)}&t={token(OTHER)}", {}, 200, {"x-user": "ann"}),
    "bad cookie": ("/", {"cookie": f"session={token(OTHER)}"}, 401, {}),
    "another cookie": ("/", {"cookie": f"sessions={token(OTHER)}"}, 200, {"x-user": None}),
    "query": (f"/?t={token(RSA)}", {}, 200, {"x-user": "ann"}),
    "bad query": (f"/?t={token(OTHER)}", {}, 401, {}),
    "not the usual query": (f"/?access_token={token(OTHER)}", {}, 200, {"x-user": None}),
    "forwarded": ("/", bearer(token(RSA)), 200, {"authorization": "", "x-user": "ann"}),
    "two good ones": (f"/?t={token(RSA)}", bearer(token(EC)), 200, {"x-user": ""}),
    "a good and a bad one": (f"/?t={token(OTHER)}", bearer(token(EC)), 401, {}),
    "a bad and a good one": (f"/?t={token(EC)}", bearer(token(OTHER)), 401, {}),
    "twice the header": ("/", {"authorization": [f"Bearer {token(EC)}", f"Bearer {token(OTHER)}"]}, 401, {}),
    "both issuers": (
        "/",
        {**bearer(token(EC)), "x_partner": token(THEIRS, claims(iss=PARTNER, sub="bob"))},
        200,
        {"x-user": "ann"},
    ),
    "the other issuer takes its token away": (
        "/",
        {"x_partner": token(THEIRS, claims(iss=PARTNER, sub="bob"))},
        200,
        {"x-partner-user": "bob", "x-partner": None, "x-user": None},
    ),
    "ours where theirs is looked for": ("/", {"x_partner": token(RSA)}, 401, {}),
    "theirs where ours is looked for": ("/", bearer(token(THEIRS, claims(iss=PARTNER))), 401, {}),
    "their key for our issuer": ("/", bearer(token(THEIRS)), 401, {}),
    "headers of the other issuer": (
        "/",
        {**bearer(token(EC)), "x_partner_user": "root"},
        200,
        {"x-user": "ann", "x-partner-user": None},
    ),
    "headers of both issuers": ("/", {"x_partner_user": "root", "X_USER": "r"}, 200, {
        "x-user": None, "x-partner-user": None,
    }),
}  # fmt: skip


@pytest.mark.parametrize(("path", "headers", "status", "got"), GATEWAY.values(), ids=GATEWAY.keys())
def test_where_a_gateway_looks(
    site: Site, path: str, headers: dict[str, Any], status: int, got: dict[str, str | None]
) -> None:
    answer = ask(site.edge, path, **headers)
    assert answer.status == status, answer
    for name, value in got.items():
        assert (answer.got.get(name) is None) == (value is None), (name, answer.got)
        assert not value or answer.got[name] == value


def test_each_user_has_a_count_by_a_claim_of_a_good_token(site: Site) -> None:
    def statuses(who: str | None, count: int) -> Counter[int]:
        headers = bearer(token(EC, claims(realm={"name": who}))) if who else {}
        return Counter(ask(site.edge, "/limited", **headers).status for _ in range(count))

    assert statuses("gold", 3) == {200: 2, 429: 1}
    assert statuses("silver", 3) == {200: 2, 429: 1}
    assert statuses(None, 3) == {200: 2, 429: 1}  # all that say nothing share one
    assert ask(site.edge, "/limited", **bearer(token(OTHER, claims(realm={"name": "new"})))).status == 401


@pytest.mark.parametrize(
    ("headers", "status", "text", "challenge"),
    [
        ({}, 401, "Jwt is missing", ""),
        ({"x_partner": token(THEIRS, claims(iss=PARTNER))}, 401, "Jwt is missing", ""),
        (bearer(token(OTHER)), 401, "Jwt verification fails", ', error="invalid_token"'),
        (bearer(token(RSA)), 200, "", None),
        # The keys of the other issuer are not known: its tokens are refused, nobody else's are.
        ({**bearer(token(RSA)), "x_partner": token(THEIRS, claims(iss=PARTNER))}, 401, "", None),
    ],
)
def test_a_token_that_is_required(
    site: Site, headers: dict[str, str], status: int, text: str, challenge: str | None
) -> None:
    answer = ask(site.required, **headers)
    assert (answer.status, text in answer.text) == (status, True), answer
    if challenge is not None:
        said = f'Bearer realm="http://127.0.0.1:{site.required.port}/"{challenge}'
        assert answer.headers["www-authenticate"] == said


FETCHED = """
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: default}}
spec: {{selector: {{app: web}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: users, namespace: default}}
spec: {{jwtRules: [{{issuer: "{issuer}", jwksUri: "{uri}"}}]}}
---
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {{name: default, namespace: istio-system}}
spec: {{keyFetching: {{allowedNetworks: [127.0.0.0/8], allowPlaintext: true}}}}
"""


def test_keys_that_are_fetched_rotated_and_out_of_reach(tmp_path: Path) -> None:
    base = f"127.{random.randint(16, 250)}.{random.randint(1, 250)}"
    to, old, new = (f"{base}.1", 8080), ec_key(), ec_key()
    place = {
        "outboundAddress": to[0], "outboundPort": free_ports(1)[0], "inboundAddress": to[0],
        "appAddress": f"{base}.2",
    }  # fmt: skip

    def status(key: Any = None) -> int:
        return send(to, "/", "GET", {"authorization": [f"Bearer {token(key)}"]} if key else {}).status

    with ExitStack() as stack:
        stack.enter_context(serving(HttpBackend(f"{base}.2", 8080, "web")))
        issuer = stack.enter_context(serving(IssuerServer()))
        plane = stack.enter_context(ControlPlane(tmp_path, TestAuthority()))
        text = FETCHED.format(issuer=ISSUER, uri=f"{issuer.url}/keys")
        plane.apply(*yaml.safe_load_all(text))
        stack.enter_context(plane.sidecar("web", to[0], place))
        plane.settle(1)
        # Nobody knows the keys yet: this issuer's tokens are refused, other requests are not.
        assert (status(old), status()) == (401, 200)
        stack.enter_context(fetching(plane))
        asked_again(issuer)
        assert (status(old), status()) == (401, 200)
        issuer.put("/keys", jwks(jwk(old, "a")))
        wait_until(lambda: status(old) == 200, 20, "the keys")
        issuer.put("/keys", jwks(jwk(new, "b")))
        wait_until(lambda: status(new) == 200, 20, "the new keys")
        assert status(old) == 401
        for body, code in (("garbage", 200), (jwks(jwk(old)), 500)):
            issuer.put("/keys", body, code)
            asked_again(issuer)
            assert (status(new), status(old), status()) == (200, 401, 200)


def asked_again(issuer: IssuerServer) -> None:
    """Until an attempt is over that began after this."""
    seen = issuer.asked["/keys"]
    wait_until(lambda: issuer.asked["/keys"] > seen + 1, 20, "two more attempts")


@contextmanager
def fetching(plane: ControlPlane) -> Iterator[None]:
    """The keys that the control plane's world needs, looked for many times a second."""

    async def begin() -> asyncio.Task[None]:
        pipeline = plane.pipeline
        fetcher = KeyFetcher(
            KeyServer(),
            plane.store.private("key-sets"),
            pipeline.take_keys,
            refresh=timedelta(seconds=0.05),
            retry=0.05,
        )
        pipeline.take_keys(await fetcher.load())
        fetcher.heard(pipeline.world)
        return asyncio.create_task(fetcher.run())

    async def end(task: asyncio.Task[None]) -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    running = plane.ask(begin())
    try:
        yield
    finally:
        plane.ask(end(running))
