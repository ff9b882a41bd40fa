"""Sizes as people write them."""

from __future__ import annotations

import pytest

from weft.units import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("256MiB", 268_435_456), ("1Gi", 1_073_741_824), ("1.5K", 1_536), ("2TiB", 2_199_023_255_552)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "256", "1 GiB", "-1GiB", "1e9KiB", "GiB", "9" * 30 + "KiB", 5, None])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)
