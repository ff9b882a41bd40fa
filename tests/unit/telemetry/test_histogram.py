"""Percentiles lie within the bucket that holds them, however histograms were merged."""

from __future__ import annotations

from bisect import bisect_left
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.telemetry.histogram import BOUNDS, BUCKETS, percentile, rebucket

durations = st.lists(st.floats(0, 120_000), min_size=1, max_size=200)


def _counts(values: list[float]) -> list[int]:
    counts = [0] * BUCKETS
    for value in values:
        counts[bisect_left(BOUNDS, value)] += 1
    return counts


@given(st.lists(durations, min_size=1, max_size=4), st.sampled_from([0.5, 0.9, 0.95, 0.99, 1.0]))
def test_a_percentile_of_merged_histograms_is_within_its_bucket(
    parts: list[list[float]], share: float
) -> None:
    merged = [sum(column) for column in zip(*map(_counts, parts), strict=True)]
    values = sorted(value for part in parts for value in part)
    true = values[max(0, ceil(share * len(values)) - 1)]
    place = bisect_left(BOUNDS, true)
    found = percentile(merged, share)
    assert found is not None
    if place == len(BOUNDS):
        assert found == BOUNDS[-1]
    else:
        assert (BOUNDS[place - 1] if place else 0) <= found <= BOUNDS[place]


@given(durations)
def test_percentiles_ascend(values: list[float]) -> None:
    counts = _counts(values)
    found = [percentile(counts, share / 20) or 0.0 for share in range(21)]
    assert found == sorted(found)


def test_nothing_has_no_percentile() -> None:
    assert percentile([0] * BUCKETS, 0.5) is None


@given(durations, st.lists(st.floats(0.1, 200_000), unique=True, max_size=30).map(sorted))
def test_other_bounds_make_no_duration_shorter(values: list[float], bounds: list[float]) -> None:
    theirs = [0] * (len(bounds) + 1)
    for value in values:
        theirs[bisect_left(bounds, value)] += 1
    ours, true = rebucket(bounds, theirs), _counts(values)
    assert sum(ours) == len(values)
    for place in range(BUCKETS):
        assert sum(ours[:place]) <= sum(true[:place])


@pytest.mark.parametrize(
    ("bounds", "counts"), [([1.0], [1]), ([], []), ([2.0, 1.0], [1, 1, 1]), ([1.0, 1.0], [0, 0, 0])]
)
def test_what_is_no_histogram_is_refused(bounds: list[float], counts: list[int]) -> None:
    with pytest.raises(ValueError, match="no histogram"):
        rebucket(bounds, counts)


def test_our_own_buckets_are_taken_as_they_are() -> None:
    counts = list(range(BUCKETS))
    assert list(rebucket(BOUNDS, counts)) == counts
    assert rebucket([], [7])[-1] == 7
