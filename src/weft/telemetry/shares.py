"""Who gets how much of what is not enough for all: nobody is crowded out by who takes more."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Final

_WHOLE: Final = 2**32


def level(claims: Collection[int], room: int) -> int:
    """The most that one may have for all to fit: who claims less keeps it all, the others get the same."""
    left = len(claims)
    for claim in sorted(claims):
        if claim > room // left:
            return room // left
        room -= claim
        left -= 1
    return max(claims, default=room)


class TraceShare:
    """Lets about ``most`` spans a second through: of those who send too many, whole traces, by their ids."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._second = clock()
        self._seen: Counter[str] = Counter()
        self._thresholds: dict[str, int] = {}

    def take(self, trace: bytes, owner: str) -> bool:
        """Whether a span of this trace is kept. ``owner``: the identity that tells of it."""
        now = self._clock()
        if now - self._second >= 1:
            fair = level(self._seen.values(), int(self._most * (now - self._second)))
            self._thresholds = {one: _WHOLE * fair // seen for one, seen in self._seen.items() if seen > fair}
            self._second = now
            self._seen.clear()
        self._seen[owner] += 1
        # Not the first bytes: some tracers put a time there.
        return int.from_bytes(trace[-4:]) < self._thresholds.get(owner, _WHOLE)
