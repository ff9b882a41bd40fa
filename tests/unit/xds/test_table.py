"""A table behaves as a dict, and tells differences."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from weft.emit.packed import Packed
from weft.xds.table import Table, difference

names = st.sampled_from([f"cluster-{number}" for number in range(30)])
contents = st.dictionaries(names, st.integers(0, 3))


def packed(data: dict[str, int]) -> dict[str, Packed]:
    return {name: Packed(name, str(version), b"") for name, version in data.items()}


@given(contents, st.lists(st.tuples(contents, st.sets(names)), max_size=5))
def test_it_holds_what_a_dict_would(
    start: dict[str, int], steps: list[tuple[dict[str, int], set[str]]]
) -> None:
    table, model = Table[Packed]().replace(packed(start)), packed(start)
    for put, removed in steps:
        before, old = table, dict(model)
        model = {name: value for name, value in model.items() if name not in removed} | packed(put)
        table = table.replace(packed(put), removed)
        assert dict(table) == model
        assert len(table) == len(model)
        want = sorted(name for name in {*old, *model} if old.get(name) != model.get(name))
        assert list(difference(before, table)) == want
        assert list(difference(old, model)) == want
        assert dict(before) == old  # never written into
        assert (table is before) == (not want)
