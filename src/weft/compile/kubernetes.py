"""Kubernetes Services and EndpointSlices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from weft.compile.istio.service_entry import labels_of
from weft.compile.protocol import protocol_of
from weft.compile.service import Instance, Port, Resolution, Service
from weft.compile.settings import Settings
from weft.ir import Health, Locality
from weft.model.endpoints import EndpointSlice
from weft.model.service import Service as Resource
from weft.model.service import ServicePort
from weft.names import service_host

EXPORT_TO: Final = "networking.istio.io/exportTo"
SERVICE_NAME: Final = "kubernetes.io/service-name"


def wants_vip(resource: Resource) -> bool:
    """Whether an address must be found for it: it has none, and is not headless."""
    spec = resource.spec
    return spec.type != "ExternalName" and not spec.cluster_ip and not spec.cluster_ips


def service(resource: Resource, vip: str | None, settings: Settings) -> Service:
    """A Kubernetes Service. Headless ones are called where the client connects to (Istio's passthrough)."""
    metadata, spec = resource.metadata, resource.spec
    headless = spec.cluster_ip == "None"
    external = spec.type == "ExternalName"
    addresses = tuple(
        dict.fromkeys((*((spec.cluster_ip,) if spec.cluster_ip else ()), *(spec.cluster_ips or ())))
    )
    if headless or external:
        addresses = ()
    elif not addresses and vip:
        addresses = (vip,)
    exported = (metadata.annotations or {}).get(EXPORT_TO, "")
    resolution = Resolution.ENDPOINTS
    if external:
        resolution = Resolution.ALIAS
    elif headless:
        resolution = Resolution.PASSTHROUGH
    return Service(
        host=service_host(metadata.name, metadata.namespace, settings.domain),
        name=metadata.name,
        namespace=metadata.namespace,
        ports=tuple(_port(port) for port in spec.ports or ()),
        resolution=resolution,
        addresses=addresses,
        kubernetes=True,
        headless=headless,
        selector=labels_of(dict(spec.selector)) if spec.selector and not external else None,
        alias_of=(spec.external_name or "").lower() if external else "",
        export_to=tuple(part.strip() for part in exported.split(",") if part.strip())
        or settings.export_services,
        created=str(metadata.creation_timestamp or ""),
        source=resource.key,
    )


def _port(port: ServicePort) -> Port:
    name, transport = port.name or "", port.protocol or "TCP"
    return Port(
        number=port.port,
        name=name,
        protocol=protocol_of(port.port, name, transport, port.app_protocol),
        target=port.target_port or None,
    )


def slice_service(resource: EndpointSlice) -> str:
    """The name of the Service that a slice belongs to; empty when it says none."""
    return str((resource.metadata.labels or {}).get(SERVICE_NAME, ""))


def slice_instances(slices: Iterable[EndpointSlice], service: Service) -> tuple[Instance, ...]:
    """Addresses of a Service without a selector. A slice's ports bear the names of the Service's."""
    found: dict[str, Instance] = {}
    for resource in sorted(slices, key=lambda item: item.metadata.name):
        numbers = {port.name or "": port.port for port in resource.ports or () if port.port}
        ports = tuple(
            (name, numbers[port.name])
            for port in service.ports
            if port.name in numbers
            for name in (port.name, *((port.target,) if isinstance(port.target, str) else ()))
        )
        for endpoint in resource.endpoints or ():
            conditions = endpoint.conditions
            ready = conditions is None or conditions.ready is not False
            leaving = conditions is not None and bool(conditions.terminating)
            health = Health.HEALTHY if ready else Health.DRAINING if leaving else Health.UNHEALTHY
            for address in endpoint.addresses or ():
                found[address] = Instance(
                    name=(endpoint.target_ref.name if endpoint.target_ref else None)
                    or endpoint.hostname
                    or f"{resource.metadata.name}-{address}",
                    namespace=resource.metadata.namespace,
                    address=address,
                    ports=ports,
                    health=health,
                    locality=Locality(zone=endpoint.zone or ""),
                    hostname=endpoint.hostname or "",
                )
    return tuple(found.values())
