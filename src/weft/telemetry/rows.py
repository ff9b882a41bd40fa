"""What a series counted, as one whole number: its columns side by side, 64 bits each.

Two of them are added, or one is taken from another, in one step for all columns: ten times as fast as lists
of numbers, and in a fifth of the memory. Columns that are empty at the end take none.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

from weft.telemetry.histogram import BUCKETS

REQUESTS, DURATION_US, OPENED, CLOSED, SENT, RECEIVED, FIRST_BUCKET = range(7)
"""The columns: requests, their durations in us, TCP connections opened and closed, bytes sent and received,
and from the last on requests by bucket of duration."""
WIDTH: Final = FIRST_BUCKET + BUCKETS

Row = int

_BITS: Final = 64
_COLUMN: Final = (1 << _BITS) - 1
_ALL: Final = (1 << _BITS * WIDTH) - 1
_BYTES: Final = WIDTH * _BITS // 8
_LAYOUT: Final = Struct(f"<{WIDTH}Q")
# The two highest bits of each column: one in which they are clear can take another such without a carry.
_FULL: Final = sum(3 << _BITS * column + _BITS - 2 for column in range(WIDTH))


def pack(columns: Sequence[int]) -> Row:
    """A row out of ``WIDTH`` numbers."""
    return int.from_bytes(_LAYOUT.pack(*columns), "little")


def unpack(row: Row) -> tuple[int, ...]:
    """The ``WIDTH`` numbers of a row."""
    return _LAYOUT.unpack((row & _ALL).to_bytes(_BYTES, "little"))


def column(row: Row, number: int) -> int:
    """One number of a row."""
    return row >> _BITS * number & _COLUMN


def one(number: int, value: int) -> Row:
    """A row with this in one column, and nothing else."""
    return value << _BITS * number


def durations(microseconds: int, counts: Sequence[int]) -> Row:
    """A row with requests by duration, which lasted so long together."""
    return pack((0, microseconds, 0, 0, 0, 0, *counts))


def is_full(row: Row) -> bool:
    """Whether a column has become so large that another such might run into its neighbour."""
    return row & _FULL != 0
