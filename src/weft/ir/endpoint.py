"""Endpoints travel in a lane of their own: no view, no cluster holds those of an EDS cluster."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """What the registry knows; Envoy's own checks come on top. ``DRAINING`` gets no new requests."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Locality:
    """Where an endpoint runs (Istio: ``region/zone/subzone``); empty means unknown."""

    region: str = ""
    zone: str = ""
    subzone: str = ""


NOWHERE = Locality()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address. ``address`` is an IP, a host name (DNS discovery), or ``unix:///path`` with port 0.

    ``mesh_tls``: a sidecar answers there, so mTLS is spoken to it. Who it is goes into metadata:
    ``workload``, ``namespace``, ``service_account`` and labels are what telemetry reports. ``owner``: the
    namespace of its service, where several have a service of the host.
    """

    address: str
    port: int
    weight: int = 1
    health: Health = Health.HEALTHY
    locality: Locality = NOWHERE
    network: str = ""
    mesh_tls: bool = False
    workload: str = ""
    namespace: str = ""
    service_account: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    hostname: str = ""
    node: str = ""
    owner: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class NetworkGateway:
    """Where a network takes connections from others: mutual TLS, whose SNI says where it leads."""

    network: str
    address: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSet:
    """All endpoints of one EDS cluster, in a stable order, and the ways to networks of which some may be."""

    cluster: str
    endpoints: tuple[Endpoint, ...]
    gateways: tuple[NetworkGateway, ...] = ()
