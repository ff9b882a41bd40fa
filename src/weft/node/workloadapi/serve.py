"""The socket of the Workload API, ``workload.sock`` beside the node's own. Anybody may knock; only processes
of a workload get anything, and only what is that workload's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator
from typing import Final

from weft.node.app import Node
from weft.node.claims import Held
from weft.node.workload import Workload
from weft.node.workloadapi.callers import find_caller
from weft.node.workloadapi.svids import Source, Svids
from weft.spiffe import SpiffeId

log = logging.getLogger(__name__)

# Of each workload, and of each user without one: who opens them without end keeps nobody else out.
_CONNECTIONS_MAX: Final = 128


class Desk:
    """All connections of a node."""

    def __init__(self, node: Node, source: Source) -> None:
        self._node = node
        self._source = source
        self._svids: Svids | None = None
        self._open: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    async def attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        held = Held(writer.get_extra_info("socket"))
        try:
            # Read while the caller is held: later its pid may be somebody else's.
            workload = find_caller(held, self._node.workloads.values())
            asker = workload.id if workload is not None else f"uid {held.uid}"
            if self._open[asker] >= _CONNECTIONS_MAX:
                writer.close()
                return
            self._open[asker] += 1
            try:
                await self._serve(reader, writer, workload)
            finally:
                self._open[asker] -= 1
                if not self._open[asker]:
                    del self._open[asker]
        finally:
            held.close()
            self._tasks.discard(task)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, workload: Workload | None
    ) -> None:
        # HTTP/2 is needed by hosts only whose applications ask.
        from weft.node.workloadapi.service import Service
        from weft.node.workloadapi.transport import Connection

        if self._svids is None:
            self._svids = Svids(self._source)

        def whose() -> tuple[str, SpiffeId] | None:
            if workload is None or self._node.workloads.get(workload.id) is not workload:
                return None
            spec = workload.spec
            identity = SpiffeId(self._source.trust_domain, spec.namespace, spec.service_account)
            return workload.id, identity

        async def gone() -> None:
            async for _ in self._node.changes():
                if whose() is None:
                    return

        await Connection(reader, writer, Service(self._svids, whose, gone).methods()).serve()

    async def keep(self) -> None:
        """Forget what workloads hold that have gone. Run it as a task."""
        async for _ in self._node.changes():
            if self._svids is not None:
                for name in self._svids.names():
                    if name not in self._node.workloads:
                        await self._svids.drop(name)

    async def close(self) -> None:
        """End all connections and forget all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._svids is not None:
            await self._svids.close()


@contextlib.asynccontextmanager
async def serve(node: Node, source: Source) -> AsyncIterator[None]:
    """Serve the Workload API while the context lasts."""
    path = node.layout.workload_socket
    path.unlink(missing_ok=True)
    desk = Desk(node, source)
    server = await asyncio.start_unix_server(desk.attend, str(path))
    # For root's node applications of every user; who may have what is decided by the caller's workload.
    path.chmod(0o666 if os.geteuid() == 0 else 0o600)
    keeping = asyncio.create_task(desk.keep(), name="workload API")
    try:
        yield
    finally:
        server.close()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await desk.close()
        path.unlink(missing_ok=True)
