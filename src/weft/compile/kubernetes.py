"""Kubernetes Services and EndpointSlices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from weft.compile.istio.service_entry import labels_of
from weft.compile.nearness import distribution
from weft.compile.protocol import protocol_of
from weft.compile.service import Instance, Port, Resolution, Service, session_of
from weft.compile.settings import Settings
from weft.ir import Health, Locality
from weft.model.endpoints import Endpoint, Endpoints, EndpointSlice
from weft.model.service import Service as Resource
from weft.model.service import ServicePort
from weft.names import HOSTNAME_LABEL, REGION_LABEL, SUBZONE_LABEL, ZONE_LABEL, service_host

EXPORT_TO: Final = "networking.istio.io/exportTo"
# Identities that may serve: in full, or service accounts of the Service's namespace; by commas.
IDENTITIES: Final = "alpha.istio.io/canonical-serviceaccounts"
ACCOUNTS: Final = "alpha.istio.io/kubernetes-serviceaccounts"
SERVICE_NAME: Final = "kubernetes.io/service-name"


def wants_vip(resource: Resource) -> bool:
    """Whether an address must be found for it: it has none, and is not headless."""
    spec = resource.spec
    return spec.type != "ExternalName" and not spec.cluster_ip and not spec.cluster_ips


def service(resource: Resource, vip: str | None, settings: Settings, space: str = "") -> Service:
    """A Kubernetes Service. Headless ones are called where the client connects to (Istio's passthrough).

    ``space``: the traffic distribution that its namespace asks for.
    """
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
        alias_of=(spec.external_name or "").lower().rstrip(".") if external else "",
        external_addresses=() if external else tuple(spec.external_ips or ()),
        nearness=distribution(spec.traffic_distribution, metadata.annotations, space),
        same_node=spec.internal_traffic_policy == "Local",
        sticky=spec.session_affinity == "ClientIP",
        unready_too=bool(spec.publish_not_ready_addresses),
        session=session_of(metadata.labels),
        accounts=_accounts(resource, settings),
        export_to=_listed(exported) or settings.export_services,
        created=str(metadata.creation_timestamp or ""),
        source=resource.key,
    )


def _accounts(resource: Resource, settings: Settings) -> tuple[str, ...]:
    """Who may serve, besides the workloads that are known."""
    noted, namespace = resource.metadata.annotations or {}, resource.metadata.namespace
    named = (
        f"spiffe://{settings.trust_domain}/ns/{namespace}/sa/{name}"
        for name in _listed(noted.get(ACCOUNTS, ""))
    )
    return (*_listed(noted.get(IDENTITIES, "")), *named)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _port(port: ServicePort) -> Port:
    name, transport = port.name or "", port.protocol or "TCP"
    return Port(
        number=port.port,
        name=name,
        protocol=protocol_of(port.port, name, transport, port.app_protocol),
        target=port.target_port or None,
    )


Listed = EndpointSlice | Endpoints
"""What lists addresses of a Service by hand, or by a cluster's own controller."""


def listed_for(resource: Listed) -> str:
    """The name of the Service that a list of addresses belongs to; empty when it says none."""
    if isinstance(resource, Endpoints):
        return resource.metadata.name
    return (resource.metadata.labels or {}).get(SERVICE_NAME, "")


def listed_instances(lists: Iterable[Listed], service: Service) -> tuple[Instance, ...]:
    """Addresses that are listed for a Service. Where there are slices, old Endpoints only mirror them."""
    slices = [item for item in lists if isinstance(item, EndpointSlice)]
    found: dict[str, Instance] = {}
    for item in sorted(slices, key=lambda item: item.metadata.name):
        numbers = {port.name or "": port.port for port in item.ports or () if port.port}
        if item.address_type == "FQDN":
            continue  # Istio knows no way to them either
        for endpoint in item.endpoints or ():
            member = _member(item.metadata.namespace, endpoint, _ports(service, numbers))
            if member is None:
                continue
            found |= {
                address: replace(member, address=address, name=member.name or address)
                for address in endpoint.addresses
            }
    for old in lists if not slices else ():
        for subset in (old.subsets or ()) if isinstance(old, Endpoints) else ():
            numbers = {port.name or "": port.port for port in subset.ports or ()}
            ports = _ports(service, numbers)
            space = old.metadata.namespace
            for healthy, addresses in ((True, subset.addresses), (False, subset.not_ready_addresses)):
                for entry in addresses or ():
                    found[entry.ip] = Instance(
                        name=entry.hostname or entry.ip,
                        namespace=space,
                        address=entry.ip,
                        ports=ports,
                        health=Health.HEALTHY if healthy else Health.UNHEALTHY,
                        hostname=entry.hostname or "",
                        node=entry.node_name or "",
                    )
    return tuple(found.values())


def _ports(service: Service, numbers: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """Listed ports bear the names of the Service's, whatever these call their targets."""
    return tuple(
        (name, numbers[port.name])
        for port in service.ports
        if port.name in numbers
        for name in (port.name, *((port.target,) if isinstance(port.target, str) else ()))
    )


def _member(namespace: str, endpoint: Endpoint, ports: tuple[tuple[str, int], ...]) -> Instance | None:
    """None for one that is going and serves nobody any more (Istio: endpointHealthStatus)."""
    conditions = endpoint.conditions
    health = Health.HEALTHY
    if conditions is not None and conditions.ready is False:
        health = Health.UNHEALTHY if conditions.terminating is False else Health.DRAINING
        if health is Health.DRAINING and conditions.serving is False:
            return None
    topology = endpoint.deprecated_topology or {}
    return Instance(
        name=(endpoint.target_ref.name if endpoint.target_ref else None) or endpoint.hostname or "",
        namespace=namespace,
        address="",
        ports=ports,
        health=health,
        locality=Locality(
            region=topology.get(REGION_LABEL, ""),
            zone=endpoint.zone or topology.get(ZONE_LABEL, ""),
            subzone=topology.get(SUBZONE_LABEL, ""),
        ),
        hostname=endpoint.hostname or "",
        node=endpoint.node_name or topology.get(HOSTNAME_LABEL, ""),
    )
