"""Services and the workloads behind them, whatever resource declared them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from weft.compile.nearness import Nearness
from weft.compile.protocol import Protocol
from weft.ir import Health, Locality, SessionIn, SessionPersistence
from weft.ir.endpoint import NOWHERE
from weft.model.resource import Key

Labels = tuple[tuple[str, str], ...]

# Istio's: a cookie as NAME or NAME:PATH, or a header; both are labels of the resource.
SESSION_COOKIE: Final = "istio.io/persistent-session"
SESSION_HEADER: Final = "istio.io/persistent-session-header"


class Resolution(StrEnum):
    """How endpoints are found. ``ENDPOINTS``: the registry knows them. ``ALIAS``: another name of a host.

    ``NAMED``: a wildcard, of which the name that a client says is looked up.
    """

    ENDPOINTS = "endpoints"
    DNS = "dns"
    DNS_ROUND_ROBIN = "dns_round_robin"
    PASSTHROUGH = "passthrough"
    NAMED = "named"
    ALIAS = "alias"


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """``target`` is a number, a name of the workload's port, or None: the same number."""

    number: int
    name: str
    protocol: Protocol
    target: int | str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One running workload. ``mesh`` says that a sidecar takes its connections over mTLS.

    ``serves``: the only ports of its service that lead there; empty: all of them.
    """

    name: str
    namespace: str
    address: str
    ports: tuple[tuple[str, int], ...] = ()
    labels: Labels = ()
    account: str = ""
    weight: int = 1
    locality: Locality = NOWHERE
    network: str = ""
    mesh: bool = False
    health: Health = Health.HEALTHY
    hostname: str = ""
    node: str = ""
    serves: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A destination with a host name.

    ``addresses`` are IPs or CIDRs; the first IP is where its listeners are. ``selector`` None means
    that no workload is selected: ``endpoints`` hold what the resource itself lists (Kubernetes
    Services without a selector take EndpointSlices). ``accounts`` are SANs that the resource states.
    ``created`` orders conflicts: the oldest wins. ``nearness``: which endpoints it wants clients to prefer;
    ``same_node``: it has none but those beside the client; ``sticky``: each client keeps its endpoint;
    ``unready_too``: workloads count before they are ready. ``external_addresses`` are dialled, but not what
    its name resolves to. ``session``: requests of one session stay at an endpoint, even while it drains.
    ``races``: of the addresses in DNS the first that answers is taken.
    ``contested``: other namespaces have a service of this host too; a client means one of them.
    """

    host: str
    name: str
    namespace: str
    ports: tuple[Port, ...]
    resolution: Resolution
    addresses: tuple[str, ...] = ()
    external: bool = False
    kubernetes: bool = False
    headless: bool = False
    selector: Labels | None = None
    endpoints: tuple[Instance, ...] = ()
    accounts: tuple[str, ...] = ()
    alias_of: str = ""
    nearness: Nearness | None = None
    same_node: bool = False
    sticky: bool = False
    unready_too: bool = False
    external_addresses: tuple[str, ...] = ()
    session: SessionPersistence | None = None
    races: bool = False
    export_to: tuple[str, ...] = ("*",)
    created: str = ""
    contested: bool = False
    source: Key

    def port(self, number: int, *, udp: bool = False) -> Port | None:
        """The port with this number; of two, for TCP and UDP, the one that is asked for."""
        found = [port for port in self.ports if port.number == number]
        return next(
            (port for port in found if (port.protocol is Protocol.UDP) is udp), found[0] if found else None
        )

    @property
    def address(self) -> str:
        """Where clients connect to: an IP, a CIDR, or ``0.0.0.0`` when only the port tells."""
        return self.addresses[0] if self.addresses else "0.0.0.0"

    @property
    def order(self) -> tuple[str, str, str]:
        """Sort key of conflicts: oldest first, then by name."""
        return (self.created or "9", self.name, self.namespace)


def reachable(service: Service, port: Port) -> bool:
    """Whether connections to a port can be sent on: of a wildcard only those that say a name."""
    if port.protocol is Protocol.UDP:
        return False
    return service.resolution is not Resolution.NAMED or port.protocol.is_http or port.protocol.is_tls


def target_port(port: Port, instance: Instance) -> int | None:
    """The number at which ``instance`` serves ``port``; None when its name is unknown there.

    A named target is the workload's port of that name. Otherwise the workload's port that bears the
    service port's name wins, then the number (Istio's rule for WorkloadEntry).
    """
    if isinstance(port.target, str):
        return next((number for name, number in instance.ports if name == port.target), None)
    named = next((number for name, number in instance.ports if name == port.name), None)
    return named or port.target or port.number


def session_of(labels: Mapping[str, str] | None) -> SessionPersistence | None:
    """The sessions that a resource asks for. The cookie lasts as long as the client's own session."""
    labels = labels or {}
    if cookie := labels.get(SESSION_COOKIE):
        name, found, path = cookie.partition(":")
        return SessionPersistence(name=name, path=path if found else "/")
    if header := labels.get(SESSION_HEADER):
        return SessionPersistence(name=header, place=SessionIn.HEADER)
    return None
