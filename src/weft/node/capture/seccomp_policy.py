"""Where a captured application's connects and binds go. Pure: addresses in, a decision out.

| the application calls | what happens |
|---|---|
| ``bind`` to a wildcard, loopback or its own advertised address | the same port at ``app_address`` |
| ``bind`` to port 0, to another address of the host | as it says |
| ``bind`` for UDP, at a declared port of a workload that only this host reaches | at ``advertised`` |
| ``connect`` to loopback or its own address, at a port it bound itself | ``app_address``: its own door |
| ``connect`` to 127.0.0.0/16, ::1 otherwise | as it says: databases and tools of this host |
| ``connect`` to another workload's ``app_address`` | refused: that way would go around its sidecar |
| ``connect`` to anything else | the sidecar, which is told the original destination |
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection
from typing import Final, NamedTuple

from weft.node.capture.loopback import APPLICATIONS

_MAPPED: Final = b"\0" * 10 + b"\xff\xff"
_LOOPBACK6: Final = b"\0" * 15 + b"\1"
_PORT_AND_V4: Final = struct.Struct("!H4s")
_V6_AT: Final = 8

_PROXY_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_PROXY_V2: Final = 0x21
_TCP4, _TCP6 = 0x11, 0x21


class Address(NamedTuple):
    """An address of a socket call. ``ip`` has 4 bytes, also for IPv4 in IPv6 (``::ffff:…``), or 16."""

    ip: bytes
    port: int

    @property
    def wildcard(self) -> bool:
        """``0.0.0.0`` or ``::``."""
        return not any(self.ip)

    @property
    def host(self) -> bool:
        """One that means this host in any program: ``localhost`` and its neighbours, or a wildcard."""
        return self.wildcard or self.ip == _LOOPBACK6 or self.ip[:2] == b"\x7f\0"


class Steer(NamedTuple):
    """Connect to ``to`` instead; ``header`` goes first when it is the sidecar."""

    to: tuple[str, int]
    announce: bool


def parse(sockaddr: bytes) -> Address | None:
    """A ``struct sockaddr`` of IPv4 or IPv6; None for every other family or one that is too short."""
    if len(sockaddr) < 2:
        return None
    (family,) = struct.unpack_from("=H", sockaddr)
    if family == socket.AF_INET and len(sockaddr) >= 8:
        port, ip = _PORT_AND_V4.unpack_from(sockaddr, 2)
        return Address(ip, port)
    if family == socket.AF_INET6 and len(sockaddr) >= 24:
        (port,) = struct.unpack_from("!H", sockaddr, 2)
        ip = sockaddr[_V6_AT : _V6_AT + 16]
        return Address(ip[12:] if ip.startswith(_MAPPED) else ip, port)
    return None


def proxy_header(source: tuple[str, int], destination: Address) -> bytes:
    """PROXY protocol version 2, TCP (haproxy.org, proxy-protocol.txt 2.2).

    ``source`` is an IPv4 address; for an IPv6 destination it is given as ``::ffff:…``, since both ends must
    be of one family.
    """
    ip = socket.inet_aton(source[0])
    wide = len(destination.ip) == 16
    body = (_MAPPED + ip if wide else ip) + destination.ip + struct.pack("!HH", source[1], destination.port)
    return _PROXY_SIGNATURE + struct.pack("!BBH", _PROXY_V2, _TCP6 if wide else _TCP4, len(body)) + body


class Policy:
    """The rules of one application; it learns the ports that are bound.

    ``advertised`` is where peers reach the workload: its sidecar listens there. ``outbound`` is the sidecar's
    port for captured connections; ``declared`` are the ports that the workload says it has.
    """

    def __init__(
        self,
        *,
        app_address: str,
        advertised: str,
        outbound: tuple[str, int],
        declared: Collection[int] = (),
    ) -> None:
        self.app_address = app_address
        self.advertised = advertised
        self.outbound = outbound
        family = socket.AF_INET6 if ":" in advertised else socket.AF_INET
        self._app = socket.inet_aton(app_address)
        self._advertised = socket.inet_pton(family, advertised)
        self._declared = frozenset(declared)
        self._ports: set[int] = set()

    def connect(self, to: Address) -> Steer | int | None:
        """A way, None (as it says), or the errno to fail with."""
        own = to.host or to.ip == self._advertised
        if own and to.port in self._ports:
            return Steer((self.app_address, to.port), announce=False)
        if to.host or to.ip == self._app:
            return None
        if len(to.ip) == 4 and to.ip[0] == 127 and to.ip[1] in APPLICATIONS:
            return errno.ECONNREFUSED  # as if nobody listened
        return Steer(self.outbound, announce=True)

    def bind(self, to: Address) -> tuple[str, int] | None:
        """Where to bind instead, or None (as it says)."""
        if to.port and (to.host or to.ip == self._advertised):
            return self.app_address, to.port
        return None

    def bind_datagrams(self, to: Address) -> tuple[str, int] | None:
        """The same for a socket of UDP, which no sidecar stands before: peers call it where it is advertised.

        A socket of all addresses answers a peer on loopback from 127.0.0.1, whom the peer did not ask.
        """
        if to.host and to.port in self._declared and self.advertised.startswith("127."):
            return self.advertised, to.port
        return None

    def bound(self, port: int) -> None:
        """The application listens at this port of its own address now."""
        self._ports.add(port)
