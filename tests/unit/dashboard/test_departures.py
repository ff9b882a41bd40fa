from __future__ import annotations

import random
from typing import Any

from weft.dashboard.departures import Departure, departures, worst


def row(
    requests: int, errors: int = 0, p95: float | None = 20.0, key: str = "shop/web", refused: int = 0
) -> dict[str, Any]:
    return {"key": key, "requests": requests, "errors": errors, "p95": p95, "refused": refused}


def test_more_failures_than_the_hour_before_makes_likely() -> None:
    (found,) = departures([row(100, 20)], [row(1_200, 31)])
    assert found == Departure("shop", "web", "success", 1 - 11 / 1_100, 0.8)


def test_a_minute_is_enough() -> None:
    (found,) = departures([row(300, 9)], [row(9_000, 9)])
    assert (found.what, found.now, found.news) == ("success", 0.97, True)


def test_failures_as_before_are_no_news_but_failures() -> None:
    (found,) = departures([row(100, 6)], [row(1_200, 61)])
    assert (found.what, found.now, found.news) == ("success", 0.94, False)
    assert departures([row(1_000, 6)], [row(12_000, 61)]) == ()


def test_a_few_more_failures_may_be_chance() -> None:
    assert departures([row(20, 2)], [row(1_000, 2)]) == ()
    (found,) = departures([row(50, 5)], [row(1_000, 53)])
    assert not found.news


def test_chance_alone_raises_no_alarm() -> None:
    throw = random.Random(4)
    alarms = 0
    for _ in range(2_000):
        before = sum(throw.random() < 0.02 for _ in range(600))
        now = sum(throw.random() < 0.02 for _ in range(60))
        found = departures([row(60, now)], [row(660, before + now)])
        alarms += any(one.news for one in found)
    assert alarms <= 4


def test_too_few_requests_say_nothing() -> None:
    assert departures([row(19, 19)], [row(19, 19)]) == ()


def test_without_an_hour_before_no_failures_are_expected() -> None:
    (found,) = departures([row(100, 30)], [row(100, 30)])
    assert found == Departure("shop", "web", "success", None, 0.7)


def test_refusals_that_are_new() -> None:
    (found,) = departures([row(100, refused=40)], [row(1_200, refused=40)])
    assert found == Departure("shop", "web", "refused", 0.0, 0.4)
    assert departures([row(100, refused=40)], [row(1_200, refused=480)]) == ()


def test_latency_that_doubled() -> None:
    slow = departures([row(100, p95=90.0)], [row(1_200, p95=40.0)])
    assert slow == (Departure("shop", "web", "latency", 40.0, 90.0),)
    assert departures([row(100, p95=9.0)], [row(1_200, p95=2.0)]) == ()
    assert departures([row(100, p95=None)], [row(1_200, p95=2.0)]) == ()


def test_traffic_that_stayed_away() -> None:
    (found,) = departures([], [row(2_900)])
    assert (found.what, found.before, found.now) == ("traffic", 100, 0)
    assert departures([row(30)], [row(2_930)]) == ()
    assert departures([], [row(1_000)]) == (), "too little to miss"


def test_the_worst_first() -> None:
    recent = [row(100, p95=90.0, key="a/slow"), row(100, 10, key="a/ill"), row(100, 90, key="a/dead")]
    hour = [row(1_200, p95=40.0, key="a/slow"), row(1_200, 10, key="a/ill"), row(1_200, 90, key="a/dead")]
    assert [one.name for one in departures(recent, hour)] == ["dead", "ill", "slow"]


def test_each_once_of_several_views() -> None:
    own = departures([row(100, 20)], [row(1_200, 20)])
    callers = departures([row(100, 90), row(100, 9, key="a/b")], [row(1_200, 90), row(1_200, 9, key="a/b")])
    assert [(one.name, round(one.now, 2)) for one in worst(own, callers)] == [("web", 0.8), ("b", 0.91)]


def test_what_fails_is_not_told_to_be_slow_as_well() -> None:
    recent, hour = (
        [row(100, 20, p95=90.0), row(100, p95=90.0, key="a/b")],
        [row(1_200, 20), row(1_200, key="a/b")],
    )
    assert [(one.name, one.what) for one in worst(departures(recent, hour))] == [
        ("web", "success"),
        ("b", "latency"),
    ]
