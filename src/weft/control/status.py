"""What every proxy was sent, took and refused, and when a change is live on all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from weft.control.convergence import Convergence, Phase, Rejected, TypeStatus
from weft.control.metrics import Metrics
from weft.control.proxies import Proxies
from weft.ir.route import Source
from weft.names import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    EXTENSION_TYPE,
    LISTENER_TYPE,
    ROUTE_TYPE,
    SECRET_TYPE,
    VIRTUAL_HOST_TYPE,
)
from weft.xds.connection import Connection
from weft.xds.messages import Acknowledged, Refused
from weft.xds.shared import Response

SHORT: Final = {
    CLUSTER_TYPE: "cds",
    LISTENER_TYPE: "lds",
    ENDPOINT_TYPE: "eds",
    ROUTE_TYPE: "rds",
    SECRET_TYPE: "sds",
    EXTENSION_TYPE: "ecds",
    VIRTUAL_HOST_TYPE: "vhds",
}
"""Istio's short names of the types, in the order in which it prints them."""

# Istio's words in the type label of pilot_total_xds_rejects.
_REJECT_LABEL: Final = {url: f"pilot_xds_{name}_reject" for url, name in SHORT.items()}


@dataclass(slots=True)
class _ProxyStatus:
    connected_at: float
    types: dict[str, TypeStatus] = field(default_factory=dict)
    # Revisions that were published for it and not acknowledged, with the time of the change.
    awaited: list[tuple[int, float]] = field(default_factory=list)


class Status:
    """The observer of all streams."""

    def __init__(
        self,
        proxies: Proxies,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.time,
        *,
        on_rejected: Callable[[Rejected], None] | None = None,
    ) -> None:
        self.proxies = proxies
        self.metrics = metrics or Metrics()
        # Looking a label up costs more than counting: once here, not for every message.
        kinds = (*SHORT.values(), "other")
        self._config_size = {kind: self.metrics.config_size.labels(kind) for kind in kinds}
        self._push_time = {kind: self.metrics.push_time.labels(kind) for kind in kinds}
        # 0 from the start: the first refusal would be no growth to rate() otherwise, and dashboards empty.
        for label in _REJECT_LABEL.values():
            self.metrics.rejects.add(label, count=0)
        self._clock = clock
        self._on_rejected = on_rejected
        self._known: dict[Connection, _ProxyStatus] = {}
        self._published = -1
        self._sequences: dict[int, int] = {}
        self._changed: asyncio.Event | None = None
        self._listeners: list[Callable[[Connection], None]] = []

    def listen(self, progressed: Callable[[Connection], None]) -> None:
        """Call ``progressed`` with each proxy that holds more than before, or refuses something."""
        self._listeners.append(progressed)

    # As an observer of streams

    def connected(self, connection: Connection) -> None:
        """A proxy was let in."""
        self._known[connection] = _ProxyStatus(self._clock())
        self.metrics.proxies.labels(connection.peer.node.version).inc()
        self.proxies.add(connection)
        self._wake()

    def sent(self, connection: Connection, response: Response) -> None:
        """A response is being written."""
        status = self._type(connection, response.type_url)
        status.sent, status.sent_at = response.nonce, self._clock()
        status.resources = len(response.resources)
        short = SHORT.get(response.type_url, "other")
        self.metrics.pushes.add(short)
        self._config_size[short].observe(len(response.payload))

    def acknowledged(self, connection: Connection, event: Acknowledged) -> None:
        """The proxy took a response."""
        status = self._type(connection, event.type_url)
        now = self._clock()
        status.acknowledged, status.acknowledged_at = event.nonce, now
        self._push_time[SHORT.get(event.type_url, "other")].observe(max(0.0, now - status.sent_at))
        if status.error and not any(url == event.type_url for url, _ in connection.stream.rejected()):
            status.error = ""

    def refused(self, connection: Connection, event: Refused) -> None:
        """The proxy refused a response."""
        status = self._type(connection, event.type_url)
        status.error, status.error_at = event.error, self._clock()
        self.metrics.rejects.add(_REJECT_LABEL.get(event.type_url, "other"))
        if event.culprit is not None and self._on_rejected is not None:
            self._on_rejected(
                Rejected(
                    connection.proxy,
                    SHORT.get(event.type_url, event.type_url),
                    event.culprit.name,
                    event.error,
                    sources(event.culprit),
                )
            )
        self._tell(connection)

    def progressed(self, connection: Connection) -> None:
        """The proxy holds more of what it shall have than before."""
        status = self._known.get(connection)
        if status is not None:
            done = [entry for entry in status.awaited if entry[0] <= connection.stream.revision]
            if done:
                status.awaited = [entry for entry in status.awaited if entry not in done]
                now = self._clock()
                for _, changed_at in done:
                    self.metrics.convergence_time.observe(max(0.0, now - changed_at))
        self._tell(connection)

    def _tell(self, connection: Connection) -> None:
        for listener in self._listeners:
            listener(connection)
        self._wake()

    def disconnected(self, connection: Connection) -> None:
        """The stream ended."""
        if self._known.pop(connection, None) is not None:
            self.metrics.proxies.labels(connection.peer.node.version).dec()
        self.proxies.remove(connection)
        self._wake()

    def _type(self, connection: Connection, type_url: str) -> TypeStatus:
        known = self._known.setdefault(connection, _ProxyStatus(self._clock()))
        return known.types.setdefault(type_url, TypeStatus())

    # As the pipeline's book of revisions

    def awaiting(self, proxy: str, revision: int, changed_at: float) -> None:
        """``revision`` was published for a proxy; the change was made at ``changed_at``."""
        connection = self.proxies.get(proxy)
        status = self._known.get(connection) if connection is not None else None
        if status is not None:
            status.awaited.append((revision, changed_at))
            del status.awaited[:-_AWAITED]

    def published(self, revision: int, sequence: int) -> None:
        """All that ``revision`` changed is published; its endpoints with ``sequence`` at the latest."""
        self._published = max(self._published, revision)
        self._sequences[self._published] = sequence
        while len(self._sequences) > _SEQUENCES:
            del self._sequences[min(self._sequences)]
        self._wake()

    # What is asked of it

    def convergence(self, revision: int) -> Convergence:
        """Who runs ``revision``, and who does not."""
        connections = list(self.proxies.connections())
        sequence, published = self._sequence_of(revision), self._published >= revision
        missing = tuple(
            connection.proxy
            for connection in connections
            if not published
            or connection.stream.revision < revision
            or not connection.stream.has_endpoints(sequence)
        )
        rejected = tuple(self.rejections(revision))
        return Convergence(revision, published, len(connections), missing, rejected, max(0, self._published))

    async def wait_converged(self, revision: int, timeout: float) -> Convergence:
        """Wait until nobody is missing, somebody refuses a resource, or ``timeout`` seconds are over."""
        try:
            async with asyncio.timeout(timeout):
                async for convergence in self.follow(revision):
                    # A refusal is final only once the proxy has sorted out what is at fault.
                    if convergence.published and not convergence.missing:
                        return convergence
        except TimeoutError:
            pass
        return self.convergence(revision)

    async def follow(self, revision: int) -> AsyncIterator[Convergence]:
        """The state now and after every change of it, for a progress bar. Never ends by itself."""
        while True:
            if self._changed is None:
                self._changed = asyncio.Event()
            changed = self._changed
            yield self.convergence(revision)
            await changed.wait()

    def rejections(self, since: int = -1) -> Iterator[Rejected]:
        """Resources that connected proxies refuse, from revision ``since`` on."""
        for connection in self.proxies.connections():
            for type_url, rejection in connection.stream.rejected():
                if rejection.revision < since:
                    continue
                yield Rejected(
                    connection.proxy,
                    SHORT.get(type_url, type_url),
                    rejection.resource.name,
                    rejection.error,
                    sources(rejection.resource),
                )

    def lagging_endpoints(self, sequence: int) -> tuple[str, ...]:
        """Proxies that have not acknowledged the endpoints of ``sequence`` (``ConfigStore.sequence``)."""
        return tuple(
            connection.proxy
            for connection in self.proxies.connections()
            if not connection.stream.has_endpoints(sequence)
        )

    async def wait_whole(self, sequence: int, timeout: float) -> bool:
        """Wait until every proxy has all that is published, endpoints as of ``sequence``; whether they do."""

        def whole() -> bool:
            streams = [connection.stream for connection in self.proxies.connections()]
            return all(stream.is_whole and stream.has_endpoints(sequence) for stream in streams)

        try:
            async with asyncio.timeout(timeout):
                while not whole():
                    await self._next_change()
        except TimeoutError:
            return whole()
        return True

    async def wait_endpoints(self, sequence: int, timeout: float) -> tuple[str, ...]:
        """Wait until every proxy acknowledged the endpoints of ``sequence``; who did not in time."""
        try:
            async with asyncio.timeout(timeout):
                while self.lagging_endpoints(sequence):
                    await self._next_change()
        except TimeoutError:
            return self.lagging_endpoints(sequence)
        return ()

    async def wait_endpoints_of(self, revision: int, timeout: float) -> tuple[str, ...]:
        """As ``wait_endpoints``, for the endpoints of a revision of configuration, once it is published."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        try:
            async with asyncio.timeout_at(deadline):
                while self._published < revision:
                    await self._next_change()
        except TimeoutError:
            return tuple(connection.proxy for connection in self.proxies.connections())
        return await self.wait_endpoints(self._sequence_of(revision), deadline - loop.time())

    def _sequence_of(self, revision: int) -> int:
        return min((sequence for at, sequence in self._sequences.items() if at >= revision), default=0)

    async def _next_change(self) -> None:
        if self._changed is None:
            self._changed = asyncio.Event()
        await self._changed.wait()

    def table(self, names: Iterable[Connection] | None = None) -> list[dict[str, Any]]:
        """One row a proxy, for ``weft proxy status`` and ``/debug/syncz``."""
        now = self._clock()
        return [
            self._row(connection, now)
            for connection in (self.proxies.connections() if names is None else names)
        ]

    def _row(self, connection: Connection, now: float) -> dict[str, Any]:
        identity = connection.peer.identity
        known = self._known.get(connection) or _ProxyStatus(now)
        types: dict[str, Any] = {}
        for url, short in SHORT.items():
            status = known.types.get(url, TypeStatus())
            types[short] = {
                "status": str(_phase(status, connection, url)),
                "sent": status.sent,
                "acknowledged": status.acknowledged,
                "sentAt": status.sent_at or None,
                "acknowledgedAt": status.acknowledged_at or None,
                "ageSeconds": round(now - status.acknowledged_at, 3) if status.acknowledged_at else None,
                "error": status.error or None,
            }
        return {
            "proxy": connection.proxy,
            "name": identity.name.name,
            "namespace": identity.name.namespace,
            "kind": identity.name.kind,
            "address": identity.name.address,
            "version": connection.peer.node.version,
            "revision": connection.stream.revision,
            "connectedAt": known.connected_at,
            "types": types,
            "rejected": [
                {"type": SHORT.get(url, url), "name": r.resource.name, "error": r.error,
                 "sources": list(sources(r.resource))}
                for url, r in connection.stream.rejected()
            ],
        }  # fmt: skip

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None


_SEQUENCES: Final = 1_000
_AWAITED: Final = 100


def sources(resource: object) -> tuple[str, ...]:
    """API paths of what a resource was made of, as far as its unit of ``ir`` says."""
    found: dict[str, None] = {}
    pending = [getattr(resource, "unit", None)]
    while pending:
        item = pending.pop()
        if item is None:
            continue
        source = item if isinstance(item, Source) else getattr(item, "source", None)
        path = getattr(source, "path", None)
        if isinstance(path, str):
            found[path] = None
        for part in ("made_of", "hosts", "virtual_hosts", "routes", "chains", "handler", "default_chain"):
            value = getattr(item, part, None)
            if isinstance(value, tuple):
                pending += value
            elif value is not None and not isinstance(value, str):
                pending.append(value)
    return tuple(found)


def _phase(status: TypeStatus, connection: Connection, type_url: str) -> Phase:
    """A proxy that came back with what it should have is in step, though it was sent nothing."""
    phase = status.phase()
    return Phase.SYNCED if phase is Phase.NOT_SENT and connection.stream.resumed(type_url) else phase
