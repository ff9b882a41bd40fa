"""Which certificates end soon, of the authority's list or of what nodes say they show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from weft.dashboard.figures import instant

_PART: Final = 0.2
"""They are renewed at half of their life: less than a fifth of it is left when renewing does not work."""


def newest(certificates: Iterable[Mapping[str, Any]], now: float) -> list[dict[str, Any]]:
    """The newest of each identity and node that is not over, the first to end first.

    Each with ``left``: the share of its life that is left, and ``health``. ``now`` is in ms.
    """
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for one in certificates:
        end = instant(one["notAfter"]) or 0
        key = one["identity"], one["node"]
        if (
            end > now
            and not one["revoked"]
            and (key not in found or end > (instant(found[key]["notAfter"]) or 0))
        ):
            found[key] = one
    rows = []
    for one in found.values():
        begin, end = instant(one["issued"]) or now, instant(one["notAfter"]) or now
        left = min(1.0, (end - now) / max(1.0, end - begin))
        rows.append({**one, "left": left, "health": "bad" if left < _PART else "good"})
    rows.sort(key=lambda row: (row["left"], row["identity"]))
    return rows


def ending(authority: Mapping[str, Any], now: float) -> list[dict[str, str]]:
    """Parts of nodes (``GET /weft/v1/ca``) whose certificate is over or ends within the hour."""
    hour = 3_600_000
    return [
        {"node": node["name"], "part": part["name"], "notAfter": part["notAfter"]}
        for node in authority["nodes"]
        for part in node["parts"]
        if part["notAfter"] and (instant(part["notAfter"]) or now) - now < hour
    ]
