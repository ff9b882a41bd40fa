"""What pages are made of, without a page."""

from __future__ import annotations

from typing import Any

import pytest

from weft.dashboard.certificates import ending, newest
from weft.dashboard.configuration import conditions, lines
from weft.dashboard.decisions import decisions, denials
from weft.dashboard.edges import as_called, callees, callers, reached
from weft.dashboard.explain import BadRequestError, question_of
from weft.dashboard.redaction import HIDDEN, redact

HOUR = 3_600_000


def test_secrets_are_hidden_wherever_they_are() -> None:
    secret = {"kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "eA=="}, "stringData": {"b": "x"}}
    assert redact(secret)["data"] == {"a": HIDDEN}
    assert redact(secret)["stringData"] == {"b": HIDDEN}
    workload = {
        "kind": "Workload",
        "metadata": {
            "name": "w",
            "managedFields": [1],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x", "kept": "y"},
        },
        "spec": {"env": [{"name": "PASSWORD", "value": "x"}, {"name": "NONE"}], "jwtRules": [{"jwks": "{}"}]},
        "status": {"replicas": 1},
    }
    assert redact(workload) == {
        "kind": "Workload",
        "metadata": {"name": "w", "annotations": {"kept": "y"}},
        "spec": {
            "env": [{"name": "PASSWORD", "value": HIDDEN}, {"name": "NONE"}],
            "jwtRules": [{"jwks": HIDDEN}],
        },
    }
    assert workload["spec"]["env"][0]["value"] == "x", "it is a copy"  # type: ignore[index]


def test_conditions_say_what_they_are_about() -> None:
    one = {"type": "Accepted", "status": "True"}
    status = {
        "conditions": [one],
        "listeners": [{"name": "http", "conditions": [one]}],
        "parents": [{"parentRef": {"name": "edge"}, "conditions": [one]}],
    }
    assert [found["about"] for found in conditions(status)] == ["", "listener http", "parent edge"]


def test_yaml_by_lines_tells_keys_from_values() -> None:
    wire = {"kind": "X", "spec": {"hosts": ["a: b", "http://c"], "text": "one\ntwo: three"}}
    found = list(lines(wire))
    assert ("", "kind", ": X") in found
    assert ("", "spec", ":") in found
    assert ("  - http://c", "", "") in found


def test_the_newest_certificate_of_each_identity_and_how_much_is_left() -> None:
    def certificate(identity: str, end: int, **more: Any) -> dict[str, Any]:
        usual = {"identity": identity, "node": "a", "issued": end - 10 * HOUR, "notAfter": end}
        return {**usual, "revoked": False, **more}

    rows = newest(
        [
            certificate("x", 5 * HOUR),
            certificate("x", 9 * HOUR),
            certificate("late", 1 * HOUR),
            certificate("over", -1),
            certificate("gone", 9 * HOUR, revoked=True),
        ],
        0,
    )
    assert [(row["identity"], row["left"], row["health"]) for row in rows] == [
        ("late", 0.1, "bad"), ("x", 0.9, "good")
    ]  # fmt: skip


def test_what_ends_within_the_hour() -> None:
    parts = [{"name": "soon", "notAfter": HOUR // 2}, {"name": "later", "notAfter": 2 * HOUR}]
    found = ending({"nodes": [{"name": "a", "parts": parts}]}, 0)
    assert [one["part"] for one in found] == ["soon"]


def edge(source: str, destination: str, *, errors: int = 0) -> dict[str, Any]:
    def end(name: str) -> dict[str, Any]:
        return {
            "namespace": "shop" if name else "",
            "workload": name,
            "kind": "workload" if name else "outside",
        }

    return {
        "source": end(source), "destination": end(destination), "requests": 10, "errors": errors,
        "service": {"namespace": "shop", "name": "api"},
    }  # fmt: skip


def test_who_calls_and_who_is_called() -> None:
    edges = {"edges": [edge("web", "api-v1"), edge("web", "", errors=10), edge("", "api-v1")]}
    assert len(callers(edges, "shop", service="api")) == 3
    assert len(callers(edges, "shop", workload="api-v1")) == 2
    assert callers(edges, "other", workload="api-v1") == []
    assert [one["who"]["kind"] for one in callees(edges, "shop", {"web"})] == ["workload", "nobody"]
    assert [reached(one) for one in edges["edges"]] == [True, False, True]


def flow(path: str, decision: str = "deny", **more: Any) -> dict[str, Any]:
    usual = {
        "source": "spiffe://d/ns/shop/sa/web", "namespace": "shop", "workload": "api", "policy": "p",
        "decision": decision, "shadow": "", "shadow_policy": "", "method": "GET", "path": path, "sni": "",
        "port": 80, "count": 2, "last": 5,
    }  # fmt: skip
    return {**usual, **more}


def test_denials_are_gathered_by_caller_and_policy() -> None:
    found = denials(
        [flow(f"/{name}") for name in "abcde"]
        + [flow("/f", "allow"), flow("/g", "allow", shadow="deny", shadow_policy="q", last=9)]
    )
    assert [(row["policy"], row["dry"], row["count"], row["more"]) for row in found] == [
        ("q", True, 2, 0), ("p", False, 10, 2)
    ]  # fmt: skip
    assert found[1]["requests"] == ["GET /a", "GET /b", "GET /c"]


def test_decisions_by_policy() -> None:
    (denying, allowing) = decisions([flow("/a"), flow("/b"), flow("/c", "allow", policy="")])
    assert (denying["policy"], denying["deny"], denying["allow"]) == ("p", 4, 0)
    assert (allowing["policy"], allowing["deny"], allowing["allow"]) == ("", 0, 2)


def test_a_question_of_the_form() -> None:
    form = {
        "role": "inbound", "from": "shop/api", "method": "POST", "url": "https://u@api:8443/a?b=c",
        "headers": "X-A: 1\n\n x-a:2 ", "principal": "spiffe://d/ns/a/sa/b", "ip": "10.0.0.1",
    }  # fmt: skip
    assert question_of(form) == {
        "id": None, "from": {"inbound": "shop/api"}, "address": "api", "port": 8443, "protocol": "http",
        "tls": "mtls", "source": {"principal": "spiffe://d/ns/a/sa/b", "namespace": "", "ip": "10.0.0.1"},
        "http": {"method": "POST", "host": "api:8443", "path": "/a?b=c", "headers": {"x-a": ["1", "2"]}},
    }  # fmt: skip
    plain = question_of({"role": "gateway", "from": "a/b", "url": "shop.example"})
    assert (plain["address"], plain["port"], plain["http"]["path"], plain["tls"]) == ("", 80, "/", "none")


@pytest.mark.parametrize(
    ("form", "flaw"),
    [
        ({"from": "api", "url": "http://a"}, "NAMESPACE/NAME"),
        ({"from": "a/b", "role": "x", "url": "http://a"}, "NAMESPACE/NAME"),
        ({"from": "a/b", "url": "ftp://a"}, "is no URL"),
        ({"from": "a/b", "url": "http://a:port"}, "is no URL"),
        ({"from": "a/b", "url": "http://a", "headers": "nothing"}, "is no header"),
    ],
)
def test_a_form_that_cannot_be_read(form: dict[str, str], flaw: str) -> None:
    with pytest.raises(BadRequestError, match=flaw):
        question_of(form)


def test_a_service_does_as_its_callers_say_where_that_is_worse() -> None:
    own, broken = {"errors": 0, "requests": 5}, {"errors": 40, "requests": 45}
    assert as_called(own, broken) == {**broken, "seenBy": "source"}
    assert as_called(broken, own) == broken
    assert as_called(own, own) == own
    assert as_called(None, own) == own
    assert as_called(own, None) == own
