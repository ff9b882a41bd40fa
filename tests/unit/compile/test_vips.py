"""Virtual addresses: stable, inside the range, never twice."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.compile.vips import RANGE, allocate, assign


@given(st.text(min_size=1))
def test_the_same_name_gets_the_same_free_address(name: str) -> None:
    first = allocate(name, ())
    assert allocate(name, ()) == first
    assert IPv4Address(first) in RANGE
    assert first not in {str(RANGE.network_address), str(RANGE.broadcast_address)}
    assert allocate(name, {first}) != first


def test_a_full_range_is_an_error_and_the_last_address_is_found() -> None:
    every = {str(address) for address in RANGE.hosts()}
    last = every.pop()
    assert allocate("default/reviews", every) == last
    with pytest.raises(ValueError, match="no address"):
        allocate("default/reviews", every | {last})


def test_known_addresses_stay() -> None:
    known = {("default", "a"): "240.240.1.1"}
    assert assign([("default", "a")], known) is known
    more = assign([("default", "a"), ("default", "b")], known)
    assert more["default", "a"] == "240.240.1.1"
    assert len(set(more.values())) == 2


def test_a_host_of_several_entries_needs_one_address() -> None:
    once = assign([("default", "a")], {})
    assert assign([("default", "a")] * 3, {}) == once
