"""What is watched: counted apart, chosen by filters, bounded, and missed out loud."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.support.flows import NOW_MS, report, spiffe

from weft.telemetry.flows import decided
from weft.telemetry.taps import Taps, Wanted, answer, failed, record_of
from weft.telemetry.top import Top


def record(path: str = "/", **fields: str) -> dict[str, Any]:
    told = report(**{"path": path, "duration": "5", **fields})  # type: ignore[arg-type]
    return record_of(told, *decided(told.fields))


def test_a_record_as_people_see_it() -> None:
    found = record("/a", request_id="r1", sent="12")
    assert (found["namespace"], found["workload"], found["instance"]) == ("default", "reviews", "reviews-0")
    assert (found["source"], found["tls"], found["protocol"]) == (spiffe("web"), "mtls", "http")
    assert (found["code"], found["grpc"], found["duration"], found["sent"]) == (200, None, 5, 12)
    assert (found["decision"], found["requestId"], found["time"]) == ("allow", "r1", NOW_MS)


@pytest.mark.parametrize(
    ("fields", "bad"),
    [
        ({"code": "200"}, False),
        ({"code": "404"}, False),
        ({"code": "500"}, True),
        ({"code": "0", "flags": "DC"}, True),
        ({"code": "200", "grpc": "5"}, False),
        ({"code": "200", "grpc": "14"}, True),
        ({"code": "nonsense"}, True),
    ],
)
def test_what_failed(fields: dict[str, str], bad: bool) -> None:
    assert failed(record(**fields)) is bad


@pytest.mark.parametrize(
    ("asked", "fits"),
    [
        ({}, True),
        ({"method": "get"}, True),
        ({"method": "POST"}, False),
        ({"path": "/users"}, True),
        ({"path": "/users/*/orders"}, True),
        ({"path": "/[u]sers*"}, False),
        ({"path": "/user?/7/orders"}, False),
        ({"status": "5xx,404"}, True),
        ({"status": "400-403"}, False),
        ({"status": "404"}, True),
        ({"caller": "sa/web"}, True),
        ({"caller": "10.0.0"}, True),
        ({"caller": "nobody"}, False),
        ({"errors": "true"}, False),
        ({"errors": "false"}, True),
        ({"slow": "100ms"}, True),
        ({"slow": "1s"}, False),
        ({"host": "REVIEWS"}, True),
        ({"trace": "ab"}, False),
    ],
)
def test_filters(asked: dict[str, str], fits: bool) -> None:
    assert Wanted.of(asked).fits(record("/users/7/orders", code="404", duration="150")) is fits


@pytest.mark.parametrize("asked", [{"status": "banana"}, {"status": "6xx"}, {"slow": "100"}])
def test_what_cannot_be_read_is_refused(asked: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"status|duration"):
        Wanted.of(asked)


async def _told_once(taps: Taps) -> None:
    async def ask(**more: str) -> dict[str, Any]:
        return await answer(taps, {"proxies": "default/reviews-0,default/other-0", **more})

    begun = await ask()
    taps.add(record("/a"))
    taps.add({**record("/strange"), "instance": "else-0"})
    taps.add(record("/b", code="503"))
    found = await ask(after=str(begun["next"]))
    assert [one["path"] for one in found["records"]] == ["/a", "/b"]
    assert (found["seen"], found["missed"], found["next"]) == (2, 0, 3)
    assert [one["path"] for one in (await ask(after="0", errors="true"))["records"]] == ["/b"]
    assert (await ask(after=str(found["next"]), wait="1ms"))["records"] == []
    assert (await ask(after="999999", wait="1ms"))["next"] == 3, "a process that began anew counts anew"
    with pytest.raises(ValueError, match="after"):
        await ask(after="x")


def test_each_is_told_once_in_order_and_only_of_the_proxies_asked_for() -> None:
    asyncio.run(_told_once(Taps()))


def test_one_that_is_too_slow_is_told_what_it_missed() -> None:
    taps = Taps(most=10)
    for number in range(25):
        taps.add(record(f"/{number}"))
    found, seen, missed = taps.since(3, ["default/reviews-0"], Wanted())
    assert [one["path"] for one in found] == [f"/{number}" for number in range(15, 25)]
    assert (seen, missed) == (10, 12)


def test_nobody_floods_away_what_others_tell() -> None:
    taps = Taps(most=10)
    taps.add(record("/quiet"))
    for number in range(50):
        taps.add({**record(f"/{number}"), "account": "loud", "instance": "loud-0"})
    found, seen, _ = taps.since(0, ["default/reviews-0"], Wanted())
    assert ([one["path"] for one in found], seen) == (["/quiet"], 1)
    found, seen, missed = taps.since(0, ["default/loud-0"], Wanted())
    assert (len(found), seen, missed) == (9, 9, 41)


def test_waiting_ends_with_the_first_one() -> None:
    async def run() -> bool:
        taps = Taps()
        waiting = asyncio.create_task(taps.after(0, 60))
        await asyncio.sleep(0)
        taps.add(record())
        return await waiting

    assert asyncio.run(run())


def test_top_adds_up_what_records_stand_for() -> None:
    top = Top()
    for number, (code, duration) in enumerate([("200", "5"), ("503", "90"), ("200", "2")]):
        top.add({**record(f"/users/{number}", code=code, duration=duration), "weight": 2.0})
    top.add(record("/users/9", source="other"))
    first, second = top.lines()
    assert (first.path, first.count, first.errors) == ("/users/{*}", 6, 2)
    assert (first.best, first.worst, first.last) == (2, 90, 2)
    assert first.success == pytest.approx(2 / 3)
    assert first.to_dict(2.0)["rps"] == 3
    assert (second.caller, second.count) == (spiffe("other"), 1)
    assert [line.path for line in top.lines("worst")][:1] == ["/users/{*}"]


def test_top_is_bounded() -> None:
    top = Top(paths=False, most=10)
    for number in range(1_000):
        top.add(record(f"/{number}"))
    lines = top.lines()
    assert len(lines) == 11
    assert sum(line.count for line in lines) == 1_000
    assert lines[0].path == "*"
