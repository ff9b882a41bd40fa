"""Networks: where endpoints and clients are, and the gateways that lead from one to another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from pydantic import ValidationError

from weft import ir
from weft.compile.mesh import CONFIG_MAP
from weft.model.core import ConfigMap
from weft.model.mesh_networks import MeshNetworks
from weft.model.resource import Key
from weft.model.service import Service
from weft.names import NETWORK_LABEL, ROOT_NAMESPACE, service_host
from weft.yaml import load

# A Service with Istio's network label is a gateway of that network, at the port that the other one names.
_PORT_LABEL: Final = "networking.istio.io/gatewayPort"
_PORT: Final = 15443
_OWN_REGISTRIES: Final = frozenset({"Kubernetes", "weft"})

Block = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, eq=False)
class Networks:
    """``default``: the network of what is on no other. Without gateways everybody reaches everything."""

    gateways: tuple[ir.NetworkGateway, ...] = ()
    blocks: tuple[tuple[Block, str], ...] = ()
    default: str = ""

    def of(self, address: str) -> str:
        """The network of an address: that of the narrowest block it is in."""
        try:
            number = ip_address(address)
        except ValueError:
            return self.default
        return next((name for block, name in self.blocks if number in block), self.default)


def networks_of(maps: Mapping[Key, ConfigMap], services: Mapping[Key, Service], domain: str) -> Networks:
    """What ``meshNetworks`` says, and Services that are gateways of a network."""
    said = _said(maps)
    by_name = any(
        gateway.registry_service_name
        for network in (said.networks or {}).values()
        for gateway in network.gateways or ()
    )
    outside = {
        service_host(key.name, key.namespace, domain): _outside(service)
        for key, service in (services.items() if by_name else ())
    }
    gateways = set(_labelled(services))
    blocks: list[tuple[Block, str]] = []
    default = ""
    for name, network in sorted((said.networks or {}).items()):
        for gateway in network.gateways or ():
            where = (
                (gateway.address,)
                if gateway.address
                else outside.get(gateway.registry_service_name or "", ())
            )
            gateways |= {
                ir.NetworkGateway(network=name, address=address, port=gateway.port or _PORT)
                for address in where
                if _is_ip(address)
            }
        for part in network.endpoints or ():
            if part.from_registry in _OWN_REGISTRIES:
                default = default or name
            block = _block(part.from_cidr or "")
            if block is not None:
                blocks.append((block, name))
    blocks.sort(key=lambda item: (-item[0].prefixlen, str(item[0])))
    return Networks(tuple(sorted(gateways)), tuple(blocks), default)


def _said(maps: Mapping[Key, ConfigMap]) -> MeshNetworks:
    for key, resource in maps.items():
        if key.name == CONFIG_MAP and key.namespace == ROOT_NAMESPACE:
            documents, _ = load((resource.data or {}).get("meshNetworks", ""), CONFIG_MAP)
            try:
                return MeshNetworks.model_validate(documents[0].data) if documents else MeshNetworks()
            except ValidationError:
                break
    return MeshNetworks()


def _labelled(services: Mapping[Key, Service]) -> Iterator[ir.NetworkGateway]:
    for service in services.values():
        labels = service.metadata.labels or {}
        network, text = labels.get(NETWORK_LABEL), labels.get(_PORT_LABEL, "")
        port = int(text) if text.isdigit() else _PORT
        if network and any(known.port == port for known in service.spec.ports or ()):
            for address in _outside(service):
                yield ir.NetworkGateway(network=network, address=address, port=port)


def _outside(service: Service) -> tuple[str, ...]:
    """The addresses by which a Service is reached from elsewhere."""
    balancer = service.status.load_balancer if service.status else None
    ingress = (balancer.ingress or ()) if balancer else ()
    found = (*(service.spec.external_ips or ()), *(item.ip for item in ingress if item.ip))
    return tuple(dict.fromkeys(found))


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _block(text: str) -> Block | None:
    try:
        return ip_network(text, strict=False) if text else None
    except ValueError:
        return None
