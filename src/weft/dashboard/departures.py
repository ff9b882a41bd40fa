"""Services that do otherwise than in the hour before. Pure: rows of ``stat`` in, departures out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

_FEWEST: Final = 20
_FEWEST_TIMED: Final = 50
_FEWEST_EVENTS: Final = 3
_LEAST_FAILED: Final = 0.01
_LEAST_REFUSED: Final = 0.05
# One such alarm by chance in ten thousand looks.
_SURPRISE: Final = math.log(1e4)
_TIMES: Final = 2.0
_LEAST_MS: Final = 10.0
_EXPECTED: Final = 50
_VANISHED: Final = 0.2
# What is expected of a service that nothing is known of: half a failure in a hundred requests.
_PRIOR, _PRIOR_OF = 0.5, 100
_FOLLOWING: Final = frozenset({"latency", "traffic"})
_ORDER: Final = ("success", "refused", "latency", "traffic")


@dataclass(frozen=True, slots=True)
class Departure:
    """``what``: ``success`` and ``refused`` are shares, ``latency`` the 95th percentile in ms, ``traffic``
    requests in a window as long as the recent one. ``before`` is None where there was no hour before;
    ``news`` is false for failures that are as many as they were. A host outside of the mesh has no namespace,
    and what leads nowhere no name either.
    """

    namespace: str
    name: str
    what: str
    before: float | None
    now: float
    news: bool = True


def departures(
    recent: Iterable[Mapping[str, Any]], hour: Iterable[Mapping[str, Any]], part: float = 1 / 30
) -> tuple[Departure, ...]:
    """What departs; the worst first. ``recent`` are rows of the last minutes, ``hour`` those of the hour that
    they are a part of (``part`` of it); both by service.

    Failures count when there are at least 1 % more (refusals: 5 %) than the hour before had, and chance makes
    so many less likely than once in ten thousand (Chernoff's bound of the binomial tail). Failures of 1 % and
    more are told even if they are no news. Latency counts when its 95th percentile doubled, by 10 ms at
    least; traffic when four fifths of at least 50 requests stayed away. Fewer than 20 requests say nothing.
    """
    known = {row["key"]: row for row in hour}
    now = {row["key"]: row for row in recent}
    found: list[tuple[float, Departure]] = []
    for key, row in now.items():
        if row["requests"] >= _FEWEST:
            found += _departs(row, known.get(key, row))
    for key, whole in known.items():
        came = now.get(key, {"requests": 0})["requests"]
        usual = (whole["requests"] - came) * part / max(1e-9, 1 - part)
        if key and usual >= _EXPECTED and came < usual * _VANISHED:
            found.append((came / usual, _departure(key, "traffic", usual, came)))
    found.sort(key=lambda one: (_ORDER.index(one[1].what), one[0], one[1].namespace, one[1].name))
    return tuple(departure for _, departure in found)


def worst(*views: Iterable[Departure]) -> tuple[Departure, ...]:
    """Of several looks at the same services each departure once: as the first of them has it. What fails is
    not told to be slow or little asked as well.
    """
    found: dict[tuple[str, str, str], Departure] = {}
    for view in views:
        for one in view:
            found.setdefault((one.namespace, one.name, one.what), one)
    told = [
        one
        for one in found.values()
        if one.what not in _FOLLOWING or (one.namespace, one.name, "success") not in found
    ]
    return tuple(sorted(told, key=lambda one: _ORDER.index(one.what)))


def _departs(row: Mapping[str, Any], whole: Mapping[str, Any]) -> Iterable[tuple[float, Departure]]:
    requests = row["requests"]
    earlier = max(0, whole["requests"] - requests)
    for what, field, least in (("success", "errors", _LEAST_FAILED), ("refused", "refused", _LEAST_REFUSED)):
        events = row.get(field, 0)
        before = max(0, whole.get(field, 0) - events)
        usual, share = (before + _PRIOR) / (earlier + _PRIOR_OF), events / requests
        known = before / earlier if earlier >= _FEWEST else None
        news = share - (known or 0.0) >= least and _surprising(events, requests, usual)
        # Refusals are the caller's fault: as many as ever are nothing to look at.
        if events >= _FEWEST_EVENTS and (news or (what == "success" and share >= least and known)):
            good = what == "success"
            was = known if known is None or not good else 1 - known
            yield -share, _departure(row["key"], what, was, 1 - share if good else share, news=news)
    slow, then = row["p95"], whole["p95"]
    timed = requests >= _FEWEST_TIMED and earlier >= _FEWEST_TIMED
    if timed and slow and then and slow > _TIMES * then and slow - then > _LEAST_MS:
        yield then / slow, _departure(row["key"], "latency", then, slow)


def _surprising(events: int, of: int, usual: float) -> bool:
    """Whether so many of these are less likely than once in ten thousand where ``usual`` is the share."""
    share = events / of
    if share <= usual:
        return False
    away = share * math.log(share / usual)
    if share < 1:
        away += (1 - share) * math.log((1 - share) / (1 - usual))
    return of * away > _SURPRISE


def _departure(key: str, what: str, before: float | None, now: float, *, news: bool = True) -> Departure:
    namespace, _, name = key.rpartition("/")
    return Departure(namespace, name, what, before, now, news)
