"""Services that do otherwise than in the hour before. Pure: rows of ``stat`` in, departures out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

_FEWEST: Final = 20
_LEAST_SHARE: Final = 0.01
_SIGMAS: Final = 3.0
_TIMES: Final = 2.0
_LEAST_MS: Final = 10.0
_UNKNOWN_SHARE: Final = 0.001


@dataclass(frozen=True, slots=True)
class Departure:
    """``what`` is ``success`` (a share) or ``latency`` (the 95th percentile in ms)."""

    namespace: str
    name: str
    what: str
    before: float | None
    now: float


def departures(
    recent: Iterable[Mapping[str, Any]], hour: Iterable[Mapping[str, Any]]
) -> tuple[Departure, ...]:
    """What departs; the worst first. ``recent`` are rows of the last minutes, ``hour`` those of the hour that
    they are a part of; both by service.

    Failures count when there are more than the hour before makes likely (three standard deviations of as
    many requests) and at least 1 % more; latency when its 95th percentile doubled, by 10 ms at least.
    Fewer than 20 requests say nothing. A service that has no hour before is measured by no failures at all.
    """
    known = {row["key"]: row for row in hour}
    found: list[tuple[float, Departure]] = []
    for row in recent:
        if row["requests"] < _FEWEST:
            continue
        namespace, _, name = row["key"].partition("/")
        whole = known.get(row["key"], row)
        earlier = whole["requests"] - row["requests"]
        usual = max(0, whole["errors"] - row["errors"]) / earlier if earlier >= _FEWEST else 0.0
        share = row["errors"] / row["requests"]
        spread = math.sqrt(max(usual, _UNKNOWN_SHARE) * (1 - usual) / row["requests"])
        if share - usual > max(_LEAST_SHARE, _SIGMAS * spread):
            before = 1 - usual if earlier >= _FEWEST else None
            found.append((1 + share, Departure(namespace, name, "success", before, 1 - share)))
        slow, then = row["p95"], whole["p95"]
        if earlier >= _FEWEST and slow and then and slow > _TIMES * then and slow - then > _LEAST_MS:
            found.append((1 - then / slow, Departure(namespace, name, "latency", then, slow)))
    found.sort(key=lambda one: (-one[0], one[1].namespace, one[1].name))
    return tuple(departure for _, departure in found)
