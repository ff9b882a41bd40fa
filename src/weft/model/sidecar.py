"""Sidecar."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from weft.model.base import Shape
from weft.model.connection_pool import ConnectionPoolSettings
from weft.model.istio import Destination, IstioStatus, WorkloadSelector
from weft.model.resource import Resource
from weft.model.scalars import Text, UInt
from weft.model.server_tls import ServerTLSSettings


class SidecarPort(Shape):
    """A port that a sidecar listens on."""

    name: Text | None = None
    number: UInt | None = None
    protocol: Text | None = None
    target_port: UInt | None = None


class IstioEgressListener(Shape):
    """What the workload may call."""

    bind: Text | None = None
    capture_mode: Literal["DEFAULT", "IPTABLES", "NONE"] | None = None
    hosts: tuple[Text, ...]
    port: SidecarPort | None = None


class IstioIngressListener(Shape):
    """How the workload is called."""

    bind: Text | None = None
    capture_mode: Literal["DEFAULT", "IPTABLES", "NONE"] | None = None
    connection_pool: ConnectionPoolSettings | None = None
    default_endpoint: Text | None = None
    port: SidecarPort
    tls: ServerTLSSettings | None = None


class OutboundTrafficPolicy(Shape):
    """What becomes of calls to services that the mesh does not know."""

    egress_proxy: Destination | None = None
    mode: Literal["REGISTRY_ONLY", "ALLOW_ANY"] | None = None


class SidecarSpec(Shape):
    """What the sidecars of some workloads receive and see."""

    egress: tuple[IstioEgressListener, ...] | None = None
    inbound_connection_pool: ConnectionPoolSettings | None = None
    ingress: tuple[IstioIngressListener, ...] | None = None
    outbound_traffic_policy: OutboundTrafficPolicy | None = None
    workload_selector: WorkloadSelector | None = None


class Sidecar(Resource):
    """What the sidecars of some workloads receive and see."""

    spec: SidecarSpec = Field(default_factory=lambda: SidecarSpec())
    status: IstioStatus | None = None
