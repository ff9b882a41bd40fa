"""Limits of connections, as DestinationRule and Sidecar state them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from weft.model.base import Flaw, Shape
from weft.model.scalars import Bool, Count, OptionalDuration, PositiveDuration, UInt


class HTTP2KeepAlive(Shape):
    """Pings on idle HTTP/2 connections."""

    interval: PositiveDuration | None = None
    timeout: PositiveDuration | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Both are needed."""
        for name, value in (("interval", self.interval), ("timeout", self.timeout)):
            if value is None:
                yield Flaw((name,), f"{name} is missing", f"add {name}")


class HTTPSettings(Shape):
    """Limits for HTTP."""

    h2_upgrade_policy: Literal["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"] | None = None
    http1_max_pending_requests: Count | None = None
    """At most so many wait for a connection."""
    http2_keep_alive: HTTP2KeepAlive | None = None
    http2_max_requests: Count | None = None
    """At most so many at a time."""
    idle_timeout: PositiveDuration | None = None
    """When an idle connection is closed; 1h unless said otherwise."""
    max_concurrent_streams: Count | None = None
    max_requests_per_connection: Count | None = None
    max_retries: Count | None = None
    """At most so many retries at a time."""
    use_client_protocol: Bool | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Either HTTP/2 always, or what the client speaks."""
        if self.h2_upgrade_policy == "UPGRADE" and self.use_client_protocol:
            yield Flaw(("useClientProtocol",), "h2UpgradePolicy UPGRADE says otherwise", "keep one of them")


class TcpKeepalive(Shape):
    """Probes of the kernel on idle connections."""

    interval: PositiveDuration | None = None
    probes: UInt | None = None
    time: PositiveDuration | None = None


class TCPSettings(Shape):
    """Limits for all connections."""

    connect_timeout: PositiveDuration | None = None
    """How long connecting may take; 10s unless said otherwise."""
    idle_timeout: OptionalDuration | None = None
    max_connection_duration: PositiveDuration | None = None
    max_connections: Count | None = None
    """At most so many at a time, from each client."""
    tcp_keepalive: TcpKeepalive | None = None


class ConnectionPoolSettings(Shape):
    """Limits of the connections to a service."""

    http: HTTPSettings | None = None
    tcp: TCPSettings | None = None

    def flaws(self) -> Iterator[Flaw]:
        """It limits something."""
        if self.http is None and self.tcp is None:
            yield Flaw((), "the connection pool limits nothing", "add http or tcp")
