"""Which proxies tell, and whether a message of theirs is missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from weft.telemetry.limits import Limits, Losses
from weft.telemetry.metrics import Told
from weft.telemetry.series import SLOT_MS

ALIVE_MS: Final = 60_000
_FORGET_MS: Final = 3_600_000
# Both times are made by one clock of the proxy's, when it flushes.
_TOLERANCE_MS: Final = 500


@dataclass(slots=True)
class Teller:
    """A proxy. ``until``: what it told reaches up to there by its clock; ``last``: when, by ours. In ms.

    ``before``: ``until`` at the end of the slot before that of ``last``: so much of it is on disk, at least.
    """

    namespace: str
    instance: str
    kind: str
    workload: str
    principal: str
    until: int
    last: int
    changed: bool = True
    before: int = 0


class Tellers:
    """The proxies that told something within the last hour."""

    def __init__(self, limits: Limits, losses: Losses) -> None:
        self._limits = limits
        self._losses = losses
        self._known: dict[tuple[str, str], Teller] = {}
        self._alive: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        return len(self._known)

    def load(self, tellers: Iterable[Teller]) -> None:
        """Begin with what was kept."""
        for teller in tellers:
            self._known[teller.principal, teller.instance] = teller

    def hear(self, told: Told, now_ms: int) -> None:
        """Take note of a message, and of the time before it that no message told of."""
        who = str(told.identity), told.instance
        teller = self._known.get(who)
        if teller is None:
            if len(self._known) >= self._limits.tellers:
                return
            teller = self._known[who] = Teller(
                told.identity.namespace, told.instance, told.kind, told.workload, who[0], 0, now_ms
            )
            # Only its first message bears no time: how much was told before this one nobody knows.
            self._losses.metric_gaps += bool(told.since_ms)
        lacking = told.since_ms - teller.until
        # A proxy that was started anew says nothing of what was before.
        if teller.until and told.since_ms and lacking > _TOLERANCE_MS:
            self._losses.metric_gaps += 1
            self._losses.metric_gap_ms += lacking
        if now_ms // SLOT_MS != teller.last // SLOT_MS:
            teller.before = teller.until
        if told.time_ms:
            teller.until = max(teller.until, told.time_ms) if lacking < _FORGET_MS else told.time_ms
        teller.workload, teller.kind, teller.last, teller.changed = told.workload, told.kind, now_ms, True

    def take(self, slot: int) -> list[Teller]:
        """Those that told something since the last time, as they were when that slot began.

        What they told since is not written with them: were it lost, nobody would know.
        """
        changed = [teller for teller in self._known.values() if teller.changed]
        for teller in changed:
            teller.changed = False
        return [
            teller if teller.last // SLOT_MS < slot else replace(teller, until=teller.before)
            for teller in changed
        ]

    def forget(self, now_ms: int) -> None:
        """Drop those that told nothing for an hour."""
        for who in [who for who, teller in self._known.items() if teller.last < now_ms - _FORGET_MS]:
            del self._known[who]

    def all(self) -> list[Teller]:
        """Every one that is known."""
        return list(self._known.values())

    def alive(self, now_ms: int) -> dict[tuple[str, str], int]:
        """How many proxies of each workload (namespace, name) told something in the last minute."""
        found: dict[tuple[str, str], int] = {}
        for teller in self._known.values():
            if teller.last >= now_ms - ALIVE_MS:
                who = teller.namespace, teller.workload
                found[who] = found.get(who, 0) + 1
        return found
