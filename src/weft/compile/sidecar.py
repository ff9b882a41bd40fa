"""A sidecar: what its application may call, and what may call its application."""

from __future__ import annotations

from dataclasses import dataclass, replace

from weft import ir
from weft.compile import clusters, explicit_proxy, inbound, outbound
from weft.compile.gatewayapi.backend_tls_policy import backend_tls, secured
from weft.compile.gatewayapi.mesh import mesh_led_to, meshed
from weft.compile.inbound import InboundPort
from weft.compile.istio.peer_authentication import PeerModes
from weft.compile.istio.sidecar import scope_of
from weft.compile.mesh_listeners import listeners_of
from weft.compile.mesh_routes import led_to, mesh_virtual_services, routing_of, streams_of, tables_of
from weft.compile.protocol import Protocol, protocol_of
from weft.compile.registry import Services
from weft.compile.rules import Clusters, clusters_of
from weft.compile.service import Instance, Labels, Service, target_port
from weft.compile.settings import Settings
from weft.compile.telemetry import telemetry_of
from weft.compile.world import World
from weft.model.sidecar import Sidecar


def sidecar(world: World, identity: ir.ProxyIdentity) -> ir.Proxy:
    """The whole of a sidecar, its endpoints apart."""
    memo, attachment = world.memo, identity.attachment
    own = itself(world, identity)
    labels, namespace = own.labels, identity.name.namespace
    scope = memo(scope_of, world.all(Sidecar), namespace, labels, world.settings.root_namespace)
    settings = memo(_settings, world.settings, scope.outbound_any)
    resources = memo(mesh_virtual_services, world.virtual_services, namespace, scope.limits, settings)
    besides = frozenset[str]()
    if scope.limits is not None:
        besides = memo(led_to, resources, settings.domain)
        besides |= memo(mesh_led_to, world.gateway_facts, namespace, scope.limits)
    view = world.view(namespace, scope.limits, besides)
    rules = world.rules(view, labels)
    routes = memo(meshed, world.gateway_facts, view, rules, memo)
    routing = memo(routing_of, view, resources, routes, settings)
    # HTTP rules come and go without touching a listener.
    streams = memo(streams_of, view, tuple(r for r in resources if r.spec.tls or r.spec.tcp), settings)
    tables = memo(tables_of, view, routing, rules, routing.bearer(labels), settings, memo)
    listeners: tuple[ir.Listener, ...] = ()
    sent = tables.tables
    if attachment.capture is ir.Capture.PROXY_ENV:
        tunnels = memo(explicit_proxy.tunnels_of, view, settings)
        sent = (memo(explicit_proxy.table, tables.hosts, tunnels, settings),)
        if attachment.http_proxy_port is not None:
            listeners = (memo(explicit_proxy.listener, attachment, attachment.http_proxy_port),)
    elif attachment.capture is ir.Capture.NONE:
        sent = ()
    else:
        listeners = (
            memo(outbound.virtual_outbound, attachment, settings),
            *memo(
                listeners_of,
                view,
                streams,
                rules,
                streams.bearer(labels),
                world.headless(view),
                settings,
                memo,
            ),
        )
    sending = memo(clusters_of, view, rules, world.peers, settings, False, memo)
    sending = memo(secured, sending, rules, backend_tls(world.gateway_facts), "", memo)
    if attachment.capture is ir.Capture.PROXY_ENV:
        sending = memo(_named, sending)
    modes = world.peer_modes(namespace, labels)
    ports = memo(inbound_ports, own, memo(selecting, world.services, own), modes)
    receiving = memo(_receiving, attachment, settings, own.address, ports, modes)
    return ir.Proxy(
        identity=identity,
        listeners=(*listeners, *receiving.listeners),
        routes=sent,
        clusters=memo(_joined, sending, receiving),
        telemetry=telemetry_of(settings),
    )


def _settings(settings: Settings, outbound_any: bool | None) -> Settings:
    """The mesh's settings, but for what a Sidecar says."""
    if outbound_any is None or outbound_any == settings.outbound_any:
        return settings
    return replace(settings, outbound_any=outbound_any)


def itself(world: World, identity: ir.ProxyIdentity) -> Instance:
    """The workload of a proxy: as it is registered, else as its own node id and labels tell."""
    name = identity.name
    known = world.instances.get(name.namespace, name.name)
    labels = {**(dict(known.labels) if known else {}), **dict(identity.labels)}
    return world.memo(
        _instance,
        name.name,
        name.namespace,
        name.address,
        known.ports if known else (),
        tuple(sorted(labels.items())),
    )


def _instance(
    name: str, namespace: str, address: str, ports: tuple[tuple[str, int], ...], labels: Labels
) -> Instance:
    return Instance(name=name, namespace=namespace, address=address, ports=ports, labels=labels)


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


def inbound_ports(own: Instance, services: tuple[Service, ...], modes: PeerModes) -> tuple[InboundPort, ...]:
    """What the application serves: ports of its services, then those that it declares itself."""
    found: dict[int, InboundPort] = {}
    for service in services:
        ref = ir.ServiceRef(host=service.host, name=service.name, namespace=service.namespace)
        for port in service.ports:
            number = target_port(port, own)
            if number is None or port.protocol is Protocol.UDP or number in found:
                continue
            found[number] = InboundPort(
                number=number, protocol=port.protocol, mode=modes.of(number), service=ref
            )
    for name, number in own.ports:
        if number not in found:
            found[number] = InboundPort(
                number=number, protocol=protocol_of(number, name), mode=modes.of(number)
            )
    return tuple(found[number] for number in sorted(found))


@dataclass(frozen=True, slots=True, eq=False)
class _Receiving:
    listeners: tuple[ir.Listener, ...]
    clusters: tuple[ir.Cluster, ...]


def _joined(sending: Clusters, receiving: _Receiving) -> tuple[ir.Cluster, ...]:
    return (*sending.all, *receiving.clusters)


def _named(sending: Clusters) -> Clusters:
    return Clusters(explicit_proxy.named(sending.all))


def _receiving(
    attachment: ir.Attachment,
    settings: Settings,
    address: str,
    ports: tuple[InboundPort, ...],
    modes: PeerModes,
) -> _Receiving:
    """The inbound side. Where nothing redirects packets, each port has a listener of its own."""
    fixed = (
        clusters.passthrough_cluster(settings, named=attachment.capture is ir.Capture.PROXY_ENV),
        clusters.blackhole_cluster(),
    )
    apps = tuple(
        clusters.app_cluster(port.number, port.protocol, port.service, settings, attachment) for port in ports
    )
    if attachment.capture is ir.Capture.REDIRECT:
        declared = {port.number for port in ports}
        rest = tuple((number, mode) for number, mode in modes.ports if number not in declared)
        listener = inbound.virtual_inbound(attachment, settings, ports, modes.default, rest)
        passing = clusters.inbound_passthrough_cluster(settings, attachment)
        return _Receiving((listener,), (*apps, passing, *fixed))
    own = attachment.inbound_address if attachment.inbound_address != outbound.ANYWHERE else address
    return _Receiving(
        tuple(inbound.bound_inbound(attachment, settings, own, port) for port in ports), (*apps, *fixed)
    )
