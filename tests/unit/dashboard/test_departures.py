from __future__ import annotations

from typing import Any

from weft.dashboard.departures import Departure, departures


def row(requests: int, errors: int = 0, p95: float | None = 20.0, key: str = "shop/web") -> dict[str, Any]:
    return {"key": key, "requests": requests, "errors": errors, "p95": p95}


def test_more_failures_than_the_hour_before_makes_likely() -> None:
    (found,) = departures([row(100, 20)], [row(1_200, 31)])
    assert found == Departure("shop", "web", "success", 1 - 11 / 1_100, 0.8)


def test_failures_as_before_are_no_news() -> None:
    assert departures([row(100, 6)], [row(1_200, 61)]) == ()


def test_a_few_more_failures_may_be_chance() -> None:
    assert departures([row(50, 5)], [row(1_000, 53)]) == ()


def test_too_few_requests_say_nothing() -> None:
    assert departures([row(19, 19)], [row(19, 19)]) == ()


def test_without_an_hour_before_no_failures_are_expected() -> None:
    (found,) = departures([row(100, 30)], [row(100, 30)])
    assert found == Departure("shop", "web", "success", None, 0.7)


def test_latency_that_doubled() -> None:
    slow = departures([row(100, p95=90.0)], [row(1_200, p95=40.0)])
    assert slow == (Departure("shop", "web", "latency", 40.0, 90.0),)
    assert departures([row(100, p95=9.0)], [row(1_200, p95=2.0)]) == ()
    assert departures([row(100, p95=None)], [row(1_200, p95=2.0)]) == ()


def test_the_worst_first() -> None:
    recent = [row(100, p95=90.0, key="a/slow"), row(100, 10, key="a/ill"), row(100, 90, key="a/dead")]
    hour = [row(1_200, p95=40.0, key="a/slow"), row(1_200, 10, key="a/ill"), row(1_200, 90, key="a/dead")]
    assert [one.name for one in departures(recent, hour)] == ["dead", "ill", "slow"]
