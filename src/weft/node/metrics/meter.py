"""What runs here uses, by the second: for who looks at the mesh, rather than scrapes it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from weft.node.app import Node
from weft.node.metrics.scrape import parts_of
from weft.node.metrics.usage import Usage

_SHORTEST_S: Final = 0.5
_USUAL_S: Final = 5.0
_LONGEST_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Measured:
    """``instance`` is ``namespace/name``, ``part`` one of ``proxy``, ``wrapper``, ``application``; ``key``:
    what its counter of CPU is known by.
    """

    instance: str
    part: str
    key: Hashable
    usage: Usage


def measured(node: Node) -> Iterator[Measured]:
    """Every part of every workload, one after the other."""
    for workload in tuple(node.workloads.values()):
        for part in parts_of(workload):
            yield Measured(workload.id, part.role, part.key, part.usage)


@dataclass(frozen=True, slots=True)
class _Look:
    """``at``: monotonic seconds."""

    at: float
    parts: tuple[Measured, ...]


class Meter:
    """CPU is counted up: a rate is what was added since an earlier look, of half a second to a minute ago."""

    def __init__(self, measure: Callable[[], Iterable[Measured]]) -> None:
        self._measure = measure
        self._looking = asyncio.Lock()
        self._looks: deque[_Look] = deque()

    async def look(self, namespace: str = "") -> list[dict[str, Any]]:
        """The parts of the workloads of one namespace, or of all.

        ``cpu`` is in CPUs, None of a part that has just begun; ``seconds``: the time it is the average of.
        ``memory`` is bytes that cannot be taken back easily.
        """
        async with self._looking:
            await self._renew()
            then, now = self._looks[0], self._looks[-1]
        before = {one.key: one.usage.cpu_s for one in then.parts}
        seconds = now.at - then.at
        return [
            {
                "instance": one.instance,
                "part": one.part,
                "cpu": max(0.0, one.usage.cpu_s - before[one.key]) / seconds if one.key in before else None,
                "memory": one.usage.working_set,
                "processes": one.usage.processes,
                "seconds": seconds,
            }
            for one in now.parts
            if not namespace or one.instance.startswith(f"{namespace}/")
        ]

    async def _renew(self) -> None:
        """At least two looks, the last of now."""
        looks, now = self._looks, time.monotonic()
        if looks and now - looks[-1].at > _LONGEST_S:
            looks.clear()
        if len(looks) > 1 and now - looks[-1].at < _SHORTEST_S:
            return
        if not looks:
            looks.append(await self._all())
            await asyncio.sleep(_SHORTEST_S)
        looks.append(await self._all())
        while len(looks) > 2 and looks[-1].at - looks[1].at >= _USUAL_S:
            looks.popleft()

    async def _all(self) -> _Look:
        at, found = time.monotonic(), []
        for one in self._measure():
            found.append(one)
            await asyncio.sleep(0)
        return _Look(at, tuple(found))
