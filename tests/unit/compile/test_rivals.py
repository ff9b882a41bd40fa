"""Which host names of two kinds of routes meet, found without a look at each of them."""

from __future__ import annotations

from itertools import product

from weft.compile.gatewayapi.rivals import _Names
from weft.compile.hosts import overlaps

NAMES = ("*", "a", "a.b", "c.a.b", "*.b", "*.a.b", "*.c.a.b", "d.c.a.b", "xa.b", "b", "a.b.c", "*.xa.b")


def test_names_overlap_as_they_do_one_by_one() -> None:
    for held in product(NAMES, repeat=2):
        index = _Names()
        for name in held:
            index.add(name)
        for asked in NAMES:
            assert index.overlap(asked) == any(overlaps(name, asked) for name in held), (held, asked)
    assert not any(map(_Names().overlap, NAMES))
