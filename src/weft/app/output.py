"""What the applications of a mesh say, each line behind the name of who said it (``weft up --logs``)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import aclosing, suppress
from typing import Final

from weft.app.nodesocket import NodeSocket
from weft.errors import WeftError

# What an application said before it was found is shown as well.
_LINES: Final = 100


class Output:
    """Follows whoever runs; ``say`` gets one line at a time."""

    def __init__(self, node: NodeSocket, say: Callable[[str], None]) -> None:
        self._node = node
        self._say = say
        self._following: dict[str, asyncio.Task[None]] = {}
        self._seen: set[str] = set()

    def follow(self, workloads: Iterable[str]) -> None:
        """Follow these (``namespace/name``), and nobody else any more."""
        wanted = set(workloads)
        ended = {workload for workload, task in self._following.items() if task.done()}
        for workload in (self._following.keys() - wanted) | ended:
            self._following.pop(workload).cancel()
        for workload in wanted - self._following.keys():
            task = asyncio.create_task(self._read(workload), name=f"output of {workload}")
            self._following[workload] = task

    async def close(self) -> None:
        """Stop following."""
        tasks = list(self._following.values())
        self.follow(())
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, workload: str) -> None:
        name = workload.rpartition("/")[2]
        lines = 0 if workload in self._seen else _LINES
        self._seen.add(workload)
        request = {"op": "logs", "id": workload, "source": "app", "follow": True, "lines": lines}
        # The node may go away, and with it this connection: its successor's list brings the workload back.
        with suppress(WeftError):
            async with aclosing(self._node.events(request)) as events:
                async for event in events:
                    if event.get("event") == "log":
                        self._say(f"{name} | {event.get('line', '')}")
