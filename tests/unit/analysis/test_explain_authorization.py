"""Which policy and rule an explanation names, before a request and after it."""

from __future__ import annotations

from typing import Any

import pytest

from weft.analysis.explain.authorization import logged
from weft.analysis.explain.mesh import Mesh
from weft.model.parse import parse, unwrap
from weft.yaml import load

RESOURCES = """\
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80}, {name: tcp, port: 9000}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: web-0}
spec: {address: 10.0.0.1, labels: {app: web}, ports: {http: 80, tcp: 9000}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers}
spec:
  rules:
  - from: [{source: {namespaces: [ops]}}]
  - to:
    - operation: {paths: [/open, /tried, /closed]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: closed}
spec:
  action: DENY
  rules:
  - to:
    - operation: {ports: ["80"], paths: [/closed]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: marked}
spec:
  action: AUDIT
  rules: [{}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tried, annotations: {istio.io/dry-run: "true"}}
spec:
  action: DENY
  rules:
  - to:
    - operation: {ports: ["80"], paths: [/tried]}
"""
OPS = "spiffe://cluster.local/ns/ops/sa/admin"


def mesh() -> Mesh:
    documents, problems = load(RESOURCES, "shop.yaml")
    assert not problems
    parts = [part for document in documents for part in unwrap(document)[0]]
    read = [(part, resource) for part in parts if (resource := parse(part)[0]) is not None]
    return Mesh(parts, read)


def asked(path: str, *, principal: str = "", port: int = 80) -> dict[str, Any]:
    """What is explained of a request to the workload, or of a connection."""
    request: dict[str, Any] = {"from": {"inbound": "default/web-0"}, "port": port}
    if principal:
        request |= {"tls": "mtls", "source": {"principal": principal}}
    if port == 80:
        request["http"] = {"method": "GET", "host": "web", "path": path}
    else:
        request["protocol"] = "tcp"
    return mesh().explain(request)


@pytest.mark.parametrize(
    ("path", "principal", "decision", "policy", "rule", "dry_run"),
    [
        ("/open", "", "allow", "default/callers", 1, "allow"),
        ("/other", OPS, "allow", "default/callers", 0, "allow"),
        ("/other", "", "deny", None, None, "allow"),
        ("/closed", OPS, "deny", "default/closed", 0, "allow"),
        ("/tried", "", "allow", "default/callers", 1, "deny"),
    ],
)
def test_a_request(
    path: str, principal: str, decision: str, policy: str | None, rule: int | None, dry_run: str
) -> None:
    answer = asked(path, principal=principal)
    authz = answer["authz"]
    assert (authz["decision"], authz["policy"], authz["rule"]) == (decision, policy, rule)
    assert (authz["dryRun"], authz["dryRunPolicy"]) == (
        dry_run,
        "default/tried" if dry_run == "deny" else None,
    )
    assert answer["status"] == (200 if decision == "allow" else 403)
    assert any("marked for the audit" in step["detail"] for step in answer["trace"])


def test_the_trace_has_the_line_of_the_rule() -> None:
    (step,) = (step for step in asked("/open")["trace"] if "default/callers" in step["detail"])
    assert RESOURCES.splitlines()[step["line"] - 1].strip() == "- to:"


def test_a_connection() -> None:
    assert asked("", principal=OPS, port=9000)["authz"]["policy"] == "default/callers"
    refused = asked("", port=9000)
    assert (refused["action"], refused["authz"]["decision"]) == ("deny", "deny")


LINE = {"authz_result": "allowed", "authz_policy": "ns[a]-policy[b]-rule[3]"}


@pytest.mark.parametrize(
    ("line", "decision", "policy", "rule"),
    [
        ({}, None, None, None),
        (LINE, "allow", "a/b", 3),
        ({**LINE, "authz_policy": "-"}, "allow", None, None),
        ({**LINE, "authz_policy": "one identity"}, "allow", None, None),
        ({**LINE, "response_code_details": "rbac_access_denied_matched_policy[none]"}, "deny", None, None),
        (
            {**LINE, "response_code_details": "rbac_access_denied_matched_policy[ns[c]-policy[d]-rule[0]]"},
            "deny", "c/d", 0,
        ),
        (
            {"connection_termination_details": "rbac_access_denied_matched_policy[several identities]"},
            "deny", "several identities", None,
        ),
    ],
)  # fmt: skip
def test_a_line_of_a_log(
    line: dict[str, Any], decision: str | None, policy: str | None, rule: int | None
) -> None:
    told = logged(line)
    assert (told["decision"], told["policy"], told["rule"]) == (decision, policy, rule)


def test_a_rule_that_only_marks_decides_nothing() -> None:
    assert logged(LINE, {"ns[a]-policy[b]-rule[3]"})["policy"] is None


def test_of_two_dry_runs_the_refusal_is_told() -> None:
    line = {
        "dry_run_allow_result": "allowed", "dry_run_allow_policy": "ns[a]-policy[b]-rule[0]",
        "dry_run_deny_result": "denied", "dry_run_deny_policy": "ns[a]-policy[c]-rule[1]",
    }  # fmt: skip
    told = logged(line)
    assert (told["dryRun"], told["dryRunPolicy"], told["dryRunRule"]) == ("deny", "a/c", 1)
    assert told["decision"] is None
