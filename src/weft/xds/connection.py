"""One proxy's stream: bytes in, bytes out, and what became of them told to an observer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from google.protobuf.json_format import Error as JsonError
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from weft.ir.endpoint import NOWHERE, Locality
from weft.ir.proxy import ProxyIdentity
from weft.names import local_endpoints
from weft.protos import discovery_v3
from weft.xds.messages import Acknowledged, ProtocolError, Refused, Request
from weft.xds.protocol import Stream
from weft.xds.shared import Response, Shared
from weft.xds.store import ConfigStore

_log = logging.getLogger(__name__)

# A proxy that takes no bytes for this long is gone or broken; its stream ends and it may come back.
WRITE_SECONDS: Final = 30.0
# Envoy itself stops waiting for the endpoints of a warming cluster after 15 s (initial_fetch_timeout).
WARMING_SECONDS: Final = 15.0
_DUMPED: Final = "goo.gle/debug"


@dataclass(frozen=True, slots=True)
class Node:
    """What a proxy says of itself in its first request. ``metadata`` as in its bootstrap."""

    id: str
    cluster: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    locality: Locality = NOWHERE
    version: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a proxy is not served; it is told. ``transient``: that may be over in a moment."""

    message: str
    transient: bool = False


@dataclass(frozen=True, slots=True)
class Peer:
    """A proxy that was let in. ``id``: its node id; ``serial`` (hexadecimal): of its certificate."""

    id: str
    node: Node
    identity: ProxyIdentity
    serial: str = ""


Authorize = Callable[[Node, str | None], ProxyIdentity | Refusal]
"""Decides by the node and the SPIFFE ID of its certificate."""


class Observer(Protocol):
    """Hears what happens on streams; called on the event loop, must return at once."""

    def connected(self, connection: Connection) -> None:
        """A proxy was let in; its requests are not answered before something is published for it."""

    def sent(self, connection: Connection, response: Response) -> None:
        """A response is being written."""

    def acknowledged(self, connection: Connection, event: Acknowledged) -> None:
        """The proxy took a response."""

    def refused(self, connection: Connection, event: Refused) -> None:
        """The proxy refused a response."""

    def progressed(self, connection: Connection) -> None:
        """``connection.stream`` holds a newer revision, or newer endpoints, than before."""

    def disconnected(self, connection: Connection) -> None:
        """The stream ended."""


class Transport(Protocol):
    """A stream of messages in both directions. The narrow part that another transport has to fill."""

    async def read(self) -> bytes | None:
        """The next message; None when the proxy is done.

        Raises:
            ConnectionError: when the stream broke.
        """

    async def write(self, message: bytes) -> None:
        """Send; returns when the transport can take more.

        Raises:
            ConnectionError: when the stream broke.
        """


class StreamError(Exception):
    """The server ends a stream. ``reason``: ``invalid``, ``denied``, ``slow``, ``failed``,
    ``replaced`` or ``stopping``."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Connection:
    """Serves one stream; the ``Watcher`` of the store."""

    __slots__ = (
        "_end",
        "_flushing",
        "_observer",
        "_revision",
        "_store",
        "_task",
        "_timer",
        "_transport",
        "peer",
        "stream",
    )

    def __init__(
        self, transport: Transport, peer: Peer, shared: Shared, store: ConfigStore, observer: Observer
    ) -> None:
        self.peer = peer
        name = peer.identity.name
        self.stream = Stream(shared, local_endpoints(name.namespace, name.name))
        self._transport = transport
        self._store = store
        self._observer = observer
        self._task: asyncio.Task[Any] | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._end: StreamError | None = None
        self._revision = -1

    @property
    def proxy(self) -> str:
        """The proxy's id."""
        return self.peer.id

    async def serve(self, first: discovery_v3.DeltaDiscoveryRequest) -> None:
        """Serve until the proxy is done.

        Raises:
            StreamError: when the proxy broke the protocol, takes no bytes, or ``end`` was called.
            ConnectionError: when the stream broke.
        """
        self._task = asyncio.current_task()
        self._store.attach(self)
        self._observer.connected(self)
        try:
            self._receive(first)
            while (message := await self._transport.read()) is not None:
                self._receive(parse(message))
        except asyncio.CancelledError:
            if self._end is None or self._task is None:
                raise
            self._task.uncancel()
            raise self._end from None
        finally:
            self._task = None
            self._store.detach(self)
            for pending in (self._flushing, self._timer):
                if pending is not None:
                    pending.cancel()
            self._observer.disconnected(self)

    def end(self, reason: str, message: str) -> None:
        """End the stream from this side. Nothing that is not on its way is sent any more."""
        if self._task is not None and self._end is None:
            self._end = StreamError(reason, message)
            self._task.cancel()

    def wake(self) -> None:
        """Send whatever is due. Returns at once; what has to wait for the transport goes on in a task."""
        if self._flushing is None and self._task is not None and self._end is None:
            response = self._next()
            if response is None:
                self._rest()
            else:
                self._flushing = asyncio.get_running_loop().create_task(self._flush(response.payload))

    def _receive(self, message: discovery_v3.DeltaDiscoveryRequest) -> None:
        try:
            event = self.stream.receive(request(message))
        except ProtocolError as error:
            raise StreamError("invalid", str(error)) from None
        if isinstance(event, Acknowledged):
            self._observer.acknowledged(self, event)
        elif isinstance(event, Refused):
            self._observer.refused(self, event)
        self.wake()

    def _next(self) -> Response | None:
        """What the protocol wants sent. A fault in it concerns this stream only."""
        try:
            response = self.stream.send()
            if response is not None:
                self._observer.sent(self, response)
        except Exception:
            # Better a stream that starts anew than one that is silent for ever.
            _log.exception("cannot serve %s", self.proxy)
            self.end("failed", "the control plane failed to serve this stream")
            return None
        return response

    async def _flush(self, payload: bytes) -> None:
        """Write, as long as there is something; only the bytes in flight are held."""
        try:
            while True:
                async with asyncio.timeout(WRITE_SECONDS):
                    await self._transport.write(payload)
                response = self._next() if self._end is None else None
                if response is None:
                    break
                payload = response.payload
                del response
        except TimeoutError:
            self.end("slow", f"the proxy took no bytes for {WRITE_SECONDS:g} s")
        except ConnectionError:
            return  # the reader meets the same and ends the stream
        finally:
            self._flushing = None
        self._rest()

    def _rest(self) -> None:
        """Nothing is left to send."""
        self._watch_warming()
        if self.stream.revision != self._revision or not self.stream.open_types():
            self._revision = self.stream.revision
            self._observer.progressed(self)

    def _watch_warming(self) -> None:
        if not self.stream.waits():
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WARMING_SECONDS, self._hurry)

    def _hurry(self) -> None:
        self._timer = None
        self.stream.hurry()
        self.wake()


def parse(message: bytes) -> discovery_v3.DeltaDiscoveryRequest:
    """A request out of its bytes.

    Raises:
        StreamError: when they are none.
    """
    try:
        return discovery_v3.DeltaDiscoveryRequest.FromString(message)
    except DecodeError:
        raise StreamError("invalid", "the message is no DeltaDiscoveryRequest") from None


def brief(error: str) -> str:
    """Envoy's words without the whole message that it prints between them."""
    head, _, rest = error.partition(_DUMPED)
    _, found, tail = rest.rpartition("\n: ")
    return (f"{head.rstrip(' :')}: {tail}" if found else error).strip()


def request(message: discovery_v3.DeltaDiscoveryRequest) -> Request:
    """A request in the protocol's own terms."""
    return Request(
        type_url=message.type_url,
        subscribe=tuple(message.resource_names_subscribe),
        unsubscribe=tuple(message.resource_names_unsubscribe),
        initial_versions=dict(message.initial_resource_versions),
        nonce=message.response_nonce,
        error=brief(message.error_detail.message) if message.HasField("error_detail") else None,
    )


def node(message: discovery_v3.DeltaDiscoveryRequest) -> Node:
    """What the proxy says of itself.

    Raises:
        StreamError: when its metadata holds what JSON has no word for, as NaN.
    """
    told = message.node
    build = told.user_agent_build_version.version
    try:
        metadata = MessageToDict(told.metadata)
    except (ValueError, JsonError) as error:
        raise StreamError("invalid", f"the metadata cannot be read: {error}") from None
    return Node(
        id=told.id,
        cluster=told.cluster,
        metadata=metadata,
        locality=Locality(
            region=told.locality.region, zone=told.locality.zone, subzone=told.locality.sub_zone
        ),
        version=f"{build.major_number}.{build.minor_number}.{build.patch}",
    )
