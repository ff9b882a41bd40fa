"""Places as ``region/zone/subzone``, as DestinationRules name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

TOPOLOGY: Final = frozenset(
    {"topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"}
)


def apart(places: Sequence[str]) -> str:
    """A complaint when one of the places is none, or holds a later one or itself; else the empty text."""
    seen: set[tuple[str, ...]] = set()
    for place in places:
        if place.count("*") > 1 or "*" in place[:-1]:
            return f"in {place!r} '*' is not the end"
        parts = tuple(place.split("/", 2))
        if not all(parts):
            return f"{place!r} has an empty part: write 'region/zone/subzone'"
        held = any(parts[:end] in seen for end in range(len(parts) + 1))
        if held or any(other[: len(parts)] == parts for other in seen):
            return f"{place!r} has something in common with a place before it"
        seen.add(() if parts == ("*",) else parts)
    return ""
