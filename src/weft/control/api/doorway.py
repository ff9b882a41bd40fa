"""Taking connections: so many at a time, so many of one address, and none that only stands there.

A stranger costs at most a handshake that is cut off after seconds; whoever holds many connections open
takes them from its own share. What is refused is closed without a word: nothing was read of it yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_log = logging.getLogger(__name__)

_BACKLOG: Final = 1024
_NO_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_BREATH_S: Final = 0.1
_IPV6_SITE: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one door. ``shaking``: connections whose TLS handshake is not done. Times are seconds.

    ``head``: until the whole head of a request is there, ``body``: its whole body; ``idle``: between two
    requests; ``stalled``: for a client that takes no bytes. ``head_bytes``: request line and headers.
    """

    connections: int = 4096
    per_address: int = 512
    shaking: int = 512
    shaking_per_address: int = 64
    handshake: float = 10.0
    head: float = 15.0
    body: float = 60.0
    idle: int = 75
    stalled: float = 60.0
    head_bytes: int = 64 * 1024


DEFAULT: Final = Limits()

Peer = object
"""One connection of a door; whoever serves it gives it back to ``Doorway.left`` when it ends."""


class Doorway:
    """Accepts on one listening socket until ``close``. ``left`` has to be called when a connection ends."""

    def __init__(
        self,
        door: socket.socket,
        protocol: Callable[[Peer], asyncio.Protocol],
        context: ssl.SSLContext | None,
        limits: Limits,
    ) -> None:
        self._door = door
        self._protocol = protocol
        self._context = context
        self._limits = limits
        self._open: Counter[str] = Counter()
        self._shaking: Counter[str] = Counter()
        self._owners: dict[Peer, str] = {}
        self._accepting: asyncio.Task[None] | None = None
        self._entering: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """How many are open, those included that are not through the handshake."""
        return self._open.total()

    def open(self) -> None:
        """Begin to accept."""
        self._door.listen(_BACKLOG)
        self._accepting = asyncio.get_running_loop().create_task(self._accept(), name="api: door")

    async def close(self) -> None:
        """Accept no more; connections that stand are not touched."""
        tasks = [*self._entering, *([self._accepting] if self._accepting else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._door.close()

    def left(self, peer: Peer) -> None:
        """A connection ended."""
        address = self._owners.pop(peer, None)
        if address is not None:
            self._release(self._open, address)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, name = await loop.sock_accept(self._door)
            except OSError as error:
                if error.errno in _NO_FILES:
                    _log.error("no connection can be taken: %s", error.strerror)
                # Somebody hung up before we answered; or there are no files left: others must end first.
                await asyncio.sleep(_BREATH_S if error.errno in _NO_FILES else 0)
                continue
            address = _address(connection, name)
            if not self._room(address):
                connection.close()
                continue
            self._open[address] += 1
            task = loop.create_task(self._enter(connection, address))
            self._entering.add(task)
            task.add_done_callback(self._entering.discard)

    def _room(self, address: str) -> bool:
        limits = self._limits
        if self._open.total() >= limits.connections:
            return False
        if not address:  # whoever may open the Unix socket is no stranger
            return True
        if self._open[address] >= limits.per_address:
            return False
        if self._context is None:
            return True
        return self._shaking.total() < limits.shaking and self._shaking[address] < limits.shaking_per_address

    async def _enter(self, connection: socket.socket, address: str) -> None:
        loop, limits = asyncio.get_running_loop(), self._limits
        peer: Peer = object()
        self._owners[peer] = address
        self._shaking[address] += 1
        try:
            connection.setblocking(False)
            if address:
                _keep_honest(connection, limits.stalled)
            await loop.connect_accepted_socket(
                lambda: self._protocol(peer), connection, ssl=self._context,
                ssl_handshake_timeout=limits.handshake if self._context is not None else None,
            )  # fmt: skip
        except BaseException as error:
            self.left(peer)
            with contextlib.suppress(OSError):
                connection.close()
            if not isinstance(error, OSError | ssl.SSLError | ConnectionError | TimeoutError):
                raise
        finally:
            self._release(self._shaking, address)

    @staticmethod
    def _release(counter: Counter[str], address: str) -> None:
        counter[address] -= 1
        if counter[address] <= 0:
            del counter[address]


def _keep_honest(connection: socket.socket, stalled: float) -> None:
    """The kernel drops a peer that vanished, or that takes no bytes."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(stalled * 1000))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def share_of(host: str) -> str:
    """Whose share an address belongs to; an IPv6 client has a whole network to choose from."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, _IPV6_SITE), strict=False))
    return str(address)


def _address(connection: socket.socket, name: object) -> str:
    """Whose share a connection is taken from; empty on a Unix socket."""
    if connection.family == socket.AF_UNIX or not isinstance(name, tuple):
        return ""
    return share_of(str(name[0]))
