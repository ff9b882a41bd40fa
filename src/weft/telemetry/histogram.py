"""Durations in buckets: made alike, added up, and percentiles read out of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final

from weft.emit.bootstrap import MILLISECONDS

BOUNDS: Final = tuple(float(bound) for bound in MILLISECONDS)
"""The upper ends of the buckets in ms; one more bucket has no end."""
BUCKETS: Final = len(BOUNDS) + 1


@lru_cache(maxsize=64)
def _places(bounds: tuple[float, ...]) -> tuple[int, ...]:
    """Which of ours each bucket of a histogram with these bounds goes into: no shorter than it was."""
    return (*(bisect_left(BOUNDS, bound) for bound in bounds), BUCKETS - 1)


def rebucket(bounds: Sequence[float], counts: Sequence[int]) -> Sequence[int]:
    """Counts in our buckets of a histogram with other ``bounds`` (a proxy of another version).

    Raises:
        ValueError: there are not one more counts than bounds, or the bounds do not ascend.
    """
    known = tuple(bounds)
    if len(counts) != len(known) + 1 or any(low >= high for low, high in pairwise(known)):
        raise ValueError("no histogram")
    if known == BOUNDS:
        return counts
    made = [0] * BUCKETS
    for place, count in zip(_places(known), counts, strict=True):
        made[place] += count
    return made


def percentile(counts: Sequence[int], share: float) -> float | None:
    """The duration in ms that ``share`` (0 to 1) of the requests did not exceed; None without requests.

    Within a bucket requests are taken to lie evenly, so it is right within the bucket's bounds; of the last
    bucket, which has no end, it is the beginning.
    """
    total = sum(counts)
    if not total:
        return None
    rank, before = share * total, 0
    for place, count in enumerate(counts):
        if count and before + count >= rank:
            low = BOUNDS[place - 1] if place else 0.0
            if place == len(BOUNDS):
                return low
            return low + (BOUNDS[place] - low) * max(0.0, rank - before) / count
        before += count
    return BOUNDS[-1]
