"""From what calls came to, to the resource that decides it."""

from __future__ import annotations

from typing import Any

from tests.support.invented_mesh import service, signals, who

from weft.analysis.response_flags import flags_in
from weft.dashboard.causes import Cause, Evidence, causes, related

CATALOG = service("shop", "catalog")
ORDERS = who("shop", "orders-v1", app="orders")
NOBODY = who("", "", kind="outside")
PEER = {"kind": "PeerAuthentication", "namespace": "istio-system", "name": "default"}


def words(text: str) -> list[dict[str, str]]:
    return [{"flag": one.short, "meaning": one.meaning, "remedy": one.remedy} for one in flags_in(text)]


def failure(requests: int, flags: str = "", code: str = "503", *, failed: bool = True) -> dict[str, Any]:
    return {"code": code, "grpc": "", "flags": flags, "requests": requests, "failed": failed}


def edge(
    *failures: dict[str, Any], mtls: float | None = 1.0, of: Any = CATALOG, **more: Any
) -> dict[str, Any]:
    failing = sum(one["requests"] for one in failures) / 300
    return {
        "source": ORDERS, "destination": who("shop", "catalog-v1", app="catalog"), "service": of,
        "secured": mtls == 1.0, "failures": list(failures), **signals(5.0, failing=failing, mtls=mtls),
        **more,
    }  # fmt: skip


def route(name: str, *does: str) -> dict[str, Any]:
    return {"kind": "VirtualService", "namespace": "shop", "name": name, "rules": [{"does": list(does)}]}


def report(**more: Any) -> dict[str, Any]:
    return {
        "virtualServices": [], "routes": [], "destinationRules": [], "policies": [], "endpoints": [],
        "mutualTls": [{"mode": "STRICT", "decidedBy": PEER}], **more,
    }  # fmt: skip


def evidence(**more: Any) -> Evidence:
    return Evidence(namespace="shop", name="catalog", words=words, **{"reports": [report()], **more})


def only(found: list[Cause]) -> Cause:
    (one,) = found
    return one


def links(cause: Cause) -> list[str]:
    return [way.words for way in cause.ways]


def test_nothing_is_wrong() -> None:
    assert causes(evidence(inbound=[edge()], outbound=[edge()], total=signals(5))) == []


def test_a_fault_leads_to_the_route_that_asks_for_it() -> None:
    routes = [route("front-door", "rewrites"), route("catalog", "injects delays", "injects aborts")]
    told = evidence(
        inbound=[edge(), edge(failure(20, "DI,FI"), failure(10, "FI"), mtls=None, destination=NOBODY)],
        reports=[report(virtualServices=routes)],
    )
    cause = only(causes(told))
    assert (cause.tag, cause.count, links(cause)) == ("FI", 30, ["VirtualService catalog"])
    assert cause.what.startswith("The request was aborted on purpose")
    assert "Callers: orders-v1" in cause.detail


def test_plain_text_to_what_demands_mutual_tls() -> None:
    rule = {
        "kind": "DestinationRule",
        "namespace": "shop",
        "name": "catalog",
        "tls": "DISABLE",
        "policy": ["tls"],
    }
    told = evidence(inbound=[edge(failure(30, "UC"), mtls=0.0)], reports=[report(destinationRules=[rule])])
    cause = only(causes(told))
    assert cause.what == "Its callers do not speak mutual TLS, and it demands that"
    assert links(cause) == ["DestinationRule catalog", "PeerAuthentication default"]
    broken = only(causes(evidence(inbound=[edge(failure(30, "UC"), mtls=1.0)])))
    assert broken.what.startswith("The server closed the connection"), "not every broken connection is that"


def test_a_policy_denies() -> None:
    row = {
        "source": "spiffe://cluster.local/ns/shop/sa/orders", "namespace": "shop", "workload": "catalog",
        "policy": "ns[shop]-policy[no-orders]-rule[0]", "dry": False, "count": 9,
        "requests": ["GET /a"], "more": 0,
    }  # fmt: skip
    cause = only(causes(evidence(denied=[row], inbound=[edge(failure(9, code="403", failed=False))])))
    assert cause.what == "A policy denies requests of shop/orders"
    assert links(cause) == ["AuthorizationPolicy no-orders"]


def test_what_it_calls_fails_and_then_itself() -> None:
    told = evidence(
        inbound=[edge(failure(20, code="502"))],
        outbound=[edge(failure(20, "UF")), edge(of=service("shop", "users"))],
    )
    callee, own = causes(told)
    assert callee.what == "It calls catalog, of which 6.7 % fail"
    assert callee.ways[0].href == "/services/shop/catalog"
    assert (own.what, own.level) == ("Its application answers 502", "fair")
    assert "because of what it calls" in own.detail


def test_its_application_alone() -> None:
    cause = only(causes(evidence(inbound=[edge(failure(20, code="500"))])))
    assert (cause.what, cause.level) == ("Its application answers 500", "bad")
    assert cause.ways[0].href == "/traces?service=shop%2Fcatalog&errors=1"
    unseen = evidence(codes=[{"key": "500", "errors": 7}, {"key": "200", "errors": 0}])
    assert only(causes(unseen)).count == 7


def test_a_route_that_leads_nowhere() -> None:
    finding = {
        "origin": "VirtualService shop/stock",
        "message": "no subset v9",
        "level": "Warning",
        "code": "X",
    }
    nowhere = edge(failure(30, "NC"), of={"name": "", "namespace": "", "host": ""}, mtls=None)
    cause = only(causes(evidence(outbound=[nowhere], findings=[finding])))
    assert cause.what == "What it calls leads nowhere"
    assert links(cause) == ["VirtualService shop/stock: no subset v9"]
    assert cause.ways[0].resource == {"kind": "VirtualService", "namespace": "shop", "name": "stock"}


def test_no_endpoint_is_healthy() -> None:
    at = {"kind": "WorkloadEntry", "namespace": "shop", "name": "catalog-v1-0"}
    ends = [{"workload": at, "health": health} for health in ("unhealthy", "")]
    cause = only(causes(evidence(reports=[report(endpoints=ends)])))
    assert (cause.detail, cause.ways[0].href) == ("1 unhealthy, 1 not running", "/proxies/shop/catalog-v1-0")


def test_what_is_slow() -> None:
    slow = signals(5, p95=2_000)
    waits = only(
        causes(evidence(total=slow, outbound=[edge(p95=1_900.0), edge(of=service("shop", "users"))]))
    )
    assert waits.what == "It waits for catalog"
    own = only(causes(evidence(total=slow, outbound=[edge()])))
    assert own.what == "It is slow of its own"
    delayed = only(
        causes(evidence(total=slow, reports=[report(virtualServices=[route("v", "injects delays")])]))
    )
    assert links(delayed) == ["VirtualService v"]


def test_changes_of_what_decides() -> None:
    told = evidence(reports=[report(virtualServices=[route("catalog")])])
    changes = [
        {"kind": kind, "namespace": namespace, "name": name}
        for kind, namespace, name in (
            ("VirtualService", "shop", "catalog"),
            ("VirtualService", "shop", "users"),
            ("PeerAuthentication", "istio-system", "default"),
            ("Service", "shop", "catalog"),
        )
    ]
    assert related(changes, told) == [changes[0], changes[2], changes[3]]
