"""Authorizers in explanations: who is asked, about what, and which line of a file wants it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from weft.analysis.explain.authorization import logged
from weft.analysis.explain.mesh import Mesh
from weft.model.parse import Part, parse, unwrap
from weft.model.resource import Resource
from weft.yaml import load

GOLDEN = Path(__file__).parents[2] / "golden"
EDGE = {"gateway": "default/edge", "labels": {"istio": "ingressgateway"}}


@cache
def mesh(case: str, old: str = "", new: str = "") -> Mesh:
    """The mesh of a golden case, with a text in another's place."""
    parts: list[Part] = []
    read: list[tuple[Part, Resource]] = []
    documents, problems = load((GOLDEN / case / "in.yaml").read_text().replace(old, new), "in.yaml")
    assert not problems
    for document in documents:
        for part in unwrap(document)[0]:
            parts.append(part)
            resource, _ = parse(part)
            if resource is not None:
                read.append((part, resource))
    return Mesh(parts, read)


def ask(of: Mesh, path: str = "/", **more: Any) -> dict[str, Any]:
    headers = more.pop("headers", {})
    question = {"id": 1, "from": EDGE, "port": 80, **more}
    if more.get("protocol") != "tcp":
        question["http"] = {"method": "GET", "host": "shop.example", "path": path, "headers": headers}
    return of.explain(question)


def lines(answer: dict[str, Any], step: str) -> list[tuple[str, int | None]]:
    return [(one["detail"], one["line"]) for one in answer["trace"] if one["step"] == step]


def test_a_policy_leaves_the_decision_to_a_provider() -> None:
    of = mesh("authorization-external-grpc")
    answer = ask(of, "/admin/a?q=1", headers={"cookie": ["c"]})
    authz = answer["authz"]
    assert (authz["decision"], authz["provider"]) == ("external", "opa")
    assert (authz["policy"], authz["rule"]) == ("istio-system/ask", 0)
    (check,) = authz["checks"]
    assert (check["protocol"], check["method"], check["path"]) == ("grpc", "GET", "/admin/a?q=1")
    assert check["headers"]["cookie"] == ["c"]
    assert check["bodyBytes"] == 4 << 20
    ((detail, line),) = lines(answer, "authz")
    assert "AuthorizationPolicy istio-system/ask rule 0" in detail
    assert line is not None
    assert answer["action"] == "forward"


def test_what_no_rule_fits_is_decided_here() -> None:
    of = mesh("authorization-external-grpc")
    answer = ask(of, "/books")
    assert (answer["authz"]["decision"], answer["authz"]["provider"]) == ("allow", None)
    assert answer["authz"]["checks"] == []


def test_a_policy_of_the_mesh_has_the_last_word() -> None:
    of = mesh("authorization-external-grpc", "methods: [TRACE]", "methods: [GET]")
    answer = ask(of, "/admin/a")
    assert (answer["authz"]["decision"], answer["authz"]["policy"], answer["status"]) == (
        "deny",
        "istio-system/never",
        403,
    )


def test_a_provider_is_asked_about_connections() -> None:
    of = mesh("authorization-external-grpc")
    answer = ask(of, port=3306, protocol="tcp", source={"ip": "192.0.2.7"})
    assert (answer["authz"]["decision"], answer["authz"]["provider"]) == ("external", "opa")
    assert (answer["authz"]["rule"], answer["action"]) == (1, "forward")
    answer = ask(of, port=3306, protocol="tcp", source={"ip": "10.1.2.3"})
    assert answer["authz"]["decision"] == "allow"


def test_an_authorizer_by_http_is_shown_what_it_may_be_shown() -> None:
    sent = {"cookie": ["c"], "x-team-a": ["t"], "request-id": ["1"], "other": ["o"], "authorization": ["a"]}
    answer = ask(mesh("authorization-external-http"), "/a", headers=sent)
    (check,) = answer["authz"]["checks"]
    assert (check["protocol"], check["path"]) == ("http", "/check/a")
    assert check["headers"] == {
        "cookie": ["c"], "x-team-a": ["t"], "request-id": ["1"], "authorization": ["a"],
        "x-from": ["mesh"], "x-a": ["b"],
    }  # fmt: skip


def test_a_provider_that_is_not_there_refuses_or_lets_pass() -> None:
    """Its service has no such port, so that there is no cluster."""
    gone = mesh("authorization-external-http", "port: 4180\n        timeout", "port: 1\n        timeout")
    answer = ask(gone, "/a")
    assert (answer["status"], answer["authz"]["decision"]) == (200, "external")
    assert any("failOpen" in detail for detail, _ in lines(answer, "authz"))
    gone = mesh("authorization-external-grpc", "port: 9191\n      timeout", "port: 1\n      timeout")
    answer = ask(gone, "/admin/a")
    assert (answer["status"], answer["action"], answer["authz"]["decision"]) == (503, "deny", "deny")


def test_two_providers_refuse() -> None:
    of = mesh("authorization-external-nobody")
    assert (ask(of, "/admin/a")["status"], ask(of, "/books/b")["status"], ask(of, "/c")["status"]) == (
        403,
        403,
        200,
    )


def test_a_route_asks() -> None:
    of = mesh("http-route-external-auth")
    answer = ask(of, "/grpc")
    assert answer["authz"]["decision"] == "external"
    assert answer["authz"]["provider"] == "auth.default.svc.cluster.local:9000"
    assert lines(answer, "authz")[0][1] == answer["route"]["line"]
    moved = ask(of, "/moved")
    assert (moved["status"], moved["authz"]["decision"]) == (302, "external")
    assert [ask(of, path)["status"] for path in ("/nobody", "/foreign")] == [500, 500]
    assert ask(of, "/elsewhere")["authz"]["decision"] == "allow"


ASKED = {"consulted_policy": "istio-ext-authz-my-opa-ns[shop]-policy[ask]-rule[2]"}


@pytest.mark.parametrize(
    ("line", "decision", "provider", "policy"),
    [
        (ASKED, "external", "my-opa", "shop/ask"),
        ({**ASKED, "response_code_details": "ext_authz_denied"}, "deny", "my-opa", "shop/ask"),
        ({**ASKED, "response_code_details": "ext_authz_error"}, "deny", "my-opa", "shop/ask"),
        (
            {
                **ASKED,
                "response_code_details": "rbac_access_denied_matched_policy[ns[shop]-policy[never]-rule[0]]",
            },
            "deny", None, "shop/never",
        ),
        ({"consulted_policy": "-", "authz_result": "allowed"}, "allow", None, None),
    ],
)  # fmt: skip
def test_a_line_of_a_log_says_who_decided(
    line: dict[str, str], decision: str, provider: str | None, policy: str | None
) -> None:
    told = logged(line)
    assert (told["decision"], told["provider"], told["policy"]) == (decision, provider, policy)
