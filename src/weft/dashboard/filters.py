"""What readers chose and keep as they go from page to page: a namespace and a window of time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

WINDOWS: Final = {
    "1m": "the last minute",
    "5m": "the last 5 minutes",
    "15m": "the last 15 minutes",
    "1h": "the last hour",
    "6h": "the last 6 hours",
}
_CHARTED: Final = {"1m": "15m", "6h": "6h"}
_KEPT: Final = ("namespace", "window")
_FIRST: Final = next(iter(WINDOWS))


def window_of(query: Mapping[str, str]) -> str:
    """The window that was chosen; the shortest else."""
    chosen = query.get("window", "")
    return chosen if chosen in WINDOWS else _FIRST


def charted(window: str) -> str:
    """The time that charts show with it: more than the window where that is too short to see a change."""
    return _CHARTED.get(window, "1h")


def kept(query: Mapping[str, str]) -> dict[str, str]:
    """What links to other pages of the dashboard take along."""
    found = {name: query[name] for name in _KEPT if query.get(name)}
    if found.get("window") not in WINDOWS or found["window"] == _FIRST:
        found.pop("window", None)
    return found
