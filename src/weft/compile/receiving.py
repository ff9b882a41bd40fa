"""The inbound side of a sidecar: which ports its application has, and the way to each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from weft import ir
from weft.compile import clusters, inbound, outbound
from weft.compile.inbound import InboundPort
from weft.compile.istio.peer_authentication import PeerModes
from weft.compile.istio.sidecar import Ingress, Scope
from weft.compile.protocol import Protocol, protocol_of
from weft.compile.registry import Services
from weft.compile.rules import Rules
from weft.compile.service import Instance, Service, target_port
from weft.compile.settings import Settings
from weft.compile.stat_names import stat_name

Pools = Mapping[tuple[str, int], ir.Connections]
"""Limits of connections by host and port of a service."""


def selecting(services: Services, own: Instance) -> tuple[Service, ...]:
    """The services that a workload is behind, the oldest first."""
    labels = set(own.labels)
    found = [
        service
        for group in services.by_host.values()
        for service in group
        if (
            service.namespace == own.namespace and labels.issuperset(service.selector)
            if service.selector is not None
            else any(endpoint.address == own.address for endpoint in service.endpoints)
        )
    ]
    return tuple(sorted(found, key=lambda service: service.order))


def pools_of(services: tuple[Service, ...], rules: Rules) -> Pools:
    """What DestinationRules say of connections to services: their workloads shall have room for as much."""
    return {
        (service.host, port.number): pool
        for service in services
        for port in service.ports
        if (pool := rules.of(service.host).default.policy(port.number).connections) is not None
    }


def inbound_ports(
    own: Instance,
    services: tuple[Service, ...],
    modes: PeerModes,
    pools: Pools,
    scope: Scope,
    stat_names: str = "",
) -> tuple[InboundPort, ...]:
    """What the application serves: ports of its services, then those that it declares itself.

    A Sidecar with ``ingress`` names them all. Its limits go before those of DestinationRules. ``stat_names``:
    the pattern of names in statistics, if there is one.
    """
    found: dict[int, InboundPort] = {}
    for service in services:
        ref = ir.ServiceRef(host=service.host, name=service.name, namespace=service.namespace)
        for port in service.ports:
            number = target_port(port, own)
            if number is None or port.protocol is Protocol.UDP or number in found:
                continue
            found[number] = InboundPort(
                number=number,
                protocol=port.protocol,
                mode=modes.of(number),
                service=ref,
                connections=scope.connections or pools.get((service.host, port.number)),
                stat_name=stat_name(stat_names, service, port, target=number),
            )
    for name, number in own.ports:
        if number not in found:
            found[number] = InboundPort(
                number=number,
                protocol=protocol_of(number, name),
                mode=modes.of(number),
                connections=scope.connections,
            )
    if scope.ingress is not None:
        asked = {part.port: part for part in reversed(scope.ingress)}
        found = {number: _port(part, found.get(number), modes, scope) for number, part in asked.items()}
    return tuple(found[number] for number in sorted(found))


def _port(part: Ingress, known: InboundPort | None, modes: PeerModes, scope: Scope) -> InboundPort:
    """A port as a Sidecar has it; ``known``: as the workload's services have it."""
    mode = modes.of(part.port)
    ended = part.tls is not None and mode is inbound.PeerMode.DISABLE
    return InboundPort(
        number=part.port,
        protocol=part.protocol,
        mode=mode,
        service=known.service if known is not None else None,
        bind=part.bind,
        bound=part.bound,
        endpoint=part.endpoint,
        named=True,
        owner=part.owner,
        connections=part.connections or scope.connections or (known.connections if known else None),
        tls=part.tls if ended else None,
        source=part.source,
        stat_name=known.stat_name if known is not None else "",
    )


@dataclass(frozen=True, slots=True, eq=False)
class Receiving:
    """What the inbound side adds to a proxy, with the clusters that every sidecar has."""

    listeners: tuple[ir.Listener, ...]
    clusters: tuple[ir.Cluster, ...]


def receiving_of(
    attachment: ir.Attachment,
    settings: Settings,
    address: str,
    ports: tuple[InboundPort, ...],
    modes: PeerModes,
) -> Receiving:
    """The inbound side. Where nothing redirects packets, each port has a listener of its own."""
    fixed = (
        clusters.passthrough_cluster(settings, named=attachment.capture is ir.Capture.PROXY_ENV),
        clusters.blackhole_cluster(),
        *((clusters.lookup_cluster(settings),) if settings.lookup and settings.outbound_any else ()),
    )
    apps = tuple(clusters.app_cluster(port, address, settings, attachment) for port in ports)
    redirected = attachment.capture is ir.Capture.REDIRECT
    own = attachment.inbound_address if attachment.inbound_address != outbound.ANYWHERE else address
    bound = tuple(
        inbound.bound_inbound(attachment, settings, port.bind or own, port)
        for port in ports
        if port.bound or not redirected
    )
    if not redirected:
        return Receiving(bound, (*apps, *fixed))
    captured = tuple(port for port in ports if not port.bound)
    declared = {port.number for port in captured}
    rest = tuple((number, mode) for number, mode in modes.ports if number not in declared)
    listener = inbound.virtual_inbound(attachment, settings, captured, modes.default, rest)
    passing = clusters.inbound_passthrough_cluster(settings, attachment)
    return Receiving((listener, *bound), (*apps, passing, *fixed))
