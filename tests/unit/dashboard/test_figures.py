from __future__ import annotations

import pytest

from weft.dashboard import figures


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "0"), (0.001, "<0.01"), (0.25, "0.25"), (4.26, "4.3"), (1240.4, "1,240")],
)
def test_rates(value: float | None, text: str) -> None:
    assert figures.rate(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (1, "100 %"), (0, "0 %"), (0.999999, "99.99 %"), (0.9951, "99.51 %"), (0.5, "50.0 %"),
        (0.00001, "0.1 %"),
    ],
)  # fmt: skip
def test_only_what_is_whole_is_called_so(value: float | None, text: str) -> None:
    assert figures.share(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (0.42, "0.4 ms"), (9.96, "10 ms"), (999.4, "999 ms"), (999.6, "1.00 s"),
        (12_345, "12.3 s"), (125_000, "2m 5s"),
    ],
)  # fmt: skip
def test_durations(value: float | None, text: str) -> None:
    assert figures.milliseconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0s"), (40_000, "40s"), (60_000, "1m"), (3_605_000, "1h"), (97_200_000, "1d 3h"), (-5, "0s")],
)
def test_spans(value: float, text: str) -> None:
    assert figures.span(value) == text


def test_bytes() -> None:
    assert [figures.size(value) for value in (512, 1_500, 12_000_000)] == ["512 B", "1.5 KB", "12 MB"]


def test_times() -> None:
    assert figures.instant("2027-01-15T08:00:00Z") == figures.instant(1_800_000_000_000)
    assert figures.stamp(1_800_000_000_000) == "2027-01-15 08:00:00 UTC"
    assert figures.instant("soon") is None
    assert figures.stamp(None) == "–"


def test_identities() -> None:
    assert figures.principal("spiffe://cluster.local/ns/shop/sa/web") == "shop/web"
    assert figures.principal("spiffe://cluster.local/weft/node/a") == "node a"
    assert figures.principal("spiffe://other/x") == "spiffe://other/x"


def test_policies() -> None:
    assert figures.policy("ns[shop]-policy[no-admin]-rule[2]") == ("shop", "no-admin", "2")
    assert figures.policy("shop/no-admin") == ("shop", "no-admin", "")
    assert figures.policy("odd") == ("", "odd", "")


def test_links_quote_every_step() -> None:
    assert figures.link("services", "a/b", "..?x") == "/services/a%2Fb/..%3Fx"
    assert figures.link("data", "series", of="service:a/b", namespace="") == "/data/series?of=service%3Aa%2Fb"


def test_a_line_has_gaps_where_nothing_is_known() -> None:
    assert figures.spark([0, 2, None, 1]) == "M0.0 19.0L33.3 1.0M100.0 10.0"
    assert figures.spark([]) == ""


def test_cpus() -> None:
    assert [figures.cores(one) for one in (None, 0, 0.0001, 0.012, 0.9994, 0.9996, 12.345)] == [
        "–", "0m", "<1m", "12m", "999m", "1.00", "12.35"
    ]  # fmt: skip
