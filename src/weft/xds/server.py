"""The gRPC port that proxies connect to. A client certificate is required; bytes are passed on as they are.

Everything that is gRPC's is in here: another transport needs another file like this one, and no more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import grpc.aio

from weft.errors import WeftError
from weft.grpc_tls import Certificates, peer_serial, server_credentials, spiffe_id
from weft.ir.proxy import ProxyIdentity
from weft.xds.connection import Authorize, Connection, Node, Observer, Peer, Refusal, StreamError, node, parse
from weft.xds.shared import Shared
from weft.xds.store import ConfigStore

_log = logging.getLogger(__name__)

_METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
_MAX_MESSAGE: Final = 16 * 1024 * 1024
_FIRST_REQUEST_SECONDS: Final = 15.0
_PATIENCE_SECONDS: Final = 2.0
_ASK_AGAIN_SECONDS: Final = 0.02
_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    ("grpc.max_send_message_length", -1),
    # A proxy has one stream for configuration and a few calls for telemetry.
    ("grpc.max_concurrent_streams", 32),
    ("grpc.max_metadata_size", 16 * 1024),
    # Who connects and says nothing is cut off, before the handshake and after it.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 120_000),
    # A mesh that comes back all at once must not be turned away: the defaults reset streams at 2,000.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 200_000),
    # A host that vanished is noticed within 40 s; proxies may ask as often.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)
_CODES: Final = {
    "invalid": grpc.StatusCode.INVALID_ARGUMENT,
    "denied": grpc.StatusCode.PERMISSION_DENIED,
    "slow": grpc.StatusCode.DEADLINE_EXCEEDED,
    "failed": grpc.StatusCode.INTERNAL,
    "stopping": grpc.StatusCode.UNAVAILABLE,
    "replaced": grpc.StatusCode.ALREADY_EXISTS,
}


Revoked = Callable[[str], bool]
"""Whether the client certificate of this serial number (hexadecimal) is worth nothing any more."""


class _GrpcTransport:
    """A ``Transport`` over a call of grpc.aio."""

    __slots__ = ("_context",)

    def __init__(self, context: Any) -> None:
        self._context = context

    async def read(self) -> bytes | None:
        try:
            message = await self._context.read()
        except (grpc.RpcError, grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            raise ConnectionError(str(error)) from None
        return None if message is grpc.aio.EOF else message

    async def write(self, message: bytes) -> None:
        try:
            await self._context.write(message)
        except (grpc.RpcError, grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            raise ConnectionError(str(error)) from None


class _Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(
        self,
        store: ConfigStore,
        observer: Observer,
        authorize: Authorize,
        revoked: Revoked,
    ) -> None:
        self._store = store
        self._observer = observer
        self._authorize = authorize
        self._revoked = revoked
        self._shared = Shared()
        self._connections: dict[str, Connection] = {}
        self._stopping = False
        self._methods = {_METHOD: grpc.stream_stream_rpc_method_handler(self._stream)}

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a method, or None for a method that is not served."""
        return self._methods.get(handler_call_details.method)

    async def _stream(self, _requests: object, context: Any) -> None:
        try:
            await self._serve(context)
        except StreamError as end:
            await context.abort(_CODES[end.reason], end.message)
        except ConnectionError as error:
            _log.debug("stream broke: %s", error)

    async def _serve(self, context: Any) -> None:
        transport = _GrpcTransport(context)
        try:
            async with asyncio.timeout(_FIRST_REQUEST_SECONDS):
                message = await transport.read()
        except TimeoutError:
            raise StreamError("slow", "no request came") from None
        if message is None:
            return
        first = parse(message)
        del message
        about = node(first)
        serial = peer_serial(context)
        verdict = (
            Refusal("the certificate of this proxy was revoked")
            if self._revoked(serial)
            else await self._admit(about, spiffe_id(context))
        )
        if isinstance(verdict, Refusal):
            _log.warning("refused %r: %s", about.id, verdict.message)
            raise StreamError("denied", verdict.message)
        if self._stopping:
            raise StreamError("stopping", "the control plane is stopping")
        peer = Peer(about.id, about, verdict, serial)
        connection = Connection(transport, peer, self._shared, self._store, self._observer)
        if (old := self._connections.get(about.id)) is not None:
            # A proxy that lost its connection is back before this end knows; one of two is told to go.
            _log.warning("%s: another stream of this proxy has come, from %s", about.id, context.peer())
            old.end("replaced", "another stream of this proxy has come")
        self._connections[about.id] = connection
        try:
            await connection.serve(first)
        finally:
            if self._connections.get(about.id) is connection:
                del self._connections[about.id]

    async def _admit(self, about: Node, spiffe: str | None) -> ProxyIdentity | Refusal:
        """The verdict. A workload that was registered a moment ago may not be known here yet."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE_SECONDS
        while True:
            verdict = self._authorize(about, spiffe)
            if not (isinstance(verdict, Refusal) and verdict.transient) or loop.time() >= deadline:
                return verdict
            await asyncio.sleep(_ASK_AGAIN_SECONDS)

    def stop(self) -> None:
        """Send every proxy away; each comes back to whoever serves next, and keeps what it has till then."""
        self._stopping = True
        for connection in tuple(self._connections.values()):
            connection.end("stopping", "the control plane is stopping")


@asynccontextmanager
async def serve(
    address: str,
    certificates: Callable[[], Certificates],
    store: ConfigStore,
    observer: Observer,
    authorize: Authorize,
    *,
    revoked: Revoked = lambda serial: False,
    grace: float = 2.0,
) -> AsyncIterator[int]:
    """Serve on ``address`` (``host:port``, port 0 for any); gives the port. Leaving ends every stream.

    ``certificates`` is called at each handshake, from another thread. A client whose certificate is
    ``revoked`` is refused; streams that stand are the caller's to end.

    Raises:
        WeftError: when the address cannot be bound.
    """
    server = grpc.aio.server(options=_OPTIONS)
    service = _Service(store, observer, authorize, revoked)
    server.add_generic_rpc_handlers((service,))
    try:
        port = server.add_secure_port(address, server_credentials(certificates))
    except RuntimeError as error:
        raise WeftError(
            f"cannot listen on {address}", hint="is another control plane running? choose another port"
        ) from error
    await server.start()
    try:
        yield port
    finally:
        service.stop()
        await server.stop(grace)


__all__ = ["Certificates", "Node", "Refusal", "serve", "spiffe_id"]
