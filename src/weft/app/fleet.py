"""Keeps a node at what the resources say: replicas and gateways that are missing start, others stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Set
from typing import Any, Final

from weft.app.nodesocket import NodeSocket
from weft.app.replicas import Replica
from weft.errors import WeftError

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
# A replica needs the CPU of an Envoy's start; more at once only wait for each other.
_AT_ONCE: Final = 4

Say = Callable[[str], None]


class Fleet:
    """``want`` says what shall run; one task for each replica that must be started, replaced or ended."""

    def __init__(self, node: NodeSocket, say: Say) -> None:
        self._node = node
        self._say = say
        self._wanted: dict[str, Replica] = {}
        self._running: dict[str, str] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._told: set[str] = set()
        self.failures: dict[str, str] = {}
        """By replica, why it could not be started at the last try."""

    def want(self, replicas: Mapping[str, Replica]) -> None:
        """Replace what shall run."""
        self._wanted = dict(replicas)
        for replica_id in {*self._wanted, *self._running}:
            if not self._settled(replica_id) and replica_id not in self._tasks:
                task = asyncio.create_task(self._bring(replica_id), name=f"replica {replica_id}")
                self._tasks[replica_id] = task

    def found(self, alive: Set[str]) -> None:
        """The node was started again and has only these: start the others anew."""
        self._running = {name: version for name, version in self._running.items() if name in alive}
        self.want(self._wanted)

    @property
    def settled(self) -> bool:
        """Whether everything that is wanted, and nothing else, was started."""
        return not self._tasks

    async def close(self) -> None:
        """Stop changing anything; what runs is left to the node."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _settled(self, replica_id: str) -> bool:
        wanted = self._wanted.get(replica_id)
        return self._running.get(replica_id) == (wanted.version if wanted else None)

    async def _bring(self, replica_id: str) -> None:
        try:
            await self._try(replica_id)
        finally:
            del self._tasks[replica_id]

    async def _try(self, replica_id: str) -> None:
        pause = _FIRST_PAUSE_S
        while not self._settled(replica_id):
            try:
                await self._step(replica_id)
                self.failures.pop(replica_id, None)
            except WeftError as error:
                if self.failures.get(replica_id) != error.message:
                    self._say(f"{replica_id}: {error.message}" + (f" ({error.hint})" if error.hint else ""))
                self.failures[replica_id] = error.message
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)

    async def _step(self, replica_id: str) -> None:
        wanted = self._wanted.get(replica_id)
        if replica_id in self._running:
            await self._node.ask({"op": "remove", "id": replica_id}, "left")
            del self._running[replica_id]
        if wanted is None:
            return
        async with self._slots:
            try:
                ready = await self._node.ask({"op": "add", **wanted.request}, "ready")
            except WeftError:
                # What failed half-way must not be in the way of the next try.
                with contextlib.suppress(WeftError):
                    await self._node.ask({"op": "remove", "id": replica_id}, "left")
                raise
        self._running[replica_id] = wanted.version
        if wanted.request.get("kind") != "router":  # it captures nothing, and nobody expects it to
            self._tell_capture(ready)

    def _tell_capture(self, ready: Mapping[str, Any]) -> None:
        capture = str(ready.get("capture"))
        if capture in self._told:
            return
        self._told.add(capture)
        self._say(f"capture: {capture}. {ready.get('covers') or ''}".rstrip())
        if because := ready.get("because"):
            self._say(f"  because: {because}")
        for limit in ready.get("limits") or ():
            self._say(f"  not covered: {limit}")
