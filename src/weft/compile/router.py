"""A gateway: servers of Istio and Gateway API Gateways that are for it, merged by port."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from weft import ir
from weft.compile.clusters import blackhole_cluster, passthrough_cluster
from weft.compile.gatewayapi.backend_tls_policy import backend_tls, client_certificate, secured
from weft.compile.gatewayapi.gateway import edge_of, gateway_named
from weft.compile.istio import auto_passthrough
from weft.compile.istio.edge import Scene
from weft.compile.istio.edge import edge_of as istio_edge
from weft.compile.outbound import ANYWHERE
from weft.compile.quic import asked_for, with_http3
from weft.compile.receiving import selecting
from weft.compile.rules import clusters_of, localized
from weft.compile.server import Server, Speaks
from weft.compile.service import target_port
from weft.compile.sidecar import itself
from weft.compile.world import World
from weft.model.istio_gateway import Gateway
from weft.model.resource import Key
from weft.model.service import Service
from weft.model.service_entry import ServiceEntry
from weft.names import BLACKHOLE_CLUSTER, GATEWAY_ADDRESSES

# A Service with this label does not move ports of Gateways (istio pilot/pkg/model/gateway.go).
UNMOVED: Final = "experimental.istio.io/disable-gateway-port-translation"


def router(world: World, identity: ir.ProxyIdentity) -> ir.Proxy:
    """The whole of a gateway's proxy, its endpoints apart."""
    memo, settings = world.memo, world.settings
    namespace, labels = identity.name.namespace, identity.labels
    view = world.view(namespace)
    rules = world.rules(view, labels)
    scene = memo(Scene, view, rules, settings, labels, memo)
    moved = moved_ports(world, identity)
    own = memo(istio_edge, world.all(Gateway), world.virtual_services, moved, identity.port_map, scene)
    wanted = memo(_with_http3, own.servers, world.all(Gateway))
    doubled, told = memo(with_http3, own.listeners, own.tables, wanted, memo)
    listeners, tables = list(doubled), list(told)
    facts = world.gateway_facts
    gateway = memo(gateway_named, facts, namespace, labels)
    added: tuple[ir.Cluster, ...] = ()
    certificate, servers = "", own.servers
    if gateway is not None:
        edge = memo(edge_of, gateway, facts, view, rules, world.peers, identity.port_map, memo)
        shown, _ = memo(client_certificate, gateway, facts)
        certificate = shown.name if shown is not None else ""
        added, servers = edge.clusters, (*servers, *edge.servers)
        taken = {listener.name for listener in edge.listeners} | {table.name for table in edge.tables}
        listeners = [*edge.listeners, *(item for item in listeners if item.name not in taken)]
        tables = [*edge.tables, *(table for table in tables if table.name not in taken)]
    sending = memo(clusters_of, view, rules, world.peers, settings, True, memo)
    sending = memo(secured, sending, rules, backend_tls(facts), certificate, memo)
    sending = localized(sending, identity.standpoint, memo)
    known = {cluster.name for cluster in sending.all} if added else frozenset()
    return ir.Proxy(
        identity=identity,
        listeners=tuple(memo(_opened, listener, identity.attachment) for listener in listeners),
        routes=tuple(tables),
        clusters=(
            *sending.all,
            *(cluster for cluster in added if cluster.name not in known),
            *memo(auto_passthrough.clusters_of, sending, servers, view),
            memo(passthrough_cluster, settings),
            memo(blackhole_cluster),
        ),
    )


def _opened(listener: ir.Listener, attachment: ir.Attachment) -> ir.Listener:
    """A listener where the gateway's are, which may be an address of its own."""
    address = attachment.inbound_address if listener.address == ANYWHERE else listener.address
    opened = replace(listener, address=address, shared_port=attachment.shared_ports)
    if not attachment.shared_ports or address != ANYWHERE or listener.udp is not None or listener.quic:
        return opened
    # What another gateway does not open at its address must not be answered here.
    match = ir.ChainMatch(addresses=(GATEWAY_ADDRESSES,))
    refuse = ir.TcpHandler(
        stat_prefix=BLACKHOLE_CLUSTER, destinations=(ir.Destination(cluster=BLACKHOLE_CLUSTER),)
    )
    chain = ir.FilterChain(name="another-gateway", match=match, handler=refuse)
    return replace(opened, chains=(*listener.chains, chain))


def _with_http3(servers: tuple[Server, ...], gateways: Mapping[Key, Gateway]) -> frozenset[str]:
    """The tables of servers whose Gateway wants HTTP/3."""
    return frozenset(
        server.route_name
        for server in servers
        if server.speaks is Speaks.HTTPS and asked_for(gateways[server.source].metadata.annotations)
    )


def moved_ports(world: World, identity: ir.ProxyIdentity) -> tuple[tuple[int, int], ...]:
    """Ports of the Services in front of a gateway that lead to other ports of it: it listens at those."""
    own = itself(world, identity)
    found: dict[int, int] = {}
    for service in world.memo(selecting, world.services, own):
        resource = world.all(Service).get(service.source) or world.all(ServiceEntry).get(service.source)
        if resource is not None and UNMOVED in (resource.metadata.labels or {}):
            continue
        for port in service.ports:
            number = target_port(port, own)
            if number is not None:
                found.setdefault(port.number, number)
    return tuple((port, number) for port, number in sorted(found.items()) if port != number)
