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


def percentiles(counts: Sequence[int], shares: Sequence[float]) -> list[float | None]:
    """The durations in ms that these ``shares`` (0 to 1, ascending) of the requests did not exceed.

    None without requests. Within a bucket requests are taken to lie evenly, so it is right within the
    bucket's bounds; of the last bucket, which has no end, it is the beginning.
    """
    total = sum(counts)
    if not total:
        return [None] * len(shares)
    found: list[float | None] = []
    wanted = iter(shares)
    rank, before = next(wanted) * total, 0
    for place, count in enumerate(counts):
        if not count:
            continue
        low = BOUNDS[place - 1] if place else 0.0
        width = BOUNDS[place] - low if place < len(BOUNDS) else 0.0
        while before + count >= rank:
            found.append(low + width * max(0.0, rank - before) / count)
            share = next(wanted, None)
            if share is None:
                return found
            rank = share * total
        before += count
    return [*found, *[BOUNDS[-1]] * (len(shares) - len(found))]


def percentile(counts: Sequence[int], share: float) -> float | None:
    """One of them."""
    return percentiles(counts, (share,))[0]
