"""RequestAuthentications: for whom they are, in which order, with which keys."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from tests.support.compiled import identity, resources, service, world
from tests.support.tokens import ec_key, jwk, jwks

from weft import ir
from weft.compile.istio.status import authentication_statuses
from weft.compile.key_sets import DISCOVERY, TIMEOUT, KeySet, KeySource, sources
from weft.compile.proxy import compile_proxy
from weft.compile.world import World
from weft.emit.filters.jwt import NO_KEYS
from weft.model.request_authentication import RequestAuthentication
from weft.names import ProxyName

SIDECAR = "sidecar~10.0.0.1~web-0.default"
KEYS = jwks(jwk(ec_key(), "a"))


def policy(name: str, *issuers: str | dict[str, Any], namespace: str = "default", **spec: Any) -> str:
    rules = [{"issuer": one, "jwks": KEYS} if isinstance(one, str) else one for one in issuers]
    return json.dumps(
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "RequestAuthentication",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"jwtRules": rules, **spec},
        }
    )


def handlers(of: World, node: str = SIDECAR, **labels: str) -> list[tuple[ir.Direction, ir.HttpHandler]]:
    proxy, _ = compile_proxy(of, identity(node, labels or {"app": "web"}))
    chains = [
        (listener.direction, chain)
        for listener in proxy.listeners
        for chain in (*listener.chains, *([listener.default_chain] if listener.default_chain else ()))
    ]
    return [(way, chain.handler) for way, chain in chains if isinstance(chain.handler, ir.HttpHandler)]


def issuers(of: World, node: str = SIDECAR, **labels: str) -> list[str]:
    """Whose tokens are believed on the way in; nobody's are looked at on the way out."""
    found = handlers(of, node, **labels)
    believed = {handler.authentication for way, handler in found if way is not ir.Direction.OUTBOUND}
    assert all(handler.authentication is None for way, handler in found if way is ir.Direction.OUTBOUND)
    (only,) = believed
    return [rule.issuer for rule in only.rules] if only is not None else []


def rules(of: World) -> tuple[ir.JwtRule, ...]:
    """The rules that hold for the workload."""
    found = [handler.authentication for _, handler in handlers(of) if handler.authentication is not None]
    assert found
    return found[0].rules


def test_whose_tokens_are_believed_where() -> None:
    of = world(
        service("web", 8080),
        service("back", 80),
        policy("own", "b", "a", selector={"matchLabels": {"app": "web"}}),
        policy("other", "x", selector={"matchLabels": {"app": "other"}}),
        policy("space", "c"),
        policy("mesh", "d", namespace="istio-system"),
        policy("mesh-some", "e", namespace="istio-system", selector={"matchLabels": {"app": "web"}}),
        policy("elsewhere", "y", namespace="shop"),
        policy("nothing"),
        policy("gateway", "g", targetRef={
            "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge",
        }),
    )  # fmt: skip
    assert issuers(of) == ["a", "b", "c", "d", "e"]
    assert issuers(of, "sidecar~10.0.0.2~x-0.default", app="x") == ["c", "d"]
    assert issuers(of, "sidecar~10.0.0.2~x-0.foo", app="x") == ["d"]


def test_a_gateway_by_target_reference() -> None:
    gateway = """
    apiVersion: gateway.networking.k8s.io/v1
    kind: Gateway
    metadata: {name: edge, namespace: default}
    spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]}
    """
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}
    of = world(
        gateway, policy("own", "a", targetRefs=[target]), policy("no", "b", targetRef={**target, "name": "x"})
    )
    named = {"gateway.networking.k8s.io/gateway-name": "edge"}
    assert issuers(of, "router~10.0.0.9~edge-0.default", **named) == ["a"]
    (handler, *_) = [handler for _, handler in handlers(of, "router~10.0.0.9~edge-0.default", **named)]
    assert handler.authentication is not None
    assert handler.authentication.reroute


def test_nobody_is_asked_without_a_policy() -> None:
    assert issuers(world(service("web", 8080))) == []
    assert issuers(world(service("web", 8080), policy("nothing"))) == []


def test_keys_that_are_fetched_are_an_input() -> None:
    text = policy("own", {"issuer": "https://a.example/"}, {"issuer": "b", "jwksUri": "https://b.example/k"})
    of = world(service("web", 8080), text)
    a, b = KeySource(f"https://a.example{DISCOVERY}", discover=True), KeySource("https://b.example/k")

    def keys(of: World) -> list[str | None]:
        return [rule.keys for rule in rules(of)]

    def said(of: World) -> list[tuple[str, str]]:
        return [(one.path, one.message) for one in compile_proxy(of, identity(SIDECAR))[1]]

    assert keys(of) == [None, None]
    assert said(of) == []  # nobody fetches here
    fetched = of.replace(key_sets={a: KeySet("A"), b: KeySet("", "status 500")})
    assert keys(fetched) == [None, "A"]  # by the names of the issuers
    ((path, message),) = said(fetched)
    assert path == "spec.jwtRules[1].jwksUri"
    assert message.startswith("the keys of b are not known")
    assert message.endswith("https://b.example/k: status 500")
    old = fetched.replace(key_sets={a: KeySet("A"), b: KeySet("B", "status 500")})
    assert keys(old) == ["B", "A"]
    assert "may be out of date" in said(old)[0][1]
    again = old.replace(key_sets=dict(old.key_sets or {}))
    assert rules(old) is rules(again)  # the same keys are the same unit
    assert old.replace() is old


@pytest.mark.parametrize(
    ("key_sets", "status", "reason"),
    [
        ({}, "Unknown", "Pending"),
        ({KeySource("https://k"): KeySet("A")}, "True", "Fetched"),
        ({KeySource("https://k"): KeySet("A", "status 500")}, "False", "FetchFailed"),
        ({KeySource("https://k"): KeySet("", "status 500")}, "False", "FetchFailed"),
    ],
)
def test_the_status_says_whether_keys_are_there(
    key_sets: dict[KeySource, KeySet], status: str, reason: str
) -> None:
    (made,) = resources(policy("own", "inline", {"issuer": "a", "jwksUri": "https://k"}))
    assert isinstance(made, RequestAuthentication)
    ((key, found),) = authentication_statuses({made.key: made}, key_sets)
    (condition,) = found["conditions"]
    assert key == made.key
    assert (condition["type"], condition["status"], condition["reason"]) == ("KeysFetched", status, reason)
    assert ("status 500" in condition["message"]) == (status == "False")


def test_nothing_is_said_of_keys_that_are_in_the_policy() -> None:
    (made,) = resources(policy("own", "inline"))
    assert isinstance(made, RequestAuthentication)
    assert list(authentication_statuses({made.key: made}, {})) == [(made.key, {})]


def test_what_is_to_be_fetched_and_how_patiently() -> None:
    made = resources(
        policy("one", {"jwksUri": "https://k", "timeout": "2s"}, "inline"),
        policy("two", {"jwks_uri": "https://k", "timeout": "7s"}, {"issuer": "https://a"}),
    )
    found = sources(one for one in made if isinstance(one, RequestAuthentication))
    assert {source.uri: time.total_seconds() for source, time in found.items()} == {
        "https://k": 7, f"https://a{DISCOVERY}": TIMEOUT.total_seconds(),
    }  # fmt: skip


def test_no_private_key_reaches_a_proxy() -> None:
    secret = {**jwk(ec_key(), "p"), "d": "AAAA"}
    shared = {"kty": "oct", "k": "c2VjcmV0", "kid": "s"}
    of = world(
        service("web", 8080), policy("own", {"issuer": "a", "jwks": json.dumps({"keys": [secret, shared]})})
    )
    keys = json.loads(rules(of)[0].keys or "")["keys"]
    assert keys == [{name: value for name, value in secret.items() if name != "d"}, shared]


def test_one_key_is_a_set_of_one() -> None:
    one = jwk(ec_key(), "a")
    of = world(service("web", 8080), policy("own", {"issuer": "a", "jwks": json.dumps(one)}))
    assert json.loads(rules(of)[0].keys or "") == {"keys": [one]}


def test_nobody_has_the_private_key_of_an_unknown_issuer() -> None:
    """Its x is a hash and its y follows from it, so that nobody chose the point by a private key."""
    (key,) = json.loads(NO_KEYS)["keys"]
    x, y = (int.from_bytes(_decoded(key[name])) for name in ("x", "y"))
    said = hashlib.sha256(b"weft: nobody has the private key of this 1").digest()
    assert x == int.from_bytes(said)
    prime = 2**256 - 2**224 + 2**192 + 2**96 - 1
    constant = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    assert (x**3 - 3 * x + constant - y * y) % prime == 0


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_the_gateway_of_another_namespace_has_the_policies_of_its_own() -> None:
    of = world(policy("own", "a", selector={"matchLabels": {"istio": "edge"}}))
    name = ProxyName.parse("router~10.0.0.9~edge.other")
    stranger = replace(identity("router~10.0.0.9~edge.default", {"istio": "edge"}), name=name)
    assert all(
        chain.handler.authentication is None
        for listener in compile_proxy(of, stranger)[0].listeners
        for chain in listener.chains
        if isinstance(chain.handler, ir.HttpHandler)
    )
