"""What a control plane is started with, and where it is reached then."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from weft.control.handover import OwnAuthority
from weft.control.registry import LEASE_S
from weft.identity.ca import WORKLOAD_LIFETIME
from weft.names import API_PORT, MONITORING_PORT, TELEMETRY_PORT, TRUST_DOMAIN, XDS_PORT
from weft.telemetry.limits import USUAL, Room


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlOptions:
    """``listen``: the address of the ports. ``advertise``: names and addresses that nodes dial, the first
    is what they are told; none means what they dialled. Port 0 takes a free one.
    """

    runtime: Path
    state: Path
    listen: str = "0.0.0.0"
    advertise: tuple[str, ...] = ()
    xds_port: int = XDS_PORT
    api_port: int = API_PORT
    monitoring_port: int = MONITORING_PORT
    telemetry_port: int = TELEMETRY_PORT
    telemetry_room: Room = USUAL
    trust_domain: str = TRUST_DOMAIN
    config: Path | None = None
    certificate_lifetime: timedelta = WORKLOAD_LIFETIME
    lease_s: float = LEASE_S
    own_authority: OwnAuthority | None = None


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the control plane is reached."""

    xds: str
    api: str
    monitoring: str
    socket: Path
    kubeconfig: Path


def now() -> datetime:
    """The time by which certificates, tokens and records are made and judged."""
    return datetime.now(UTC)


def dialled(host: str) -> str:
    """An address that reaches a socket bound to ``host`` from this machine."""
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)


def url_host(host: str) -> str:
    """A host as a URL has it: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host
