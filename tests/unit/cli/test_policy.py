"""``weft policy`` on files: exit codes, what is printed, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from tests.support.flows import report, rows

from weft.cli.policy import policy

MESH = """
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: reviews-0}
spec: {address: 10.0.0.1, labels: {app: reviews}, serviceAccount: reviews, ports: {http: 9080}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers}
spec:
  rules:
  - from: [{source: {namespaces: [default, other]}}]
"""
DENY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin}
spec: {action: DENY, rules: [{to: [{operation: {paths: ["/admin*"]}}]}]}
"""


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    (tmp_path / "mesh.yaml").write_text(MESH)
    told = [report(path=f"/users/{number}") for number in range(3)] + [report(path="/admin")]
    (tmp_path / "flows.json").write_text(json.dumps({"flows": rows(*told)}))
    (tmp_path / "deny.yaml").write_text(DENY)
    return tmp_path


def _run(mesh: Path, command: str, *argv: str) -> Result:
    flows = ["--flows", str(mesh / "flows.json")]
    return CliRunner().invoke(policy, [command, str(mesh / "mesh.yaml"), *flows, *argv])


def _json(result: Result) -> Any:
    return json.loads(result.stdout)


def test_replay_exits_1_when_something_would_change(mesh: Path) -> None:
    result = _run(mesh, "replay", "-f", str(mesh / "deny.yaml"), "-o", "json")
    assert result.exit_code == 1
    found = _json(result)
    assert (found["flows"], found["requests"]) == (2, 4)
    (denied,) = found["denied"]
    assert (denied["path"], denied["count"], denied["after"]["policy"]) == ("/admin", 1, "default/no-admin")
    assert found["allowed"] == found["unknown"] == found["dryRun"] == []
    text = _run(mesh, "replay", "-f", str(mesh / "deny.yaml")).stdout
    assert "cluster.local/ns/default/sa/web -> default/reviews:9080 GET /admin" in text
    assert "2 flows, 4 requests: 1 would change" in text


def test_replay_exits_0_when_nothing_would(mesh: Path) -> None:
    result = _run(mesh, "replay", "-f", str(mesh / "mesh.yaml"))
    assert result.exit_code == 0
    assert "none would change" in result.stdout


def test_replay_without_a_policy(mesh: Path) -> None:
    (mesh / "flows.json").write_text(json.dumps({"flows": rows(report(source="", path="/a"))}))
    result = _run(mesh, "replay", "--without", "default/readers", "-o", "json")
    assert result.exit_code == 1
    assert [change["source"] for change in _json(result)["allowed"]] == [None]


def test_replay_needs_something_to_try(mesh: Path) -> None:
    assert _run(mesh, "replay").exception is not None
    assert "nothing would change" in str(_run(mesh, "replay").exception)
    unknown = _run(mesh, "replay", "--without", "default/other").exception
    assert "there is no AuthorizationPolicy default/other" in str(unknown)


def test_suggest_prints_policies_that_can_be_applied(mesh: Path) -> None:
    result = _run(mesh, "suggest", "-n", "default")
    assert result.exit_code == 0
    documents = [one for one in yaml.safe_load_all(result.stdout) if one]
    assert [one["metadata"]["name"] for one in documents] == ["weft-seen-nothing-else", "weft-seen-reviews"]
    (mesh / "suggested.yaml").write_text(result.stdout)
    assert _run(mesh, "replay", "-f", str(mesh / "suggested.yaml")).exit_code == 0
    assert [one["kind"] for one in _json(_run(mesh, "suggest", "-o", "json"))] == ["AuthorizationPolicy"]


def test_suggest_for_one_workload_closes_nothing(mesh: Path) -> None:
    result = _run(mesh, "suggest", "-n", "default", "--workload", "reviews")
    assert "nothing-else" not in result.stdout
    none = _run(mesh, "suggest", "--workload", "nobody")
    assert (none.exit_code, none.stdout) == (0, "")
    assert "no traffic was told of" in none.stderr


def test_unused_exits_1_and_names_the_place(mesh: Path) -> None:
    result = _run(mesh, "unused", "-o", "json", "--since", "1000000h")
    assert result.exit_code == 1
    assert _json(result) == [
        {
            "namespace": "default",
            "name": "readers",
            "action": "ALLOW",
            "path": "spec.rules[0].from[0].source.namespaces[1]",
            "value": "other",
            "lastUsed": None,
        }
    ]
    text = _run(mesh, "unused", "--since", "1000000h").stdout
    assert text == "default/readers spec.rules[0].from[0].source.namespaces[1] other: never used\n"
    assert _run(mesh, "unused", "-n", "elsewhere").exit_code == 0


def test_what_was_only_refused_is_nothing_to_allow(mesh: Path) -> None:
    told = rows(report(path="/a", details="rbac_access_denied_matched_policy[none]", code="403"))
    (mesh / "flows.json").write_text(json.dumps({"flows": told}))
    result = _run(mesh, "suggest")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "of 1 requests that were told of none was let pass" in result.stderr


def test_who_looks_for_what_is_unused_hears_of_sampling(mesh: Path) -> None:
    assert "flowSampling" not in _run(mesh, "unused").stderr
    (mesh / "flows.json").write_text(json.dumps({"flows": rows(report(path="/a", share="100000"))}))
    assert "flowSampling" in _run(mesh, "unused").stderr


@pytest.mark.parametrize("text", ["", "[]", '{"flows": 1}', '{"flows": [{}]}', '{"flows": [1]}'])
def test_what_is_no_flows_is_refused(mesh: Path, text: str) -> None:
    (mesh / "flows.json").write_text(text)
    assert "flows" in str(_run(mesh, "suggest").exception)


def test_hostile_text_stays_in_its_comment(mesh: Path) -> None:
    evil = "/x\u2028spec: {}\n- a: b"
    told = rows(report(path="/ok"), report(path="/y", code="404"))
    for row in told:
        row["path"] = row["examples"][0]["path"] = evil if row["outcome"] != "ok" else "/ok"
    (mesh / "flows.json").write_text(json.dumps({"flows": told}))
    result = _run(mesh, "suggest")
    (document,) = [one for one in yaml.safe_load_all(result.stdout) if one]
    assert document["kind"] == "AuthorizationPolicy"
