"""The statistics against answers that are known from elsewhere, and against their own laws."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.telemetry.compare import Sample, compare, fisher, mann_whitney, proportions, quantile, regressed

BOUNDS = (1.0, 5.0, 10.0, 25.0, 50.0, 100.0)
_HISTOGRAM = st.lists(st.integers(0, 500), min_size=7, max_size=7)


def sample(name: str, counts: tuple[int, ...], errors: int = 0) -> Sample:
    return Sample(name=name, requests=sum(counts), errors=errors, bounds=BOUNDS, counts=counts)


def test_the_z_test_gives_what_textbooks_give() -> None:
    # 40 of 100 and 60 of 100: z = 2.828, p = 0.0047
    assert proportions(40, 100, 60, 100) == pytest.approx(0.004678, abs=1e-6)
    assert proportions(5, 50, 5, 50) == 1.0
    assert proportions(0, 100, 0, 100) == 1.0, "nobody failed: nothing differs"
    assert proportions(1, 0, 1, 10) == 1.0, "nothing was seen"


def test_of_few_the_exact_test_is_asked() -> None:
    # The lady tasting tea, 3 of 4 and 1 of 4: p = 34/70.
    assert fisher(3, 4, 1, 4) == pytest.approx(34 / 70)
    assert fisher(0, 4, 4, 4) == pytest.approx(2 / 70)
    # The z-test would call 3 of 60 beside 12 of 5,000 sure (p < 0.0001).
    assert (
        proportions(12, 5_000, 3, 60)
        == pytest.approx(fisher(12, 5_000, 3, 60))
        == pytest.approx(0.000652, abs=1e-6)
    )
    assert proportions(3, 60, 12, 5_000) == pytest.approx(proportions(57, 60, 4_988, 5_000))
    methods = [
        compare(sample("v1", (100,) + (0,) * 6, bad), sample("v2", (100,) + (0,) * 6, bad))[0].method
        for bad in (2, 20)
    ]
    assert methods == ["Fisher's exact test", "two-proportion z-test"]


def test_mann_whitney_is_what_all_ways_of_dealing_the_values_out_give() -> None:
    first, second = [1, 2, 3, 4, 5], [3, 4, 5, 6, 7]

    def larger(one: Sequence[int], other: Sequence[int]) -> float:
        return sum((b > a) + (a == b) / 2 for a in one for b in other)

    values = first + second
    deals = [
        larger([values[n] for n in chosen], [values[n] for n in range(10) if n not in chosen])
        for chosen in itertools.combinations(range(10), 5)
    ]
    assert statistics.fmean(deals) == 12.5
    z = (larger(first, second) - 12.5) / statistics.pstdev(deals)
    p, chance = mann_whitney((1, 1, 1, 1, 1, 0, 0), (0, 0, 1, 1, 1, 1, 1))
    assert chance == pytest.approx(larger(first, second) / 25)
    assert p == pytest.approx(2 * (1 - statistics.NormalDist().cdf(z)))


@given(_HISTOGRAM, _HISTOGRAM)
def test_it_does_not_matter_which_comes_first(first: list[int], second: list[int]) -> None:
    p, larger = mann_whitney(first, second)
    q, smaller = mann_whitney(second, first)
    assert 0 <= p <= 1
    assert p == pytest.approx(q)
    assert larger + smaller == pytest.approx(1)


@given(_HISTOGRAM)
def test_nothing_differs_from_itself(counts: list[int]) -> None:
    p, larger = mann_whitney(counts, counts)
    assert p == pytest.approx(1)
    assert larger == pytest.approx(0.5)
    one = sample("v1", tuple(counts))
    assert not regressed(compare(one, one))


@given(_HISTOGRAM.filter(any), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_quantiles_rise_and_stay_within_their_bucket(counts: list[int], one: float, other: float) -> None:
    low, high = sorted((one, other))
    first, second = quantile(BOUNDS, counts, low), quantile(BOUNDS, counts, high)
    assert first is not None
    assert second is not None
    assert 0 <= first <= second <= BOUNDS[-1]
    sums = list(itertools.accumulate(counts))
    place = next(n for n, seen in enumerate(sums) if counts[n] and seen >= low * sums[-1])
    assert (BOUNDS[place - 1] if place else 0) <= first
    assert place >= len(BOUNDS) or first <= BOUNDS[place]


def test_quantiles_of_nothing() -> None:
    assert quantile(BOUNDS, (0,) * 7, 0.5) is None
    assert sample("v1", (0,) * 7).success is None


def test_a_slower_version_is_said_to_be_slower() -> None:
    base, other = sample("v1", (0, 900, 100, 0, 0, 0, 0)), sample("v2", (0, 100, 300, 600, 0, 0, 0))
    success, latency = compare(base, other)
    assert (success.verdict, latency.verdict) == ("same", "worse")
    assert latency.words.startswith("v2 is slower: p95 +")
    assert "2,000 requests" in latency.words
    assert "p<0.0001" in latency.words
    assert regressed((success, latency))
    _, back = compare(other, base)
    assert back.verdict == "better"
    assert not regressed((back,))


def test_a_long_tail_is_found_where_the_middle_is_the_same() -> None:
    _, latency = compare(sample("v1", (0, 9700, 300, 0, 0, 0, 0)), sample("v2", (0, 9300, 100, 0, 0, 600, 0)))
    assert latency.verdict == "worse"
    assert "p95" in latency.words


def test_more_failures_are_a_regression_and_luck_is_none() -> None:
    counts = (0, 5000, 0, 0, 0, 0, 0)
    success, _ = compare(sample("v1", counts, errors=5), sample("v2", counts, errors=80))
    assert success.verdict == "worse"
    assert success.words.startswith("v2 fails more: 99.90% -> 98.40%")
    success, _ = compare(sample("v1", counts, errors=5), sample("v2", counts, errors=8))
    assert success.verdict == "same"


def test_what_is_sure_and_does_not_matter_is_no_difference() -> None:
    many = 10_000_000
    base = sample("v1", (0, many, many, 0, 0, 0, 0))
    other = sample("v2", (0, many - many // 100, many + many // 100, 0, 0, 0, 0))
    success, latency = compare(base, other)
    assert latency.p is not None
    assert latency.p < 0.0001
    assert latency.verdict == success.verdict == "same"


def test_of_few_requests_nothing_is_said() -> None:
    findings = compare(sample("v1", (0, 29, 0, 0, 0, 0, 0)), sample("v2", (0, 0, 0, 0, 0, 29, 0)))
    assert [finding.verdict for finding in findings] == ["unknown", "unknown"]
    assert all(finding.p is None for finding in findings)
    assert "30 each are needed" in findings[0].words
