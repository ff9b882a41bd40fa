"""The control plane's end of a node's session (docs/reference/node-protocol.md)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from weft.control.inquiries import Inquiries
from weft.control.nametable import NameTable
from weft.control.registry import Registry, card_of
from weft.errors import WeftError
from weft.identity.nodes import Node
from weft.identity.server import Issuer, Refused
from weft.instance import Instance
from weft.names import CLUSTER_DOMAIN, TELEMETRY_PORT
from weft.spiffe import NodeId
from weft.start import ProxyStart

log = logging.getLogger(__name__)

Message = dict[str, Any]

_MESSAGE_MAX: Final = 8 * 1024 * 1024
_QUEUE_MAX: Final = 4096
_URL_MAX: Final = 256
# Close codes of the WebSocket: 4000 to 4999 are for applications (RFC 6455, 7.4.2).
CLOSE_UNREADABLE: Final = 4000
CLOSE_REPLACED: Final = 4001
CLOSE_REFUSED: Final = 4003
CLOSE_SILENT: Final = 4008


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """What nodes are told of the control plane. ``xds`` is ``host:port``, ``api`` a URL.

    ``telemetry_port`` is of the same host as ``xds``.
    """

    xds: str
    api: str
    domain: str = CLUSTER_DOMAIN
    telemetry_port: int = TELEMETRY_PORT


@dataclass(frozen=True, slots=True)
class Hub:
    """What all sessions share."""

    issuer: Issuer
    registry: Registry
    names: NameTable
    loaded: Callable[[str, Message], None]
    start: Callable[[Instance], Awaitable[ProxyStart]]


class Session:
    """One node's WebSocket. ``heard``: monotonic seconds of its last message. ``inquiries``: of Envoys."""

    def __init__(self, hub: Hub, node: Node, key: str, socket: WebSocket, addresses: Addresses) -> None:
        self.heard = time.monotonic()
        self._hub = hub
        self._registry = hub.registry
        self._addresses = addresses
        self._node = node
        self._key = key
        self._socket = socket
        self._queue: asyncio.Queue[Message] = asyncio.Queue(_QUEUE_MAX)
        self._closing = asyncio.Event()
        self._draining: set[asyncio.Task[None]] = set()
        self._close = (CLOSE_SILENT, "")
        self.inquiries = Inquiries(self.send)
        self.metrics = ""
        """Where the node shows series: a URL, as it said."""

    @property
    def near(self) -> bool:
        """Whether the node is on this very host."""
        client, server = self._socket.client, self._socket.scope.get("server")
        return client is not None and server is not None and client.host == server[0]

    def send(self, message: Message) -> None:
        """Queue a message. A node that takes none for so long is cut off: it comes back and gets it all."""
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            self._end(CLOSE_SILENT, "too many messages are waiting")

    async def close(self, code: int, reason: str) -> None:
        """End it; the node's instances keep their lease."""
        self._end(code, reason)

    def _end(self, code: int, reason: str) -> None:
        if not self._closing.is_set():
            self._close = (code, reason)
            self._closing.set()

    async def run(self) -> None:
        """Serve until the node goes, falls silent for a lease, or ``close``."""
        parts = [
            asyncio.create_task(part, name=f"node {self._node.name}")
            for part in (self._read(), self._write(), self._names(), self._closing.wait())
        ]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                if not part.cancelled() and (error := part.exception()) is not None:
                    raise error
        except (WebSocketDisconnect, ConnectionError):
            pass
        except Exception:
            log.exception("the session of node %s failed", self._node.name)
        finally:
            self.inquiries.close()
            for part in (*parts, *self._draining):
                part.cancel()
            await asyncio.gather(*parts, *self._draining, return_exceptions=True)
            with contextlib.suppress(Exception):  # it may be closed already
                await self._socket.close(*self._close)

    async def _read(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._registry.lease_s):
                    text = await self._socket.receive_text()
            except TimeoutError:
                return self._end(CLOSE_SILENT, f"nothing was heard for {self._registry.lease_s:g} s")
            self.heard = time.monotonic()
            try:
                if len(text) > _MESSAGE_MAX:
                    raise Refused("a message is at most 8 MiB", status=400)
                message = json.loads(text)
                if not isinstance(message, dict):
                    raise Refused("a message is a JSON object", status=400)
            except (ValueError, RecursionError, Refused) as error:
                return self._end(CLOSE_UNREADABLE, str(error)[:100])
            await self._handle(message)

    async def _handle(self, message: Message) -> None:
        about = str(message.get("id") or "")
        node, registry = self._node.name, self._registry
        try:
            match message.get("type"):
                case "hello":
                    await self._hello(message)
                case "register":
                    known = await registry.register(await self._known(), Instance.parse(message))
                    self._registered(known, await self._hub.start(known))
                case "update" if message.get("draining") is True:
                    self._drain(about)
                case "update":
                    said = str(message.get("message") or "")[:1024]
                    await registry.update(node, about, ready=message.get("ready") is True, message=said)
                case "deregister":
                    await registry.deregister(node, about)
                case "ping":
                    self.send({"type": "pong"})
                case "admin":
                    self.inquiries.hear(message)
                case "proxies":
                    self._hub.loaded(node, message)
                # Other types are a newer node's: it must do without an answer.
        except WeftError as error:
            self.send({"type": "refused", "id": about, "message": error.message, "hint": error.hint})

    async def _known(self) -> Node:
        """The node's record of now: its scope may have changed since the session began."""
        authority = self._hub.issuer.authority
        return await self._hub.issuer.known(NodeId(authority.trust_domain, self._node.name), self._key)

    async def _hello(self, message: Message) -> None:
        where = self._addresses
        authority = self._hub.issuer.authority
        self.send(
            {
                "type": "welcome",
                "lease": self._registry.lease_s,
                "trustDomain": authority.trust_domain,
                "domain": where.domain,
                "xds": where.xds,
                "telemetryPort": where.telemetry_port,
            }
        )
        self.send({"type": "bundle", **self._hub.issuer.trust.to_dict()})
        self.metrics = str(message.get("metrics") or "")[:_URL_MAX]
        workloads: list[Instance] = []
        for body in message.get("workloads") or []:
            try:
                workloads.append(Instance.parse(body))
            except WeftError as error:
                known = str(body.get("id") or "") if isinstance(body, dict) else ""
                self.send({"type": "refused", "id": known, "message": error.message, "hint": error.hint})
        gone = [str(instance_id) for instance_id in message.get("gone") or []]
        outcome = await self._registry.replay(await self._known(), workloads, gone)
        for instance_id, result in outcome.items():
            if isinstance(result, Refused):
                text = {"message": result.message, "hint": result.hint}
                self.send({"type": "refused", "id": instance_id, **text})
            else:
                self._registered(result)

    def _registered(self, instance: Instance, start: ProxyStart | None = None) -> None:
        said = {"start": start.to_dict()} if start is not None else {}
        self.send(
            {
                "type": "registered",
                "id": instance.id,
                "address": instance.address,
                "namespace": instance.namespace,
                "name": instance.name,
                "card": card_of(instance),
                **said,
            }
        )

    def _drain(self, instance_id: str) -> None:
        """Beside the reading: a peer that is slow to acknowledge must not keep the heartbeat waiting."""
        task = asyncio.create_task(self._drained(instance_id))
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)

    async def _drained(self, instance_id: str) -> None:
        try:
            whole = await self._registry.drain(self._node.name, instance_id)
        except Refused as refusal:
            text = {"message": refusal.message, "hint": refusal.hint}
            self.send({"type": "refused", "id": instance_id, **text})
        else:
            self.send({"type": "drained", "id": instance_id, "complete": whole})

    async def _write(self) -> None:
        while True:
            await self._socket.send_text(json.dumps(await self._queue.get(), separators=(",", ":")))

    async def _names(self) -> None:
        async for update in self._hub.names.follow():
            # Not queued: a slow node skips versions and gets the whole table, instead of every step.
            await self._socket.send_text(json.dumps(update.to_dict(), separators=(",", ":")))
