"""Traffic as text: what is shown of answers, and that nothing in them is more than text to a terminal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.cli import edges, stat, tap, top
from weft.cli.compare import bearer, members
from weft.cli.traffic_text import identity, ms, rate, share, shorten, size, table, width
from weft.errors import UsageError, WeftError
from weft.telemetry.targets import Asked, NobodyError, Target, behind, find
from weft.telemetry.top import Line

SIGNALS: dict[str, Any] = {
    "requests": 1200, "rps": 20.0, "errors": 12, "refused": 30, "success": 0.99, "mean": 7.3, "p50": 5.1,
    "p95": 22.0, "p99": 1480.5, "mtls": 1.0, "opened": 0, "closed": 0, "connections": 0, "sent": 0,
    "received": 0, "sentPerSecond": 0.0, "receivedPerSecond": 0.0,
}  # fmt: skip
NOTHING = {name: None if name in {"success", "mean", "p50", "p95", "p99", "mtls"} else 0 for name in SIGNALS}
KNOWN: dict[str, Any] = {
    "workloads": [
        {"namespace": "shop", "workload": "reviews-v1", "version": "v1"},
        {"namespace": "shop", "workload": "reviews-v2", "version": "v2"},
        {"namespace": "shop", "workload": "gateway", "version": ""},
        {"namespace": "other", "workload": "gateway", "version": ""},
    ],
    "services": [
        {
            "namespace": "shop", "name": "reviews", "host": "reviews.shop.svc.cluster.local",
            "workloads": ["reviews-v1", "reviews-v2"],
        },
    ],
}  # fmt: skip
REVIEWS = Target(kind="service", namespace="shop", name="reviews")
EVIL = "\x1b]0;owned\x07\x1b[31m\u202eevil\u2066\r\n\x9b1m"


def test_a_table_of_signals() -> None:
    answer = {
        "by": "version", "sampled": False, "total": SIGNALS,
        "rows": [{"key": "v1", **SIGNALS}, {"key": "v2", **NOTHING}],
    }  # fmt: skip
    assert stat.text(answer).splitlines() == [
        "VERSION  REQUESTS  SUCCESS   RPS    P50   P95    P99  MTLS",
        "v1           1200   99.00%  20.0  5.1ms  22ms  1.48s  100%",
        "v2              0        -   0.0      -     -      -     -",
        "all          1200   99.00%  20.0  5.1ms  22ms  1.48s  100%",
    ]


def test_connections_have_columns_where_there_are_some() -> None:
    tcp = {**NOTHING, "connections": 3, "sent": 10, "sentPerSecond": 2048.0, "receivedPerSecond": 12.0}
    head, row = stat.text({"by": "caller", "total": tcp, "rows": [{"key": "", **tcp}]}).splitlines()
    assert head.split()[-3:] == ["CONNS", "SENT/S", "RECEIVED/S"]
    assert row.split()[-3:] == ["3", "2.0KiB", "12B"]
    assert row.startswith("(no identity)")


def who(workload: str, principal: str = "", kind: str = "workload") -> dict[str, Any]:
    return {"namespace": "shop", "workload": workload, "principal": principal, "kind": kind}


def edge(source: dict[str, Any], **more: Any) -> dict[str, Any]:
    service = {"name": "reviews", "namespace": "shop", "host": "reviews.shop.svc.cluster.local"}
    return {
        "source": source, "destination": who("reviews-v1"), "service": service, "protocol": "http",
        "toldBy": ["source", "destination"], "secured": True, **SIGNALS, **more,
    }  # fmt: skip


def test_edges_say_who_proved_what() -> None:
    secured = edge(who("web", "spiffe://cluster.local/ns/shop/sa/web"))
    plain = edge(who("", kind="outside"), secured=False, mtls=0.0, toldBy=["destination"])
    lines = edges.text([secured, plain]).splitlines()
    assert lines[1].split()[:6] == ["shop/web", "shop/reviews-v1", "reviews", "shop/web", "mtls", "both"]
    assert lines[2].split()[:6] == ["outside", "shop/reviews-v1", "reviews", "-", "none", "destination"]
    lost = edge(who("web"), destination=who("", kind="outside"))
    assert edges.text([lost]).splitlines()[1].split()[:3] == ["shop/web", "-", "reviews"]
    lost["service"] = {"name": "", "namespace": "", "host": ""}
    assert edges.text([lost]).splitlines()[1].split()[:3] == ["shop/web", "nobody", "-"]
    assert edges.touching([secured, plain], REVIEWS) == [secured, plain]
    assert edges.touching([secured], Target(kind="workload", namespace="shop", name="web")) == [secured]
    assert edges.touching([secured], Target(kind="workload", namespace="other", name="web")) == []


def record(**more: Any) -> dict[str, Any]:
    return {
        "time": 1_800_000_001_042, "namespace": "shop", "instance": "reviews-v1-0", "workload": "reviews",
        "source": "spiffe://cluster.local/ns/shop/sa/web", "sourceIp": "10.0.0.9", "tls": "mtls",
        "protocol": "http", "method": "GET", "path": "/a", "port": 8080, "code": 200, "grpc": None,
        "flags": "", "duration": 12, "received": 0, "sent": 120, "decision": "allow", "policy": "", **more,
    }  # fmt: skip


def test_a_request_is_one_line() -> None:
    assert tap.line(record()) == ("08:00:01.042  200      12ms  GET /a  shop/web -> shop/reviews-v1-0  mtls")
    refused = tap.line(record(code=403, decision="deny", policy="shop/readers", source="", tls="none"))
    assert refused.endswith("10.0.0.9 (no identity) -> shop/reviews-v1-0  none  denied by shop/readers")
    assert "  <1ms  GET" in tap.line(record(duration=0))
    failed = tap.line(record(code=503, flags="UF"))
    assert "  UF: no connection" in failed
    stream = tap.line(record(protocol="tcp", method="", path="", code=0, sent=2048))
    assert "TCP" in stream
    assert "port 8080, 2.0KiB sent, 0B received" in stream


def test_strangers_texts_are_inert_everywhere() -> None:
    shown = [
        tap.line(record(path=EVIL, source=EVIL, flags=EVIL, policy=EVIL, decision="deny")),
        edges.text([edge(who(EVIL, EVIL))]),
        stat.text({"by": "path", "total": SIGNALS, "rows": [{"key": EVIL, **SIGNALS}]}),
        top.text([Line(EVIL, EVIL, EVIL, EVIL, 1.0)], 1.0),
    ]
    for text in shown:
        assert all(line.isprintable() for line in text.split("\n"))
    assert shown[0].count("\n") == 0
    assert shown[1].count("\n") == shown[2].count("\n") == shown[3].count("\n") == 1


def test_filters_are_read_before_anybody_is_asked() -> None:
    assert tap.filters(method="GET", path="", errors=True) == {"method": "GET", "errors": "true"}
    with pytest.raises(UsageError, match="status"):
        tap.filters(status="many")
    with pytest.raises(UsageError, match="not a duration"):
        tap.filters(slow="5")


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("reviews", REVIEWS),
        ("svc/reviews", REVIEWS),
        ("shop/reviews", REVIEWS),
        ("reviews.shop", REVIEWS),
        ("reviews.shop.svc.cluster.local", REVIEWS),
        ("service/shop/reviews", REVIEWS),
        ("deploy/reviews-v1", Target(kind="workload", namespace="shop", name="reviews-v1")),
        ("other/gateway", Target(kind="workload", namespace="other", name="gateway")),
    ],
)
def test_names_that_people_write(text: str, target: Target) -> None:
    assert find(Asked.of(text), KNOWN) == target


def test_names_that_mean_nothing_or_too_much() -> None:
    with pytest.raises(WeftError, match="may be other/gateway, shop/gateway"):
        find(Asked.of("gateway"), KNOWN)
    assert find(Asked.of("gateway", "shop"), KNOWN).of == "workload:shop/gateway"
    with pytest.raises(WeftError, match="no service or workload 'reviws'") as error:
        find(Asked.of("reviws"), KNOWN)
    assert "reviews" in error.value.hint
    with pytest.raises(WeftError, match="no workload 'reviews'"):
        find(Asked.of("deploy/reviews"), KNOWN)
    for text in ("", "a/b/c", "/x", "svc/"):
        with pytest.raises(UsageError):
            Asked.of(text)
    with pytest.raises(UsageError, match="-n says other"):
        Asked.of("shop/reviews", "other")


def test_versions_are_workloads() -> None:
    assert [str(one) for one in behind(KNOWN, REVIEWS)] == ["shop/reviews-v1", "shop/reviews-v2"]
    assert members(KNOWN, REVIEWS) == {
        "v1": ["workload:shop/reviews-v1"], "v2": ["workload:shop/reviews-v2"],
    }  # fmt: skip


def test_versions_alone_mean_the_only_service_that_has_them() -> None:
    nobody = NobodyError("no service or workload 'v1' was heard of")
    assert bearer(KNOWN, ("v1", "v2"), nobody) == REVIEWS
    with pytest.raises(WeftError, match="'v1' was heard of") as none:
        bearer(KNOWN, ("v1", "v3"), nobody)
    assert "weft compare SERVICE v1 v3" in none.value.hint
    twin = {**KNOWN["services"][0], "name": "opinions"}
    with pytest.raises(WeftError, match="versions of shop/opinions, shop/reviews"):
        bearer({**KNOWN, "services": [*KNOWN["services"], twin]}, ("v1", "v2"), nobody)


def test_numbers_have_units() -> None:
    assert [ms(value) for value in (None, 0.5, 7.31, 12.4, 999.0, 1250.0, 120_000.0)] == [
        "-", "0.5ms", "7.3ms", "12ms", "999ms", "1.25s", "120s",
    ]  # fmt: skip
    assert [share(value) for value in (None, 1.0, 0.99999, 0.5, 0.00001, 0.0)] == [
        "-", "100.00%", "99.99%", "50.00%", "<0.01%", "0.00%",
    ]  # fmt: skip
    assert [size(value) for value in (None, 12.0, 3_500.0, 5 * 1024.0**2, 1024.0**5)] == [
        "-", "12B", "3.4KiB", "5.0MiB", "1024.0TiB",
    ]  # fmt: skip
    assert [rate(value) for value in (None, 1.26, 120.4)] == ["-", "1.3", "120"]
    assert identity("spiffe://cluster.local/ns/shop/sa/web") == "shop/web"
    assert identity("spiffe://elsewhere/web") == "spiffe://elsewhere/web"


@given(st.text(max_size=60), st.integers(1, 40))
def test_nothing_is_longer_than_its_room(text: str, columns: int) -> None:
    assert width(shorten(text, columns)) <= columns


def test_a_narrow_terminal_cuts_names_and_no_numbers() -> None:
    text = table(("NAME", "RPS"), [("a" * 80, "12345"), ("漢字" * 30, "1")], columns=40)
    assert all(width(line) <= 40 for line in text.splitlines())
    assert text.splitlines()[1].endswith("…  12345")
    assert width(table(("NAME", "RPS"), [("a" * 80, "1")], columns=14, shortest=9).splitlines()[1]) == 14
    kept = table(("ID", "NAME"), [("i" * 32, "n" * 80)], left=2, columns=60, whole=1)
    assert kept.splitlines()[1].startswith("i" * 32 + "  n")
    assert width(kept.splitlines()[1]) == 60
