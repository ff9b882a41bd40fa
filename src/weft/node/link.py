"""What a node needs of its control plane, in the words of the node. ``session`` is the real one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from weft.names import TELEMETRY_PORT
from weft.node.inquiry import Ask
from weft.start import ProxyStart

Instance = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where sidecars fetch their configuration, and which names its certificate may bear.

    ``telemetry_port``: where they send what they saw, of the same host.
    """

    host: str
    port: int
    names: tuple[str, ...] = ()
    telemetry_port: int = TELEMETRY_PORT


class Link(Protocol):
    """The session with the control plane, and the certificates that come over it."""

    @property
    def connected(self) -> bool:
        """Whether the session stands now; everything else works, or waits, without it."""

    @property
    def xds(self) -> Endpoint:
        """Where Envoys connect to."""

    @property
    def domain(self) -> str:
        """The cluster domain, as ``cluster.local``."""

    def on_names(self, call: Callable[[Mapping[str, tuple[str, ...]]], None]) -> None:
        """Call back with the whole table whenever it changes."""

    def on_admin(self, ask: Ask) -> None:
        """Let the control plane ask the Envoys of this node."""

    async def certify(
        self, namespace: str, service_account: str, directory: Path, owner: int | None, workload: str = ""
    ) -> datetime:
        """Write the SDS files for an identity into ``directory`` and keep them fresh; when they expire.

        ``workload``: the name of the instance that shows the certificate.

        Raises:
            WeftError: the control plane refused, or cannot be reached.
        """

    async def forget(self, directory: Path) -> None:
        """Stop renewing there."""

    def expiry(self, directory: Path) -> datetime | None:
        """When the certificate there expires, as far as is known."""

    async def register(self, instance: Instance) -> ProxyStart:
        """Make the instance known and hold its lease, over reconnects too; how its proxy is to be started.

        Raises:
            WeftError: refused, with the control plane's reason.
        """

    async def update(self, instance_id: str, *, ready: bool, message: str = "") -> None:
        """Say whether it may get traffic. Never fails: the last state is said again at a reconnect."""

    async def deregister(self, instance_id: str, *, patience_s: float) -> bool:
        """Take it out; True when every peer has acknowledged that, False when the time was over."""
