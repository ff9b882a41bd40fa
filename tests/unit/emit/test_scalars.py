"""Small values at their limits."""

from __future__ import annotations

from datetime import timedelta

from weft.emit.scalars import duration, shares


def test_no_duration_is_longer_than_envoy_can_count() -> None:
    assert duration(timedelta(seconds=2**63 / 10**9)).seconds == 9223372035
    assert duration(timedelta.max).nanos == 0
    short = duration(timedelta(microseconds=1_000_001))
    assert (short.seconds, short.nanos) == (1, 1000)


def test_weights_keep_their_proportion_within_what_envoy_can_add_up() -> None:
    small = [1, 0, 2**32 - 2]
    assert shares(small) is small
    large = shares([2**32 - 1, 2**32 - 1, 1, 0])
    assert sum(large) <= 2**32 - 1
    assert large[0] == large[1] > 2**31 - 10
    assert large[2:] == [1, 0]
