"""A sidecar: what its application may call, and what may call its application."""

from __future__ import annotations

from dataclasses import replace

from weft import ir
from weft.compile import explicit_proxy, outbound
from weft.compile.egress import Sending, sending_of
from weft.compile.gatewayapi.backend_tls_policy import backend_tls, secured
from weft.compile.gatewayapi.mesh import mesh_led_to
from weft.compile.istio.sidecar import scope_of
from weft.compile.outlook import outlooks_of
from weft.compile.receiving import Receiving, inbound_ports, pools_of, receiving_of, selecting
from weft.compile.rules import Clusters, clusters_of, localized, versatile
from weft.compile.service import Instance, Labels
from weft.compile.settings import Settings
from weft.compile.world import World
from weft.model.sidecar import Sidecar
from weft.names import VIRTUAL_INBOUND, VIRTUAL_OUTBOUND


def sidecar(world: World, identity: ir.ProxyIdentity) -> ir.Proxy:
    """The whole of a sidecar, its endpoints apart."""
    memo, attachment = world.memo, identity.attachment
    own = itself(world, identity)
    labels, namespace = own.labels, identity.name.namespace
    scope = memo(scope_of, world.all(Sidecar), namespace, labels, world.settings)
    settings = memo(_settings, world.settings, scope.outbound_any, scope.elsewhere)
    outlooks = outlooks_of(
        world.services,
        world.virtual_services,
        namespace,
        scope.egress,
        lambda limits: memo(mesh_led_to, world.gateway_facts, namespace, limits),
        settings,
        memo,
    )
    view = outlooks.reach
    rules = world.rules(view, labels)
    outward = sending_of(world, outlooks.all, rules, labels, attachment, settings)
    listeners, sent = outward.listeners, outward.tables
    if attachment.capture is ir.Capture.PROXY_ENV:
        tunnels = memo(explicit_proxy.tunnels_of, view, settings)
        named = memo(explicit_proxy.table, outward.hosts, tunnels, settings)
        sent = (named, *_asked(outward))
        if attachment.http_proxy_port is not None:
            own_proxy = memo(explicit_proxy.listener, attachment, attachment.http_proxy_port)
            listeners = (own_proxy, *listeners)
    elif attachment.capture is ir.Capture.NONE:
        sent = _asked(outward)
    else:
        listeners = (memo(outbound.virtual_outbound, attachment, settings), *listeners)
    sending = memo(clusters_of, view, rules, world.peers, settings, False, memo)
    sending = memo(secured, sending, rules, backend_tls(world.gateway_facts), "", memo)
    sending = memo(versatile, sending, outward.streams, memo) if outward.streams else sending
    sending = localized(sending, identity.standpoint, memo)
    if attachment.capture is ir.Capture.PROXY_ENV:
        sending = memo(_named, sending)
    modes = world.peer_modes(namespace, labels)
    behind = memo(selecting, world.services, own)
    pools = memo(pools_of, behind, world.rules(view, ()))
    ports = memo(inbound_ports, own, behind, modes, pools, scope, settings.inbound_stat_name)
    receiving = memo(receiving_of, attachment, settings, own.address, ports, modes)
    return ir.Proxy(
        identity=identity,
        listeners=memo(_distinct, listeners, receiving.listeners),
        routes=sent,
        clusters=memo(_joined, sending, receiving),
    )


def _asked(sending: Sending) -> tuple[ir.RouteTable, ...]:
    """The tables that its listeners ask for: where nothing is redirected most have none."""
    names = {
        chain.handler.routes
        for listener in sending.listeners
        for chain in listener.chains
        if isinstance(chain.handler, ir.HttpHandler)
    }
    return tuple(table for table in sending.tables if table.name in names)


def _distinct(
    sending: tuple[ir.Listener, ...], receiving: tuple[ir.Listener, ...]
) -> tuple[ir.Listener, ...]:
    """One listener for an address and port, as Envoy takes no second: the sidecar's own, the application's,
    those of services. A Unix socket has no port.
    """

    def place(listener: ir.Listener) -> tuple[str, int]:
        return listener.address, 0 if listener.address.startswith("unix:") else listener.port

    held: dict[tuple[str, int], ir.Listener] = {}
    listeners = (*sending, *receiving)
    own = (listener for listener in listeners if listener.name in {VIRTUAL_OUTBOUND, VIRTUAL_INBOUND})
    for listener in (*own, *receiving, *sending):
        held.setdefault(place(listener), listener)
    return tuple(item for item in listeners if held[place(item)] is item)


def _settings(settings: Settings, outbound_any: bool | None, elsewhere: str) -> Settings:
    """The mesh's settings, but for what a Sidecar says."""
    if outbound_any is not None and (outbound_any != settings.outbound_any or settings.lookup):
        settings = replace(settings, outbound_any=outbound_any, lookup=False)
    return replace(settings, elsewhere=elsewhere) if elsewhere else settings


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


def _joined(sending: Clusters, receiving: Receiving) -> tuple[ir.Cluster, ...]:
    return (*sending.all, *receiving.clusters)


def _named(sending: Clusters) -> Clusters:
    return Clusters(explicit_proxy.named(sending.all))
