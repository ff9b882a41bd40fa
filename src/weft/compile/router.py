"""A gateway: servers of Istio and Gateway API Gateways that are for it, merged by port."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from weft import ir
from weft.compile.age import precedence
from weft.compile.clusters import blackhole_cluster, passthrough_cluster
from weft.compile.gatewayapi.gateway import edge_of, gateway_named
from weft.compile.hosts import covers, narrower, with_port
from weft.compile.istio import gateway as istio_gateway
from weft.compile.istio import layer4
from weft.compile.istio import virtual_service as istio
from weft.compile.istio.request_match import matches_everything
from weft.compile.memo import Memo
from weft.compile.mesh_routes import full_hosts, nearness, targets_of
from weft.compile.rules import Rules, clusters_of
from weft.compile.server import Server, Speaks, edge_handler
from weft.compile.service import Labels
from weft.compile.settings import Settings
from weft.compile.telemetry import telemetry_of
from weft.compile.view import View
from weft.compile.world import World
from weft.model.istio_gateway import Gateway
from weft.model.resource import Key
from weft.model.virtual_service import VirtualService

Owners = tuple[VirtualService, ...]


def router(world: World, identity: ir.ProxyIdentity) -> ir.Proxy:
    """The whole of a gateway's proxy, its endpoints apart."""
    memo, settings = world.memo, world.settings
    namespace, labels = identity.name.namespace, identity.labels
    view = world.view(namespace)
    rules = world.rules(view, labels)
    servers = memo(servers_of, world.all(Gateway), namespace, labels, settings)
    owners = memo(owners_of, world.virtual_services, namespace, settings)
    ports = memo(merge, servers)
    scene = memo(Scene, view, rules, settings, labels, memo)
    listeners: list[ir.Listener] = []
    tables: list[ir.RouteTable] = []
    for (bind, number), group in ports:
        bound = dict(identity.port_map).get(number, number)
        listener = memo(listener_of, bind, number, bound, group, owners, scene)
        if listener is not None:
            listeners.append(listener)
        for name in dict.fromkeys(s.route_name for s in group if s.speaks in {Speaks.HTTP, Speaks.HTTPS}):
            members = tuple(server for server in group if server.route_name == name)
            tables.append(memo(table_of, name, members, owners, scene))
    gateway = memo(gateway_named, world.gateway_facts, namespace, labels)
    if gateway is not None:
        edge = memo(edge_of, gateway, world.gateway_facts, rules, identity.port_map, memo)
        taken = {listener.name for listener in edge.listeners} | {table.name for table in edge.tables}
        listeners = [*edge.listeners, *(item for item in listeners if item.name not in taken)]
        tables = [*edge.tables, *(table for table in tables if table.name not in taken)]
    return ir.Proxy(
        identity=identity,
        listeners=tuple(listeners),
        routes=tuple(tables),
        clusters=(
            *memo(clusters_of, view, rules, world.peers, settings, True, memo).all,
            memo(passthrough_cluster, settings),
            memo(blackhole_cluster),
        ),
        telemetry=telemetry_of(settings),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What a gateway sees besides its servers and rules."""

    view: View
    rules: Rules
    settings: Settings
    labels: Labels
    memo: Memo


def servers_of(
    gateways: Mapping[Key, Gateway], namespace: str, labels: Labels, settings: Settings
) -> tuple[Server, ...]:
    """Servers of all Gateways that select a proxy, the oldest first."""
    found = sorted(gateways.values(), key=lambda gateway: precedence(gateway.metadata))
    return tuple(
        server
        for gateway in found
        if istio_gateway.selects(gateway, labels)
        for server in istio_gateway.servers(gateway, namespace, settings)
    )


def owners_of(resources: Mapping[Key, VirtualService], namespace: str, settings: Settings) -> Owners:
    """VirtualServices for gateways that a namespace sees, the oldest first."""
    found = [
        (near, precedence(resource.metadata), resource)
        for resource in resources.values()
        if any(name != istio.MESH for name in istio.bound_to(resource))
        and (near := nearness(resource, namespace, settings)) is not None
    ]
    return tuple(resource for *_, resource in sorted(found, key=lambda item: item[:2]))


Ports = tuple[tuple[tuple[str, int], tuple[Server, ...]], ...]


def merge(servers: tuple[Server, ...]) -> Ports:
    """Servers by address and port. The first decides whether a port is plain HTTP; others are left out.

    Of servers inside TLS the first with a host name takes it.
    """
    ports: dict[tuple[str, int], list[Server]] = {}
    for server in servers:
        group = ports.setdefault((server.bind or "0.0.0.0", server.port), [])
        if not group:
            group.append(server)
        elif group[0].speaks is Speaks.HTTP:
            if server.speaks is Speaks.HTTP:
                group.append(server)
        elif server.speaks not in {Speaks.HTTP, Speaks.TCP} and group[0].speaks is not Speaks.TCP:
            taken = {name for other in group for name in other.server_names or ("*",)}
            hosts = tuple(host for host in server.hosts if host[1] not in taken)
            if server.speaks is Speaks.PASSTHROUGH or (
                hosts and "*" not in taken & {h for _, h in server.hosts}
            ):
                group.append(server if len(hosts) == len(server.hosts) else replace(server, hosts=hosts))
    return tuple((where, tuple(group)) for where, group in sorted(ports.items()))


def listener_of(
    bind: str, number: int, bound: int, group: tuple[Server, ...], owners: Owners, scene: Scene
) -> ir.Listener | None:
    """The listener of a port; None when nothing could be done with a connection."""
    name = f"{bind}_{number}"
    chains: list[ir.FilterChain] = []
    if group[0].speaks is Speaks.HTTP:
        chains.append(
            ir.FilterChain(
                name=name,
                match=ir.ChainMatch(),
                handler=edge_handler(name, group[0].route_name, scene.settings),
            )
        )
    else:
        for server in group:
            chains += _server_chains(server, owners, scene)
    if not chains:
        return None
    return ir.Listener(
        name=name,
        direction=ir.Direction.GATEWAY,
        address=bind,
        port=bound,
        receive=ir.Receive.BOUND,
        chains=_distinct(chains),
        inspect_tls=any(chain.match.server_names or chain.tls for chain in chains),
        inspect_timeout=scene.settings.detection_timeout,
    )


def _distinct(chains: Iterable[ir.FilterChain]) -> tuple[ir.FilterChain, ...]:
    """One chain a match and a name: Envoy refuses two."""
    found: dict[ir.ChainMatch, ir.FilterChain] = {}
    names: set[str] = set()
    for chain in chains:
        if chain.match not in found:
            name = chain.name
            while name in names:
                name += "'"
            names.add(name)
            found[chain.match] = chain if name == chain.name else replace(chain, name=name)
    return tuple(found.values())


def _server_chains(server: Server, owners: Owners, scene: Scene) -> tuple[ir.FilterChain, ...]:
    name = server.route_name
    if server.speaks is Speaks.HTTPS:
        match = ir.ChainMatch(server_names=server.server_names)
        handler = edge_handler(f"{server.bind or '0.0.0.0'}_{server.port}", name, scene.settings)
        return (ir.FilterChain(name=name, match=match, handler=handler, tls=server.tls),)
    found: list[ir.FilterChain] = []
    for owner in owners:
        hosts = shared_hosts(server, owner, scene.settings)
        if server.gateway not in istio.bound_to(owner) or not hosts:
            continue
        found += _layer4(server, owner, hosts, scene)
    return tuple(found)


def _layer4(
    server: Server, owner: VirtualService, hosts: tuple[str, ...], scene: Scene
) -> Iterable[ir.FilterChain]:
    """TCP by a VirtualService: by SNI where TLS passes through, else whatever the server takes."""
    targets = targets_of(owner, scene.view, scene.rules, scene.settings, scene.memo)
    gateways = frozenset({server.gateway})
    namespace = scene.view.namespace
    if server.speaks is Speaks.PASSTHROUGH:
        for chain in layer4.tls_chains(
            owner, server.port, gateways, scene.labels, namespace, targets, scene.settings
        ):
            names = tuple(n for n in chain.match.server_names if any(covers(h, n) for _, h in server.hosts))
            if names:
                yield replace(chain, match=replace(chain.match, server_names=() if "*" in names else names))
        return
    for chain in layer4.tcp_chains(
        owner, server.port, gateways, scene.labels, namespace, targets, scene.settings
    ):
        names = server.server_names if server.speaks is Speaks.TLS else ()
        yield replace(chain, match=replace(chain.match, server_names=names), tls=server.tls)


def shared_hosts(server: Server, owner: VirtualService, settings: Settings) -> tuple[str, ...]:
    """Hosts that a server and a VirtualService both mean, each the narrower of the two."""
    found: dict[str, None] = {}
    for namespace, allowed in server.hosts:
        own = server.namespace if namespace == "." else namespace
        if own not in {"*", owner.metadata.namespace}:
            continue
        for host in full_hosts(owner, settings):
            both = narrower(allowed, host)
            if both is not None:
                found[both] = None
    return tuple(found)


def table_of(name: str, servers: tuple[Server, ...], owners: Owners, scene: Scene) -> ir.RouteTable:
    """The table of one plain port, or of one HTTPS server."""
    routes: dict[str, list[ir.Route]] = {}
    redirected: set[str] = set()
    port = servers[0].port
    for server in servers:
        for owner in owners:
            hosts = shared_hosts(server, owner, scene.settings)
            if server.gateway not in istio.bound_to(owner) or not hosts or not owner.spec.http:
                continue
            made = scene.memo(
                istio.http_routes,
                owner,
                port,
                frozenset({server.gateway}),
                frozenset(scene.labels) if scene.memo(istio.wants_labels, owner) else frozenset(),
                scene.view.namespace if scene.memo(istio.wants_namespace, owner) else "",
                targets_of(owner, scene.view, scene.rules, scene.settings, scene.memo),
                scene.settings,
                server.speaks is Speaks.HTTPS,
            )
            for host in hosts if made else ():
                known = routes.setdefault(host, [])
                known += (route for route in made if route not in known)
                if server.redirect:
                    redirected.add(host)
        if server.redirect:
            for _, host in server.hosts:
                routes.setdefault(host, [])
                redirected.add(host)
    made_hosts = tuple(
        ir.VirtualHost(
            name=with_port(host, port),
            domains=(host,),
            routes=_sorted(routes[host]),
            require_tls=host in redirected,
        )
        for host in sorted(routes)
    )
    nothing = ir.VirtualHost(name=with_port("blackhole", port), domains=("*",), routes=())
    return ir.RouteTable(name=name, virtual_hosts=made_hosts or (nothing,))


def _sorted(routes: list[ir.Route]) -> tuple[ir.Route, ...]:
    """Routes that take everything go last: another VirtualService of the same host may follow."""
    return tuple(sorted(routes, key=lambda route: matches_everything(route.match)))
