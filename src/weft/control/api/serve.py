"""The API's doors: HTTPS with an optional client certificate, and a Unix socket. One application behind both.

Which certificate or which user is at the other end is put where the application finds it:
``scope["extensions"]["tls"]["client_cert"]`` (DER, verified) and ``scope["extensions"]["weft.peer"]``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import h11
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState

from weft.control.api.doorway import DEFAULT, Doorway, Limits, Peer
from weft.control.api.subject import PEER, UnixPeer
from weft.errors import WeftError

_GRACE_SECONDS: Final = 2
# A session's largest message (docs/reference/node-protocol.md), and what may wait to be read by a peer.
_MESSAGE_MAX: Final = 8 << 20
_UNREAD_MAX: Final = 16 << 20
_PEERCRED: Final = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Serving:
    """Where the API listens now."""

    host: str | None
    port: int | None
    socket_path: Path | None


def _extensions(transport: asyncio.BaseTransport) -> Mapping[str, Any]:
    if (tls := transport.get_extra_info("ssl_object")) is not None:
        return {"tls": {"client_cert": tls.getpeercert(binary_form=True), "tls_version": tls.version()}}
    found = transport.get_extra_info("socket")
    if found is not None and found.family == socket.AF_UNIX:
        raw = found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
        return {PEER: UnixPeer(*_PEERCRED.unpack(raw))}
    return {}


def _with_extensions(app: Any, extensions: Mapping[str, Any]) -> Any:
    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"] = {**(scope.get("extensions") or {}), **extensions}
        await app(scope, receive, send)

    return wrapped


class _Http(H11Protocol):
    """uvicorn's, with an end to what comes too slowly."""

    doorway: Doorway
    limits: Limits
    peer: Peer = None
    _phase = ""
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app = _with_extensions(self.app, _extensions(transport))
        self._enter("head")

    def connection_lost(self, exc: Exception | None) -> None:
        self._enter("")
        self.doorway.left(self.peer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            self._enter("body")
        elif state is h11.IDLE:
            # Bytes that are no whole head yet: the clock goes on from the first of them.
            self._enter("head")
        else:
            self._enter("")

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._enter("")
        super().handle_websocket_upgrade(event)
        successor = self.transport.get_protocol()
        if isinstance(successor, _WebSocket):
            successor.peer = self.peer

    def _enter(self, phase: str) -> None:
        """What is waited for has its own time, however often a byte of it comes."""
        if phase == self._phase:
            return
        self._phase = phase
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if phase:
            limit = self.limits.head if phase == "head" else self.limits.body
            self._timer = self.loop.call_later(limit, self.transport.abort)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE:
            # Without a byte of the next request uvicorn's own clock runs.
            self._enter("head" if self.conn.trailing_data[0] else "")


class _WebSocket(WebSocketsSansIOProtocol):
    doorway: Doorway
    peer: Peer = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.app = _with_extensions(self.app, _extensions(transport))

    def connection_lost(self, exc: Exception | None) -> None:
        self.doorway.left(self.peer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Pongs are written whether or not the other end reads them.
        if self.transport.get_write_buffer_size() > _UNREAD_MAX:
            self.transport.abort()

    def shutdown(self) -> None:
        try:
            super().shutdown()
        except InvalidState:  # the other end has said goodbye already
            self.transport.close()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the process, not to one of its servers."""
        yield


@asynccontextmanager
async def serve_api(
    app: ASGIApp, *, host: str | None = None, port: int = 0,
    ssl_context_factory: Callable[[], ssl.SSLContext] | None = None, socket_path: Path | None = None,
    stop: asyncio.Event, limits: Limits = DEFAULT,
) -> AsyncIterator[Serving]:  # fmt: skip
    """Serve over HTTPS (``host``, port 0 for a free one) and on ``socket_path`` (0600) inside the block.

    ``stop`` is the event that the application ends its watches on; it is set on the way out.

    Raises:
        WeftError: when an address or the socket's path is taken or not allowed.
    """
    with contextlib.ExitStack() as sockets:
        doors: list[tuple[socket.socket, Callable[[], ssl.SSLContext] | None]] = []
        if host is not None:
            if ssl_context_factory is None:
                raise ValueError("an address needs TLS: give ssl_context_factory")
            tcp = sockets.enter_context(_bind_tcp(host, port))
            port = tcp.getsockname()[1]
            doors.append((tcp, ssl_context_factory))
        if socket_path is not None:
            doors.append((sockets.enter_context(_bind_unix(socket_path)), None))
            sockets.callback(socket_path.unlink, missing_ok=True)
        servers = [_server(app, door, factory, limits) for door, factory in doors]
        ticking: list[asyncio.Task[None]] = []
        try:
            for server, doorway in servers:
                await server.on_tick(0)
                doorway.open()
                ticking.append(asyncio.create_task(server.main_loop(), name="api: clock"))
            yield Serving(host, port if host is not None else None, socket_path)
        finally:
            stop.set()
            for task in ticking:
                task.cancel()
            await asyncio.gather(*ticking, return_exceptions=True)
            await asyncio.gather(*(doorway.close() for _, doorway in servers))
            await asyncio.gather(*(server.shutdown() for server, _ in servers))


def _server(
    app: ASGIApp, door: socket.socket, factory: Callable[[], ssl.SSLContext] | None, limits: Limits
) -> tuple[_Server, Doorway]:
    """uvicorn behind a doorway of our own."""
    http = type("_Http", (_Http,), {"limits": limits})
    web_socket = type("_WebSocket", (_WebSocket,), {})
    config = uvicorn.Config(
        cast(Any, app),
        http=http,
        ws=web_socket,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        timeout_keep_alive=limits.idle,
        h11_max_incomplete_event_size=limits.head_bytes,
        ws_max_size=_MESSAGE_MAX,
        ws_per_message_deflate=False,
    )
    config.load()
    server = _Server(config)
    server.lifespan = config.lifespan_class(config)
    server.servers = []
    server.started = True

    def protocol(peer: Peer) -> asyncio.Protocol:
        made: _Http = http(config=config, server_state=server.server_state, app_state={})
        made.peer = peer
        return made

    doorway = Doorway(door, protocol, factory() if factory is not None else None, limits)
    http.doorway = web_socket.doorway = doorway  # type: ignore[attr-defined]
    return server, doorway


def _bind_tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise WeftError(
            f"the API cannot listen on {host}:{port}: {error.strerror}",
            hint="stop what uses that port, or choose another one",
        ) from error
    return bound


def _bind_unix(path: Path) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
            # A socket file that nobody answers on was left by a crash.
            if path.is_socket() and probe.connect_ex(str(path)) != 0:
                path.unlink(missing_ok=True)
        # Nobody may connect between bind and chmod: what is not listening refuses.
        bound.bind(str(path))
        path.chmod(0o600)
        os.set_inheritable(bound.fileno(), False)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise WeftError(
            f"the API cannot listen on {path}: {error.strerror or error}",
            hint="stop the control plane that uses it, or choose another directory",
        ) from error
    return bound
