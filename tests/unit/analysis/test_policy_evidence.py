"""Replay, suggestions and unused grants, on flows as proxies tell them and policies as people write them."""

from __future__ import annotations

from textwrap import dedent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.flows import NOW_MS, report, rows, spiffe

from weft.analysis.paths import normalize
from weft.analysis.policy.judge import Judge, Read, replaced
from weft.analysis.policy.observed import Observed, read_flows, uncovered
from weft.analysis.policy.replay import Replay, replay
from weft.analysis.policy.suggest import Suggestion, suggest
from weft.analysis.policy.unused import unused
from weft.cli.policy_text import documents
from weft.model.parse import Part, parse
from weft.telemetry.otlp import Report
from weft.yaml import load

MESH = """
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}, {name: tcp-db, port: 9000}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: reviews-0}
spec: {address: 10.0.0.1, labels: {app: reviews}, serviceAccount: reviews, ports: {http: 9080, tcp-db: 9000}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: ratings-0}
spec: {address: 10.0.0.2, labels: {app: ratings}, serviceAccount: ratings, ports: {http: 9080}}
"""
READERS = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers}
spec:
  selector: {matchLabels: {app: reviews}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/web, cluster.local/ns/default/sa/old]}}]
    to: [{operation: {methods: [GET, HEAD], paths: ["/users/{*}", /health]}}]
"""


def _read(*texts: str) -> Read:
    read = []
    for text in texts:
        found, problems = load(dedent(text), "test.yaml")
        assert not problems, problems
        for document in found:
            resource, problems = parse(document)
            assert resource is not None, [str(problem) for problem in problems]
            read.append((Part(document, document.data), resource))
    return tuple(read)


def _flows(*reports: Report) -> tuple[Observed, ...]:
    return read_flows(rows(*reports))


def _policy(name: str, spec: str) -> str:
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: {name}}}\nspec: {spec}\n"
    )


def _replay(candidate: str, *reports: Report, mesh: str = MESH) -> Replay:
    before = _read(mesh)
    return replay(_flows(*reports), before, replaced(before, _read(candidate)))


def test_replay_names_what_would_be_denied_and_by_which_rule() -> None:
    outcome = _replay(
        _policy("no-delete", "{action: DENY, rules: [{to: [{operation: {methods: [DELETE]}}]}]}"),
        *(report(path=f"/users/{number}", method="DELETE") for number in range(7)),
        *(report(path=f"/users/{number}") for number in range(5)),
    )
    (change,) = outcome.changes
    assert (change.kind, change.flow.count, change.flow.path) == ("denied", 7, "/users/{*}")
    assert (change.after.policy, change.after.rule) == ("default/no-delete", 0)
    assert (outcome.looked_at, outcome.requests) == (2, 12)
    shown = outcome.json()["denied"][0]
    assert shown["source"] == spiffe("web")
    assert shown["destination"] == {
        "namespace": "default", "workload": "reviews", "kind": "sidecar", "port": 9080,
    }  # fmt: skip
    assert shown["before"]["decision"] == "allow"
    assert len(shown["examples"]) == 4


def test_replay_names_what_would_be_allowed() -> None:
    told = report(
        source="other", path="/users/1", code="403", details="rbac_access_denied_matched_policy[none]"
    )
    wider = READERS.replace("sa/old", "sa/other")
    outcome = _replay(wider, told, mesh=MESH + "---" + READERS)
    (change,) = outcome.changes
    assert (change.kind, change.flow.decision) == ("allowed", "deny")
    assert (change.after.policy, change.after.rule) == ("default/readers", 0)


def test_a_policy_that_changes_nothing_seen_changes_nothing() -> None:
    outcome = _replay(READERS, report(path="/users/1"), report(path="/health", method="HEAD"))
    assert outcome.changes == ()


@pytest.mark.parametrize(
    "spec",
    [
        '{rules: [{when: [{key: "request.headers[x-token]", values: [a]}]}]}',
        '{action: DENY, rules: [{when: [{key: "request.headers[x-token]", notValues: [a]}]}]}',
        '{rules: [{from: [{source: {requestPrincipals: ["issuer/*"]}}]}]}',
    ],
)
def test_what_was_not_recorded_is_told_as_unknown(spec: str) -> None:
    (change,) = _replay(_policy("by-header", spec), report(path="/users/1")).changes
    assert (change.kind, change.after.word, change.after.policy) == (
        "unknown",
        "unknown",
        "default/by-header",
    )


def test_what_was_not_recorded_does_not_matter_where_another_rule_decides() -> None:
    spec = (
        '{rules: [{when: [{key: "request.headers[x-token]", values: [a]}]},'
        " {from: [{source: {principals: [cluster.local/ns/default/sa/web]}}]}]}"
    )
    assert _replay(_policy("either", spec), report(path="/users/1")).changes == ()
    spec = (
        '{action: DENY, rules: [{when: [{key: "request.headers[x-token]", values: [a]}],'
        " to: [{operation: {methods: [PUT]}}]}]}"
    )
    assert _replay(_policy("elsewhere", spec), report(path="/users/1")).changes == ()


def test_a_change_may_be_about_some_requests_of_a_flow() -> None:
    spec = "{action: DENY, rules: [{to: [{operation: {paths: [/users/1]}}]}]}"
    (change,) = _replay(_policy("one", spec), report(path="/users/1"), report(path="/users/2")).changes
    assert (change.kind, change.paths, change.whole) == ("denied", ("/users/1",), False)
    many = [report(path=f"/users/{number}") for number in range(2, 12)]
    assert _replay(_policy("one", spec), *many).changes == (), "nobody named 1 among those that were kept"


def test_strict_mutual_tls_denies_those_without_identity() -> None:
    strict = """
        apiVersion: security.istio.io/v1
        kind: PeerAuthentication
        metadata: {name: default}
        spec: {mtls: {mode: STRICT}}
        """
    (change,) = _replay(strict, report(source="", path="/a"), report(path="/a")).changes
    assert (change.kind, change.flow.source) == ("denied", "")


def test_connections_are_judged_too() -> None:
    spec = '{action: DENY, rules: [{to: [{operation: {ports: ["9000"]}}]}]}'
    (change,) = _replay(_policy("no-db", spec), report(port=9000), report(path="/a")).changes
    assert (change.kind, change.flow.protocol, change.flow.port) == ("denied", "tcp", 9000)


def test_a_dry_run_is_told_apart() -> None:
    tried = _policy("tried", "{action: DENY, rules: [{}]}").replace(
        "{name: tried}", '{name: tried, annotations: {istio.io/dry-run: "true"}}'
    )
    (change,) = _replay(tried, report(path="/a")).changes
    assert change.kind == "dryRun"
    assert (change.after.dry_run, change.after.dry_run_policy) == ("deny", "default/tried")


def test_a_workload_that_came_back_under_another_name_is_found() -> None:
    flow = rows(report(path="/a"))[0] | {"instance": "reviews-17"}
    before = _read(MESH)
    deny = _policy("none", "{selector: {matchLabels: {app: reviews}}, action: DENY, rules: [{}]}")
    assert replay(read_flows([flow]), before, replaced(before, _read(deny))).of("denied")


def _suggested(*reports: Report, close: tuple[str, ...] = ()) -> tuple[Suggestion, ...]:
    made, lacking = suggest(_flows(*reports), _read(MESH), close=close)
    assert lacking == ()
    return made


def _applied(suggestions: tuple[Suggestion, ...]) -> Read:
    return replaced(_read(MESH), _read(documents(suggestions, "24h")))


def _who(sources: list[dict[str, dict[str, list[str]]]]) -> str:
    """Names of the accounts, or ``nobody`` for those without a certificate."""
    names = []
    for one in sources:
        if one["source"].get("notPrincipals") == ["*"]:
            names.append("nobody")
        names += [principal.rpartition("/")[2] for principal in one["source"].get("principals", ())]
    return " ".join(names)


def test_suggestions_say_exactly_what_was_seen() -> None:
    made = _suggested(
        *(report(path=f"/users/{number}") for number in range(9)),
        report(path="/users/1", method="PUT"),
        report(path="/health"),
        report(source="ratings", path="/health"),
        report(source="batch", path="/health"),
        report(source="ratings", port=9000),
        report(source="", path="/public"),
    )
    (suggestion,) = made
    assert suggestion.policy["spec"]["selector"] == {"matchLabels": {"app": "reviews"}}
    rules = [
        (_who(rule["from"]), [operation["operation"] for operation in rule["to"]])
        for rule in suggestion.policy["spec"]["rules"]
    ]
    http = {"ports": ["9080"]}
    assert sorted(rules, key=str) == [
        ("batch ratings", [{"methods": ["GET"], "paths": ["/health"], **http}]),
        ("nobody", [{"methods": ["GET"], "paths": ["/public"], **http}]),
        ("ratings", [{"ports": ["9000"]}]),
        (
            "web",
            [
                {"methods": ["GET"], "paths": ["/health"], **http},
                {"methods": ["GET", "PUT"], "paths": ["/users/{*}"], **http},
            ],
        ),
    ]
    judge = Judge(_applied(made))
    for unseen in (
        report(source="mallory", path="/health"),
        report(path="/users/1", method="DELETE"),
        report(path="/users/1/orders"),
        report(source="ratings", path="/users/1"),
        report(source="", path="/health"),
        report(source="web", port=9000),
    ):
        (flow,) = _flows(unseen)
        assert {one.word for one in judge.decide(flow)} == {"deny"}, flow


def test_callers_with_the_same_needs_share_a_rule() -> None:
    (suggestion,) = _suggested(report(path="/a"), report(source="other", path="/a"))
    (rule,) = suggestion.policy["spec"]["rules"]
    assert rule["from"] == [
        {"source": {"principals": ["cluster.local/ns/default/sa/other", "cluster.local/ns/default/sa/web"]}}
    ]
    assert suggestion.counts[0].startswith("2 times")


EDGE = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: edge-0}
spec: {address: 10.0.0.9, labels: {app: edge, istio: edge}, serviceAccount: edge}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: shop}
spec:
  selector: {istio: edge}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: ["*"]
  gateways: [shop]
  http: [{route: [{destination: {host: reviews, port: {number: 9080}}}]}]
"""
EDGE_API = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: edge-0}
spec:
  address: 10.0.0.9
  labels: {gateway.networking.k8s.io/gateway-name: edge, app: edge}
  serviceAccount: edge
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec: {gatewayClassName: weft, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec: {parentRefs: [{name: edge}], rules: [{backendRefs: [{name: reviews, port: 9080}]}]}
"""


@pytest.mark.parametrize(
    ("edge", "chosen"),
    [
        (EDGE, {"selector": {"matchLabels": {"app": "edge"}}}),
        (
            EDGE_API,
            {"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}]},
        ),
    ],
)
def test_gateways_are_guarded_by_host(edge: str, chosen: dict[str, object]) -> None:
    def seen(**fields: str) -> Report:
        # A port map has the gateway listen on another port than its resource says.
        said = {"path": "/users/1", "host": "shop.example.com", **fields}
        return report("edge", "", kind="router", port=18080, **said)  # type: ignore[arg-type]

    mesh = _read(MESH, edge)
    flows = _flows(seen(), seen(path="/users/2"))
    made, lacking = suggest(flows, mesh)
    assert lacking == ()
    (suggestion,) = made
    spec = suggestion.policy["spec"]
    assert {name: spec[name] for name in chosen} == chosen
    assert spec["rules"] == [
        {
            "to": [
                {
                    "operation": {
                        "hosts": ["shop.example.com"], "methods": ["GET"], "paths": ["/users/{*}"],
                    }
                }
            ]
        }
    ]  # fmt: skip
    after = replaced(mesh, _read(documents(made, "24h")))
    assert replay(flows, mesh, after).changes == ()
    judge = Judge(after)
    for other in (seen(host="other.example.com"), seen(path="/admin"), seen(method="PUT")):
        assert {one.word for one in judge.decide(_flows(other)[0])} == {"deny"}


def test_a_namespace_is_closed_where_that_is_asked() -> None:
    made = _suggested(report(path="/a"), close=("default",))
    judge = Judge(_applied(made))
    assert [one.word for one in judge.decide(_flows(report("ratings", path="/a"))[0])] == ["deny"]
    assert [one.word for one in judge.decide(_flows(report(path="/a"))[0])] == ["allow"]
    assert suggest(_flows(report(path="/a")), _read(MESH), close=("istio-system",))[0] == _suggested(
        report(path="/a")
    ), "a policy in the root namespace would close the mesh"


def test_what_was_denied_is_not_suggested() -> None:
    told = report(source="x", path="/b", code="403", details="rbac_access_denied_matched_policy[none]")
    (suggestion,) = _suggested(report(path="/a"), told)
    assert "/b" not in str(suggestion.policy)
    assert any("1 requests" in note for note in suggestion.notes)


def test_what_was_never_answered_well_is_marked() -> None:
    (suggestion,) = _suggested(report(path="/a"), report(path="/wp-login.php", code="404"))
    assert "never answered well: GET /wp-login.php" in suggestion.counts[0]


_SEGMENT = st.one_of(
    st.sampled_from(["", "users", "a b", "*", "{*}", "%2f", "é", "x" * 80, "..;", "12", "a|b", "{", "a*"]),
    st.text(max_size=8),
)
_REQUEST = st.tuples(
    st.sampled_from(["web", "other", ""]),
    st.sampled_from(["GET", "PUT", "M-SEARCH"]),
    st.lists(_SEGMENT, max_size=4).map(lambda parts: "/" + "/".join(parts)),
    st.sampled_from(["", "http"]),
)


def _recorded(path: str) -> str:
    """A path as a proxy tells it: without a query, in the form in which policies saw it."""
    return normalize(path.partition("?")[0].partition("#")[0]) or "/"


@settings(max_examples=40, deadline=None)
@given(st.lists(_REQUEST, min_size=1, max_size=8))
def test_suggestions_deny_nothing_that_was_seen(requests: list[tuple[str, str, str, str]]) -> None:
    reports = [
        report(source=source, method=method, path=_recorded(path))
        if kind
        else report(source=source, port=9000)
        for source, method, path, kind in requests
    ]
    flows = _flows(*reports)
    made, lacking = suggest(flows, _read(MESH), close=("default",))
    assert lacking == ()
    outcome = replay(flows, _read(MESH), _applied(made))
    assert outcome.changes == (), documents(made, "24h")


def test_unused_grants_are_named_with_their_place() -> None:
    flows = _flows(
        report(path="/users/1", time_ms=NOW_MS),
        report(path="/health", time_ms=NOW_MS - 90_000_000),
    )
    found = unused(flows, _read(MESH, READERS), NOW_MS - 86_400_000)
    assert [(grant.path, grant.value, grant.last) for grant in found] == [
        ("spec.rules[0].from[0].source.principals[1]", "cluster.local/ns/default/sa/old", None),
        ("spec.rules[0].to[0].operation.methods[1]", "HEAD", None),
        ("spec.rules[0].to[0].operation.paths[1]", "/health", NOW_MS - 90_000_000),
    ]


def test_a_rule_that_nobody_used_is_told_once() -> None:
    (grant,) = unused(_flows(report("ratings", path="/users/1")), _read(MESH, READERS), 1)
    assert (grant.path, grant.value, grant.last) == ("spec.rules[0]", "", None)


def test_what_may_have_been_used_counts_as_used() -> None:
    spec = (
        '{rules: [{from: [{source: {requestPrincipals: ["i/*"]}}],'
        ' when: [{key: "request.headers[x]", notValues: [b]}]}]}'
    )
    assert unused(_flows(report(path="/a")), _read(MESH, _policy("p", spec)), 1) == ()


def test_callers_that_sampling_passed_over_are_named() -> None:
    flows = _flows(report(path="/a"), report(source="", path="/a"))
    callers = [
        (spiffe("web"), "default", "reviews", 9),
        ("unknown", "default", "reviews", 2),
        (spiffe("batch"), "default", "reviews", 1),
        (spiffe("idle"), "default", "reviews", 0),
        ("unknown", "default", "ratings", 3),
    ]
    found = list(uncovered(callers, flows))
    assert [place for place, _ in found] == [("default", "reviews"), ("default", "ratings")]
    assert found[0][1].startswith(f"{spiffe('batch')} called default/reviews 1 times")
    assert "without an identity" in found[1][1]
