"""Status of routes of all kinds: what each parent says of them."""

# ruff: noqa: E501  (resources stand on one line)

from __future__ import annotations

import pytest
from tests.support.compiled import service, world
from tests.support.judged import gateway, route, status, verdicts

WEB, OTHER = service("web", 80), service("web", 80, namespace="other")
FINE = {"Accepted": "Accepted", "ResolvedRefs": "ResolvedRefs"}
LISTENERS = """[{name: http, port: 80, protocol: HTTP, hostname: '*.example.com'},
  {name: pass, port: 443, protocol: TLS, hostname: tls.example.com, tls: {mode: Passthrough}},
  {name: tcp, port: 90, protocol: TCP}, {name: udp, port: 90, protocol: UDP}]"""
KINDS = {"HTTPRoute": "http", "GRPCRoute": "http", "TLSRoute": "pass", "TCPRoute": "tcp", "UDPRoute": "udp"}
UDP = """
apiVersion: v1
kind: Service
metadata: {name: dns}
spec: {ports: [{name: dns, port: 53, protocol: UDP}]}
"""


def of_kind(kind: str, **spec: str) -> str:
    """A route of a kind; a TLSRoute needs host names, a UDPRoute a service that speaks UDP."""
    if kind == "TLSRoute":
        spec = {"hostnames": "[tls.example.com]", **spec}
    if kind == "UDPRoute":
        spec = {"rules": "[{backendRefs: [{name: dns, port: 53}]}]", **spec}
    return route(kind, **spec)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_accepted_where_its_listener_is(kind: str) -> None:
    of = world(WEB, UDP, gateway(LISTENERS), of_kind(kind))
    (parent,) = status(of, kind, "web")["parents"]
    assert verdicts(parent["conditions"]) == FINE
    assert parent["parentRef"] == {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}
    assert parent["controllerName"] == "weft.dev/gateway-controller"
    counts = {item["name"]: item["attachedRoutes"] for item in status(of, "Gateway", "edge")["listeners"]}
    assert counts == {name: int(name == KINDS[kind]) for name in counts}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ("{name: nobody, port: 80}", "!BackendNotFound"),
        ("{name: web, port: 99}", "!BackendNotFound"),
        ("{name: web, namespace: other, port: 80}", "!RefNotPermitted"),
        ("{name: web, port: 80, group: example.com, kind: Bucket}", "!InvalidKind"),
    ],
)
def test_backends_that_lead_nowhere(kind: str, backend: str, reason: str) -> None:
    of = world(WEB, OTHER, gateway(LISTENERS), of_kind(kind, rules=f"[{{backendRefs: [{backend}]}}]"))
    (parent,) = status(of, kind, "web")["parents"]
    assert verdicts(parent["conditions"]) == {**FINE, "ResolvedRefs": reason}


@pytest.mark.parametrize("kind", KINDS)
def test_a_grant_is_for_one_kind_of_route(kind: str) -> None:
    grant = """
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: g, namespace: other}
spec: {from: [{group: gateway.networking.k8s.io, kind: KIND, namespace: default}], to: [{group: "", kind: Service}]}
"""
    name = "dns" if kind == "UDPRoute" else "web"
    port = 53 if kind == "UDPRoute" else 80
    made = of_kind(kind, rules=f"[{{backendRefs: [{{name: {name}, namespace: other, port: {port}}}]}}]")
    there = UDP.replace("name: dns}", "name: dns, namespace: other}")
    for granted, wanted in ((kind, "ResolvedRefs"), ("Gateway", "!RefNotPermitted")):
        of = world(OTHER, there, gateway(LISTENERS), made, grant.replace("KIND", granted))
        (parent,) = status(of, kind, "web")["parents"]
        assert verdicts(parent["conditions"])["ResolvedRefs"] == wanted


@pytest.mark.parametrize(
    ("kind", "spec", "reason"),
    [
        ("HTTPRoute", {"parentRefs": "[{name: edge, sectionName: nope}]"}, "!NoMatchingParent"),
        ("HTTPRoute", {"parentRefs": "[{name: edge, port: 81}]"}, "!NoMatchingParent"),
        ("HTTPRoute", {"parentRefs": "[{name: edge, sectionName: http, port: 90}]"}, "!NoMatchingParent"),
        ("HTTPRoute", {"parentRefs": "[{name: edge, sectionName: tcp}]"}, "!NotAllowedByListeners"),
        ("HTTPRoute", {"hostnames": "[example.org]"}, "!NoMatchingListenerHostname"),
        ("TLSRoute", {"hostnames": "[example.org]"}, "!NoMatchingListenerHostname"),
        ("TCPRoute", {"parentRefs": "[{name: edge, sectionName: http}]"}, "!NotAllowedByListeners"),
        ("UDPRoute", {"parentRefs": "[{name: edge, sectionName: pass}]"}, "!NotAllowedByListeners"),
        ("GRPCRoute", {"parentRefs": "[{name: edge, sectionName: udp}]"}, "!NotAllowedByListeners"),
    ],
)  # fmt: skip
def test_why_a_route_is_refused(kind: str, spec: dict[str, str], reason: str) -> None:
    of = world(WEB, UDP, gateway(LISTENERS), of_kind(kind, **spec))
    (parent,) = status(of, kind, "web")["parents"]
    assert verdicts(parent["conditions"]) == {**FINE, "Accepted": reason}
    assert not any(item["attachedRoutes"] for item in status(of, "Gateway", "edge")["listeners"])


def test_each_parent_has_its_own_say_and_others_parents_none() -> None:
    refs = "[{name: edge, sectionName: http}, {name: edge, sectionName: nope}, {name: elsewhere}, {group: example.com, kind: Thing, name: x}]"
    of = world(WEB, gateway(LISTENERS), route(parentRefs=refs))
    parents = status(of, "HTTPRoute", "web")["parents"]
    assert [item["parentRef"].get("sectionName") for item in parents] == ["http", "nope"]
    assert [verdicts(item["conditions"])["Accepted"] for item in parents] == ["Accepted", "!NoMatchingParent"]


def test_a_route_of_nobody_of_ours_has_no_parents() -> None:
    of = world(WEB, gateway(LISTENERS), route(parentRefs="[{name: elsewhere}]"))
    assert status(of, "HTTPRoute", "web") == {"parents": []}


def test_the_controller_is_that_of_the_gateways_class() -> None:
    mine = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: weft}
spec: {controllerName: istio.io/gateway-controller}
"""
    of = world(WEB, mine, gateway(LISTENERS), route())
    (parent,) = status(of, "HTTPRoute", "web")["parents"]
    assert parent["controllerName"] == "istio.io/gateway-controller"


@pytest.mark.parametrize(
    ("ref", "wanted"),
    [
        ("{group: '', kind: Service, name: web}", "Accepted"),
        ("{group: '', kind: Service, name: web, port: 80}", "Accepted"),
        ("{group: '', kind: Service, name: web, port: 81}", "!NoMatchingParent"),
        ("{group: '', kind: Service, name: nobody}", "!NoMatchingParent"),
        ("{group: '', kind: Service, name: web, namespace: other}", "Accepted"),
    ],
)
def test_a_service_of_the_mesh_is_a_parent(ref: str, wanted: str) -> None:
    rules = "[{backendRefs: [{name: web, namespace: other, port: 80}]}]"
    of = world(WEB, OTHER, route(parentRefs=f"[{ref}]", rules=rules))
    (parent,) = status(of, "HTTPRoute", "web")["parents"]
    assert verdicts(parent["conditions"]) == {"Accepted": wanted, "ResolvedRefs": "ResolvedRefs"}
    assert parent["parentRef"]["kind"] == "Service"
    assert parent["controllerName"] == "weft.dev/gateway-controller"


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [("TCPRoute", "Accepted"), ("TLSRoute", "Accepted"), ("UDPRoute", "!UnsupportedValue")],
)
def test_streams_have_parents_in_the_mesh_and_datagrams_none(kind: str, wanted: str) -> None:
    made = of_kind(kind, parentRefs="[{group: '', kind: Service, name: web}]")
    (parent,) = status(world(WEB, UDP, made), kind, "web")["parents"]
    assert verdicts(parent["conditions"]) == {**FINE, "Accepted": wanted}


def test_a_match_that_no_proxy_can_be_given_is_dropped() -> None:
    bad = "{matches: [{path: {type: RegularExpression, value: '('}}], backendRefs: [{name: web, port: 80}]}"
    good = "{backendRefs: [{name: web, port: 80}]}"
    of = world(WEB, gateway(LISTENERS), route(rules=f"[{bad}, {good}]"))
    (parent,) = status(of, "HTTPRoute", "web")["parents"]
    assert verdicts(parent["conditions"]) == {**FINE, "PartiallyInvalid": "UnsupportedValue"}
    (message,) = [one["message"] for one in parent["conditions"] if one["type"] == "PartiallyInvalid"]
    assert message.startswith("Dropped Rule")
    assert "rules[0]" in message
    of = world(WEB, gateway(LISTENERS), route(rules=f"[{bad}]"))
    (parent,) = status(of, "HTTPRoute", "web")["parents"]
    assert verdicts(parent["conditions"]) == {**FINE, "Accepted": "!UnsupportedValue"}
    assert not any(item["attachedRoutes"] for item in status(of, "Gateway", "edge")["listeners"])


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ("{name: web, port: 80}", "ResolvedRefs"),
        ("{name: nobody, port: 80}", "!BackendNotFound"),
        ("{name: web, namespace: other, port: 80}", "!RefNotPermitted"),
        ("{name: web, port: 80, group: example.com, kind: Bucket}", "!InvalidKind"),
    ],
)
def test_an_authorizer_is_a_reference_as_a_backend_is(backend: str, reason: str) -> None:
    asked = f"{{type: ExternalAuth, externalAuth: {{protocol: HTTP, http: {{}}, backendRef: {backend}}}}}"
    rules = f"[{{filters: [{asked}], backendRefs: [{{name: web, port: 80}}]}}]"
    texts = (WEB, OTHER, gateway(LISTENERS), of_kind("HTTPRoute", rules=rules))
    (parent,) = status(world(*texts), "HTTPRoute", "web")["parents"]
    assert verdicts(parent["conditions"]) == {**FINE, "ResolvedRefs": reason}
    grant = """
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: grant, namespace: other}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]
  to: [{group: "", kind: Service}]
"""
    (parent,) = status(world(*texts, grant), "HTTPRoute", "web")["parents"]
    granted = "ResolvedRefs" if reason == "!RefNotPermitted" else reason
    assert verdicts(parent["conditions"])["ResolvedRefs"] == granted


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute"])
def test_a_filter_of_an_unknown_kind_is_told(kind: str) -> None:
    ref = "{type: ExtensionRef, extensionRef: {group: example.com, kind: Magic, name: m}}"
    rules = f"[{{filters: [{ref}], backendRefs: [{{name: web, port: 80}}]}}]"
    (parent,) = status(world(WEB, gateway(LISTENERS), route(kind, rules=rules)), kind, "web")["parents"]
    assert verdicts(parent["conditions"]) == {**FINE, "ResolvedRefs": "!InvalidKind"}


def test_of_two_kinds_for_one_host_the_older_is_accepted() -> None:
    older = route("GRPCRoute", "old", hostnames="[a.example.com]").replace(
        "{name: old,", "{name: old, creationTimestamp: '2026-01-01T00:00:00Z',"
    )
    newer = route("HTTPRoute", "new", hostnames="[a.example.com]").replace(
        "{name: new,", "{name: new, creationTimestamp: '2026-01-02T00:00:00Z',"
    )
    of = world(WEB, gateway(LISTENERS), older, newer)
    accepted = {
        kind: verdicts(status(of, kind, name)["parents"][0]["conditions"])["Accepted"]
        for kind, name in (("GRPCRoute", "old"), ("HTTPRoute", "new"))
    }
    assert accepted == {"GRPCRoute": "Accepted", "HTTPRoute": "!Conflicted"}
    counts = {item["name"]: item["attachedRoutes"] for item in status(of, "Gateway", "edge")["listeners"]}
    assert counts["http"] == 1
