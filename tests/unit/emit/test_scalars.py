"""Small values at their limits."""

from __future__ import annotations

from datetime import timedelta

from weft.emit.scalars import duration


def test_no_duration_is_longer_than_envoy_can_count() -> None:
    assert duration(timedelta(seconds=2**63 / 10**9)).seconds == 9223372035
    assert duration(timedelta.max).nanos == 0
    short = duration(timedelta(microseconds=1_000_001))
    assert (short.seconds, short.nanos) == (1, 1000)
