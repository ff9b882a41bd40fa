"""Istio's MeshNetworks, the ``meshNetworks`` of its ConfigMap: which addresses are on which network."""

from __future__ import annotations

from weft.model.base import Shape
from weft.model.scalars import ProtoPort, Text


class NetworkEndpoints(Shape):
    """Addresses on a network, by block or by the registry that knows them."""

    from_cidr: Text | None = None
    from_registry: Text | None = None


class NetworkGateway(Shape):
    """Where a network takes connections from others: an address, or a Service that has external ones."""

    address: Text | None = None
    locality: Text | None = None
    port: ProtoPort | None = None
    registry_service_name: Text | None = None


class Network(Shape):
    """One network."""

    endpoints: tuple[NetworkEndpoints, ...] | None = None
    gateways: tuple[NetworkGateway, ...] | None = None


class MeshNetworks(Shape):
    """Networks by name."""

    networks: dict[str, Network] | None = None
