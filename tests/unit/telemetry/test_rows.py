"""Rows are added and taken from one another by columns, none of which ever runs into another."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from weft.telemetry.rows import WIDTH, column, durations, is_full, one, pack, unpack

_COLUMNS = st.lists(st.integers(0, (1 << 61) - 1), min_size=WIDTH, max_size=WIDTH)


@given(_COLUMNS, _COLUMNS)
def test_sums_and_differences_are_those_of_columns(some: list[int], more: list[int]) -> None:
    both = pack(some) + pack(more)
    assert unpack(both) == tuple(left + right for left, right in zip(some, more, strict=True))
    assert unpack(both - pack(more)) == tuple(some)
    assert [column(both, number) for number in range(WIDTH)] == list(unpack(both))


@given(st.integers(0, WIDTH - 1), st.integers(0, (1 << 63) - 1))
def test_one_column_is_full_before_it_runs_over(number: int, value: int) -> None:
    row = one(number, value)
    assert unpack(row) == (*[0] * number, value, *[0] * (WIDTH - number - 1))
    assert is_full(row) == (value >= 1 << 62)


def test_what_ran_over_can_still_be_read() -> None:
    assert len(unpack(pack([(1 << 64) - 1] * WIDTH) * 3)) == WIDTH


def test_durations_are_no_requests() -> None:
    row = durations(7, range(WIDTH - 6))
    assert unpack(row) == (0, 7, 0, 0, 0, 0, *range(WIDTH - 6))
