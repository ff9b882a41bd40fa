"""Flows are counted right, told apart right, and bounded, whatever comes."""

from __future__ import annotations

from typing import Any

from tests.support.flows import NOW_MS, report, spiffe

from weft.telemetry.flows import HOUR_MS, Flow, FlowTable
from weft.telemetry.limits import Limits, Losses
from weft.telemetry.otlp import Report


def _table(*reports: Report, **limits: int) -> FlowTable:
    table = FlowTable(Limits(**limits), Losses())  # type: ignore[arg-type]
    for one in reports:
        table.add(one)
    return table


def _only(table: FlowTable) -> Flow:
    (flow,) = table.flows(None, 0)
    return flow


def test_equal_requests_are_one_flow() -> None:
    flow = _only(_table(*(report(path=f"/users/{number}", time_ms=NOW_MS + number) for number in range(10))))
    assert (flow.count, flow.kept, flow.first, flow.last) == (10, 10, NOW_MS, NOW_MS + 9)
    assert (flow.key.source, flow.key.path, flow.key.port) == (spiffe("web"), "/users/{*}", 9080)
    assert [example["path"] for example in flow.examples] == [f"/users/{number}" for number in range(4)]


def test_a_sampled_request_stands_for_many_and_an_error_for_itself() -> None:
    good = report(path="/a", share="100000")
    bad = report(path="/a", share="100000", code="503")
    counts = {flow.key.outcome: (flow.count, flow.kept) for flow in _table(good, good, bad).flows(None, 0)}
    assert counts == {"ok": (20, 2), "failed": (1, 1)}


def test_a_share_that_is_a_lie_counts_once() -> None:
    flows = _table(*(report(path="/a", share=lie) for lie in ("0", "-5", "9" * 40, "x", "9999999")))
    assert _only(flows).count == 5


def test_decisions_and_outcomes() -> None:
    def key(**fields: Any) -> tuple[str, str, str]:
        known = _only(_table(report(path="/a", **fields))).key
        return known.decision, known.policy, known.outcome

    rule = "ns[a]-policy[b]-rule[1]"
    assert key(policy=rule) == ("allow", rule, "ok")
    assert key(code="404") == ("allow", "", "refused")
    assert key(code="0", flags="DC") == ("allow", "", "failed")
    assert key(code="200", grpc="13") == ("allow", "", "failed")
    denied = f"rbac_access_denied_matched_policy[{rule}]"
    assert key(code="403", details=denied) == ("deny", rule, "refused")
    assert key(code="403", details="rbac_access_denied_matched_policy[none]") == ("deny", "", "refused")
    assert key(code="403", details="ext_authz_denied") == ("deny", "ext_authz", "refused")
    assert key(code="401", details="jwt_authn_access_denied{Jwt_is_missing}") == ("deny", "jwt", "refused")


def test_connections() -> None:
    good = _only(_table(report(port=9000))).key
    bad = _only(_table(report(port=9000, details="rbac_access_denied_matched_policy[none]"))).key
    assert (good.protocol, good.port, good.decision, good.path) == ("tcp", 9000, "allow", "")
    assert bad.decision == "deny"


def test_a_dry_run_is_kept_apart() -> None:
    key = _only(_table(report(path="/a", dry_run_deny="denied", dry_run_deny_policy="p"))).key
    assert (key.shadow, key.shadow_policy, key.decision) == ("deny", "p", "allow")
    assert _only(_table(report(path="/a", dry_run_allow="allowed"))).key.shadow == "allow"


def test_a_scan_widens_no_template_of_good_requests() -> None:
    scan = [report(path=f"/{name}{name}", code="404") for name in "abcdefghijklmnopqrstuvwxyz" * 2]
    table = _table(*scan, report(path="/products"), texts=5)
    good = [flow.key.path for flow in table.flows(None, 0) if flow.key.outcome == "ok"]
    assert good == ["/products"]
    assert len(table) < 10


def test_hosts_and_methods_of_strangers_are_bounded() -> None:
    many = [report(path="/a", host=f"h{n}.example", method=f"M{n}") for n in range(100)]
    assert len(_table(*many, texts=3)) <= 16


def test_the_oldest_make_room() -> None:
    losses = Losses()
    table = FlowTable(Limits(flows=40), losses)
    for number in range(100):
        table.add(report(workload=f"w{number}", path="/a", time_ms=NOW_MS + number))
    assert len(table) <= 40
    assert losses.flows_evicted >= 60
    assert min(flow.first for flow in table.flows(None, 0)) >= NOW_MS + 60
    assert len(table.take()[1]) == losses.flows_evicted, "the archive forgets them too"


def test_counts_are_by_the_hour_until_they_are_taken() -> None:
    table = _table(report(path="/a"), report(path="/a", time_ms=NOW_MS - HOUR_MS), report(path="/a"))
    counted, forgotten = table.take()
    assert sorted((hour, count, kept) for _, hour, count, kept in counted) == [
        (NOW_MS // HOUR_MS - 1, 1, 1),
        (NOW_MS // HOUR_MS, 2, 2),
    ]
    assert forgotten == []
    assert table.take() == ([], [])


def test_what_was_kept_is_learned_again() -> None:
    table = _table(*(report(path=f"/s/{name}") for name in "abcde"), texts=5)
    again = FlowTable(Limits(texts=5), Losses())
    again.load(Flow.from_dict(flow.to_dict()) for flow in table.flows(None, 0))
    again.add(report(path="/s/f"))
    flow = _only(again)
    assert (flow.key.path, flow.count) == ("/s/{*}", 6)


def test_addresses_are_bounded_and_say_so() -> None:
    flow = _only(_table(*(report(path="/a", source_ip=f"10.0.0.{number}") for number in range(20))))
    assert len(flow.addresses) == 8
    assert flow.more_addresses


def test_one_workload_cannot_crowd_the_others_out() -> None:
    losses = Losses()
    table = FlowTable(Limits(flows=1_000, flows_of_one=20), losses)
    table.add(report("quiet", path="/a", time_ms=NOW_MS - HOUR_MS))
    for number in range(300):
        table.add(report("loud", f"caller-{number}", path="/a", time_ms=NOW_MS + number))
    flows = table.flows(None, 0)
    assert sum(flow.key.account == "loud" for flow in flows) <= 20
    assert [flow.key.account for flow in flows if flow.last < NOW_MS] == ["quiet"]
    table.forget(NOW_MS + 1_000)
    table.add(report("loud", path="/b", time_ms=NOW_MS + 2_000))
    assert len(table) == 1, "what was forgotten counts no more"
