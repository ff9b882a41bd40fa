"""Status of ListenerSets, and what they change in that of their Gateway."""

from __future__ import annotations

import pytest
from tests.support.compiled import world
from tests.support.judged import gateway, listeners, route, status, verdicts

from weft.compile.gatewayapi.status import Waiting, statuses
from weft.model.resource import Key

ALLOWED = ", allowedListeners: {namespaces: {from: Same}}"
OWN = "[{name: own, port: 80, protocol: HTTP, hostname: own.example.com}]"


def listener_set(
    made: str, name: str = "more", namespace: str = "default", created: str = "2026-01-01T00:00:00Z"
) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: "{created}"}}
spec: {{parentRef: {{name: edge, namespace: default}}, listeners: {made}}}
"""


def listener(name: str, hostname: str, protocol: str = "HTTP") -> str:
    host = f", hostname: {hostname}" if protocol == "HTTP" else ""
    return f"{{name: {name}, port: 80, protocol: {protocol}{host}}}"


def test_a_set_that_its_gateway_takes_serves_and_is_counted() -> None:
    of = world(
        gateway(OWN, ALLOWED),
        listener_set(f"[{listener('a', 'a.example.com')}]"),
        route(parentRefs="[{kind: ListenerSet, name: more}]"),
    )
    said = status(of, "ListenerSet", "more")
    assert verdicts(said["conditions"]) == {"Accepted": "Accepted", "Programmed": "Programmed"}
    assert listeners(said)["a"]["Programmed"] == "Programmed"
    assert [item["attachedRoutes"] for item in said["listeners"]] == [1]
    edge = status(of, "Gateway", "edge")
    assert edge["attachedListenerSets"] == 1
    assert {item["name"]: item["attachedRoutes"] for item in edge["listeners"]} == {"own": 0}
    (parent,) = status(of, "HTTPRoute", "web")["parents"]
    assert parent["parentRef"]["kind"] == "ListenerSet"
    assert verdicts(parent["conditions"])["Accepted"] == "Accepted"


@pytest.mark.parametrize(
    ("more", "namespace"), [("", "default"), (ALLOWED, "other"), (ALLOWED.replace("Same", "None"), "default")]
)
def test_a_set_that_its_gateway_does_not_take(more: str, namespace: str) -> None:
    of = world(gateway(OWN, more), listener_set(f"[{listener('a', 'a.example.com')}]", namespace=namespace))
    said = status(of, "ListenerSet", "more", namespace)
    assert verdicts(said["conditions"]) == {"Accepted": "!NotAllowed", "Programmed": "!NotAllowed"}
    assert "listeners" not in said
    assert status(of, "Gateway", "edge").get("attachedListenerSets", 0) == 0


def test_who_was_there_first_keeps_a_host_and_a_port() -> None:
    of = world(
        gateway(OWN, ALLOWED),
        listener_set(
            f"[{listener('mine', 'mine.example.com')}, {listener('taken', 'own.example.com')}]", "older"
        ),
        listener_set(f"[{listener('late', 'mine.example.com')}]", "newer", created="2026-01-02T00:00:00Z"),
        listener_set(f"[{listener('tcp', '', 'TCP')}]", "other", created="2026-01-03T00:00:00Z"),
    )
    conflicted = {
        "Accepted": "!HostnameConflict",
        "Conflicted": "HostnameConflict",
        "Programmed": "!HostnameConflict",
        "ResolvedRefs": "ResolvedRefs",
    }
    older, newer, other = (status(of, "ListenerSet", name) for name in ("older", "newer", "other"))
    assert verdicts(older["conditions"]) == {"Accepted": "ListenersNotValid", "Programmed": "Programmed"}
    assert listeners(older)["mine"]["Accepted"] == "Accepted"
    assert listeners(older)["taken"] == conflicted
    nothing = {"Accepted": "!ListenersNotValid", "Programmed": "!ListenersNotValid"}
    assert verdicts(newer["conditions"]) == nothing
    assert listeners(newer)["late"] == conflicted
    assert verdicts(other["conditions"]) == nothing
    assert listeners(other)["tcp"]["Conflicted"] == "ProtocolConflict"
    edge = status(of, "Gateway", "edge")
    assert edge["attachedListenerSets"] == 1
    assert listeners(edge)["own"]["Conflicted"] == "!NoConflicts"


def test_a_set_goes_with_its_gateway() -> None:
    odd = ", addresses: [{type: example.com/named, value: x}]"
    of = world(gateway(OWN, ALLOWED + odd), listener_set(f"[{listener('a', 'a.example.com')}]"))
    said = status(of, "ListenerSet", "more")
    refused = {"Accepted": "!ParentNotAccepted", "Programmed": "!ParentNotAccepted"}
    assert verdicts(said["conditions"]) == refused
    assert status(of, "Gateway", "edge")["attachedListenerSets"] == 0


@pytest.mark.parametrize("kind", ["Gateway", "ListenerSet"])
def test_a_set_waits_for_its_own_listeners_and_for_its_gateways(kind: str) -> None:
    of = world(gateway(OWN, ALLOWED), listener_set(f"[{listener('a', 'a.example.com')}]"))
    group, name = "gateway.networking.k8s.io", {"Gateway": "edge", "ListenerSet": "more"}[kind]
    late = {Key(f"{group}/{kind}", "default", name): Waiting("Pending", "not yet")}
    said = statuses(of.gateway_facts, waiting=late)
    made = said[Key(f"{group}/ListenerSet", "default", "more")]
    assert verdicts(made["conditions"]) == {"Accepted": "Accepted", "Programmed": "!Pending"}
    assert listeners(made)["a"]["Programmed"] == "!Pending"
    edge = verdicts(said[Key(f"{group}/Gateway", "default", "edge")]["conditions"])
    assert edge["Programmed"] == ("!Pending" if kind == "Gateway" else "Programmed")


def test_a_set_of_another_controllers_gateway_gets_no_status() -> None:
    of = world(
        gateway(OWN, ALLOWED).replace("gatewayClassName: weft", "gatewayClassName: other"),
        listener_set(f"[{listener('a', 'a.example.com')}]"),
    )
    assert not any(key.kind.endswith("/ListenerSet") for key in statuses(of.gateway_facts))
