"""Since when something fails, and what was changed just before. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

_PART: Final = 0.2
_LULL: Final = 2
_BEFORE_MS: Final = 120_000
_AFTER_MS: Final = 30_000
_NAMED: Final = 3


def onset(times: Sequence[int], errors: Sequence[float | None]) -> float | None:
    """The beginning (ms) of the failures that last until now: errors of a fifth of their newest rate and
    more, with lulls of up to two steps. None when there are none, or when they last as long as is known.
    """
    newest = max((value or 0 for value in errors[-4:]), default=0)
    if not newest:
        return None
    first, lull = len(errors), 0
    for place in range(len(errors) - 1, -1, -1):
        if (errors[place] or 0) >= newest * _PART:
            first, lull = place, 0
        else:
            lull += 1
            if lull > _LULL:
                break
    return None if first in {0, len(errors)} else float(times[first])


def changes_before(changes: Iterable[Mapping[str, Any]], since: float) -> list[Mapping[str, Any]]:
    """The newest of what was changed in the two minutes before, or in the step that it began in: those of one
    revision, at most three.
    """
    near = [one for one in changes if since - _BEFORE_MS <= one["time"] <= since + _AFTER_MS]
    return [one for one in near if one["revision"] == near[0]["revision"]][:_NAMED]
