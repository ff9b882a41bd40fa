"""Istio's Gateways at one proxy: their servers merged by port, as listeners and route tables.

Which servers may share a port: istio/istio pilot/pkg/model/gateway.go; what they make of
VirtualServices: pilot/pkg/networking/core/gateway.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from weft import ir
from weft.compile.age import precedence
from weft.compile.chains import apart
from weft.compile.hosts import narrower, overlaps, specificity, with_port
from weft.compile.istio import auto_passthrough, layer4
from weft.compile.istio import gateway as istio_gateway
from weft.compile.istio import virtual_service as istio
from weft.compile.istio.request_match import matches_everything
from weft.compile.memo import Memo
from weft.compile.mesh_routes import full_hosts, nearness, targets_of
from weft.compile.outbound import ANYWHERE
from weft.compile.rules import Rules
from weft.compile.server import Server, Speaks, edge_handler, edge_receive
from weft.compile.service import Labels, Resolution
from weft.compile.settings import Settings
from weft.compile.view import View
from weft.model.istio_gateway import Gateway
from weft.model.resource import Key
from weft.model.virtual_service import VirtualService

Owners = tuple[VirtualService, ...]

_PLAIN: Final = frozenset({Speaks.HTTP, Speaks.TCP})
_TABLED: Final = frozenset({Speaks.HTTP, Speaks.HTTPS})


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What a gateway sees besides its servers and rules."""

    view: View
    rules: Rules
    settings: Settings
    labels: Labels
    memo: Memo

    @property
    def looks_up(self) -> bool:
        """Whether some service is a wildcard whose names are looked up."""
        return self.memo(_looks_up, self.view)


@dataclass(frozen=True, slots=True, eq=False)
class Edge:
    """What Istio's Gateways add to a proxy; ``servers`` are those that found room."""

    listeners: tuple[ir.Listener, ...]
    tables: tuple[ir.RouteTable, ...]
    servers: tuple[Server, ...]


def edge_of(
    gateways: Mapping[Key, Gateway],
    resources: Mapping[Key, VirtualService],
    moved: tuple[tuple[int, int], ...],
    port_map: tuple[tuple[int, int], ...],
    scene: Scene,
) -> Edge:
    """Listeners and tables of all Gateways that select a proxy.

    ``moved``: ports of Services in front of the proxy, and the ports of the proxy behind them.
    ``port_map``: where ports of Gateways are opened whatever else is said.
    """
    memo, namespace, settings = scene.memo, scene.view.namespace, scene.settings
    servers = memo(servers_of, gateways, namespace, scene.labels, moved, settings)
    owners = memo(owners_of, resources, namespace, settings)
    listeners: list[ir.Listener] = []
    tables: list[ir.RouteTable] = []
    ports = memo(merge, servers).ports
    for port in ports:
        bound = dict(port_map).get(port.servers[0].port, port.number)
        listener = memo(listener_of, port, bound, owners, scene)
        if listener is not None:
            listeners.append(listener)
        for name in dict.fromkeys(server.route_name for server in port.servers if server.speaks in _TABLED):
            members = tuple(server for server in port.servers if server.route_name == name)
            tables.append(memo(table_of, name, members, owners, scene))
    return Edge(tuple(listeners), tuple(tables), tuple(server for port in ports for server in port.servers))


def servers_of(
    gateways: Mapping[Key, Gateway],
    namespace: str,
    labels: Labels,
    moved: tuple[tuple[int, int], ...],
    settings: Settings,
) -> tuple[Server, ...]:
    """Servers of all Gateways that select a proxy, the oldest first."""
    found = sorted(gateways.values(), key=lambda gateway: precedence(gateway.metadata))
    to = dict(moved)
    return tuple(
        replace(server, at=to[server.port]) if server.port in to else server
        for gateway in found
        if istio_gateway.selects(gateway, labels)
        for server in istio_gateway.servers(gateway, namespace, settings)
    )


def owners_of(resources: Mapping[Key, VirtualService], namespace: str, settings: Settings) -> Owners:
    """VirtualServices for gateways that a namespace sees, in the order in which they are asked."""
    found = [
        (near, precedence(resource.metadata), resource)
        for resource in resources.values()
        if any(name != istio.MESH for name in istio.bound_to(resource))
        and (near := nearness(resource, namespace, settings)) is not None
    ]
    return tuple(resource for *_, resource in sorted(found, key=lambda item: item[:2]))


@dataclass(slots=True)
class _Port:
    """What is known of an address and port while servers are merged."""

    servers: list[Server] = field(default_factory=list)
    plain: Server | None = None
    secured: dict[str, Server] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Port:
    """The servers that share an address and port."""

    bind: str
    number: int
    servers: tuple[Server, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """``refused``: servers that another one leaves no room for, with the one and why."""

    ports: tuple[Port, ...]
    refused: tuple[tuple[Server, Server, str], ...]


def merge(servers: tuple[Server, ...]) -> Merged:
    """Servers by address and port: plain HTTP is shared, inside TLS each host has one server."""
    ports: dict[tuple[str, int], _Port] = {}
    refused: list[tuple[Server, Server, str]] = []
    for server in servers:
        port = ports.setdefault((server.bind or ANYWHERE, server.listens), _Port())
        conflict = _conflict(server, port)
        if conflict is not None:
            refused.append((server, *conflict))
            continue
        port.servers.append(server)
        if server.secured:
            port.secured |= {f"{space}/{host}": server for space, host in server.hosts}
        if server.speaks in _PLAIN and port.plain is None:
            port.plain = server
    made = tuple(Port(bind, number, tuple(port.servers)) for (bind, number), port in sorted(ports.items()))
    return Merged(made, tuple(refused))


def _conflict(server: Server, port: _Port) -> tuple[Server, str] | None:
    """The server that was there first and leaves no room, and why."""
    if server.secured:
        for space, host in server.hosts:
            first = port.secured.get(f"{space}/{host}")
            if first is not None:
                return first, f"another server has the host {host!r} at port {server.port}"
    if port.plain is not None:
        if not (server.speaks is port.plain.speaks is Speaks.HTTP):
            return (
                port.plain,
                f"another server makes port {server.port} plain {port.plain.speaks.value.upper()}",
            )
        return None
    if server.speaks is Speaks.HTTPS:
        for other in port.servers:
            if other.speaks is Speaks.HTTPS and other.route_name == server.route_name:
                return other, f"another server of the Gateway has the port name {server.name!r}"
    return None


def _looks_up(view: View) -> bool:
    """Whether some service is a wildcard whose names are looked up."""
    return any(service.resolution is Resolution.NAMED for service in view.services)


def listener_of(port: Port, bound: int, owners: Owners, scene: Scene) -> ir.Listener | None:
    """The listener of a port; None when nothing could be done with a connection."""
    name = f"{port.bind}_{port.number}"
    chains: list[ir.FilterChain] = []
    told: set[str] = set()
    mixed = len({server.speaks in _PLAIN for server in port.servers}) > 1
    for server in port.servers:
        if server.speaks is Speaks.HTTP:
            if not any(chain.name == name for chain in chains):
                handler = edge_handler(name, server.route_name, scene.settings, looks_up=scene.looks_up)
                chains.append(ir.FilterChain(name=name, match=ir.ChainMatch(), handler=handler))
            continue
        for chain in _chains(server, owners, told, scene):
            # Beside plain connections, what is inside TLS is told apart by that alone.
            secure = mixed and server.speaks not in _PLAIN
            chains.append(replace(chain, match=replace(chain.match, transport="tls")) if secure else chain)
    kept = apart(chains)
    if not kept:
        return None
    return ir.Listener(
        name=name,
        direction=ir.Direction.GATEWAY,
        address=port.bind,
        port=bound,
        receive=edge_receive(scene.settings),
        chains=kept,
        inspect_tls=any(chain.match.server_names or chain.match.transport or chain.tls for chain in kept),
        inspect_timeout=scene.settings.detection_timeout,
    )


def _chains(server: Server, owners: Owners, told: set[str], scene: Scene) -> Iterable[ir.FilterChain]:
    """Chains of a server that is no plain HTTP. ``told``: SNI that rules of this port were found for."""
    if server.speaks is Speaks.HTTPS:
        match = ir.ChainMatch(server_names=server.server_names)
        listener = f"{server.bind or ANYWHERE}_{server.listens}"
        handler = edge_handler(
            listener, server.route_name, scene.settings, tls=server.tls, looks_up=scene.looks_up
        )
        return (ir.FilterChain(name=server.route_name, match=match, handler=handler, tls=server.tls),)
    bound = [
        owner
        for owner in owners
        if server.gateway in istio.bound_to(owner) and _meets(server, owner, scene.settings)
    ]
    if server.speaks is Speaks.PASSTHROUGH:
        if server.automatic:
            return auto_passthrough.chains_of(server, scene.view, scene.rules)
        return _passed(server, bound, told, scene)
    return _ended(server, bound, scene)


def _meets(server: Server, owner: VirtualService, settings: Settings) -> bool:
    """Whether a VirtualService is for some host of a server."""
    return any(
        overlaps(allowed, host)
        for space, allowed in server.hosts
        if space in {"*", owner.metadata.namespace}
        for host in full_hosts(owner, settings)
    )


def _ended(server: Server, owners: Iterable[VirtualService], scene: Scene) -> Iterator[ir.FilterChain]:
    """All connections of a port, or all inside a server's TLS, to where the first TCP rule for them says."""
    names = server.server_names if server.speaks is Speaks.TLS else ()
    for owner in owners:
        targets = targets_of(owner, scene.view, scene.rules, scene.settings, scene.memo)
        for index, rule in enumerate(owner.spec.tcp or ()):
            handler = layer4.forward(owner, index, rule.route or (), server.port, targets, scene.settings)
            for match in (rule.match or (None,)) if rule.route else ():
                if not layer4.reached(match, server.port, server.gateway, owner):
                    continue
                callers = (match.source_subnet,) if match is not None and match.source_subnet else ()
                yield ir.FilterChain(
                    name=f"{owner.metadata.namespace}/{owner.metadata.name}/tcp-{index}",
                    match=ir.ChainMatch(server_names=names, source_addresses=callers),
                    handler=handler,
                    tls=server.tls if server.speaks is Speaks.TLS else None,
                )
                if not callers:
                    return


def _passed(
    server: Server, owners: Iterable[VirtualService], told: set[str], scene: Scene
) -> Iterator[ir.FilterChain]:
    """TLS that passes through, by SNI. A match with a name that was told before does not count."""
    for owner in owners:
        targets = targets_of(owner, scene.view, scene.rules, scene.settings, scene.memo)
        for index, rule in enumerate(owner.spec.tls or ()):
            for place, match in enumerate(rule.match or ()):
                names = tuple(name.lower() for name in match.sni_hosts)
                if not rule.route or not layer4.reached(match, server.port, server.gateway, owner):
                    continue
                if not told.isdisjoint(names):
                    continue
                told.update(names)
                yield ir.FilterChain(
                    name=f"{owner.metadata.namespace}/{owner.metadata.name}/tls-{index}-{place}",
                    match=ir.ChainMatch(server_names=() if "*" in names else names),
                    handler=layer4.forward(owner, index, rule.route, server.port, targets, scene.settings),
                )


def shared_hosts(server: Server, owner: VirtualService, settings: Settings) -> tuple[str, ...]:
    """Hosts that a server and a VirtualService both mean, each the narrower of the two."""
    found: dict[str, None] = {}
    for namespace, allowed in server.hosts:
        if namespace not in {"*", owner.metadata.namespace}:
            continue
        for host in full_hosts(owner, settings):
            both = narrower(allowed, host)
            if both is not None:
                found[both] = None
    return tuple(found)


def table_of(name: str, servers: tuple[Server, ...], owners: Owners, scene: Scene) -> ir.RouteTable:
    """The table of one plain port, or of one HTTPS server."""
    routes: dict[str, dict[ir.Route, None]] = {}
    redirected: set[str] = set()
    port = servers[0].port
    for server in servers:
        for owner in owners:
            if server.gateway not in istio.bound_to(owner) or not owner.spec.http:
                continue
            hosts = shared_hosts(server, owner, scene.settings)
            made = _routes(server, owner, port, scene) if hosts else ()
            for host in hosts if made else ():
                routes.setdefault(host, {}).update(dict.fromkeys(made))
                if server.redirect:
                    redirected.add(host)
        if server.redirect:
            for _, host in server.hosts:
                routes.setdefault(host, {})
                redirected.add(host)
    nothing = ir.VirtualHost(name=with_port("blackhole", port), domains=("*",), routes=())
    return ir.RouteTable(name=name, virtual_hosts=_hosts(routes, redirected, port) or (nothing,))


def _routes(server: Server, owner: VirtualService, port: int, scene: Scene) -> tuple[ir.Route, ...]:
    return scene.memo(
        istio.http_routes,
        owner,
        port,
        frozenset({server.gateway}),
        frozenset(scene.labels) if scene.memo(istio.wants_labels, owner) else frozenset(),
        scene.view.namespace if scene.memo(istio.wants_namespace, owner) else "",
        targets_of(owner, scene.view, scene.rules, scene.settings, scene.memo),
        scene.settings,
        server.secured,
    )


def _hosts(
    routes: Mapping[str, Mapping[ir.Route, None]], redirected: set[str], port: int
) -> tuple[ir.VirtualHost, ...]:
    """Hosts with the same routes share a virtual host, named after the first of them (Istio's collapse)."""
    groups: dict[tuple[bool, tuple[int, ...]], list[str]] = {}
    for host in sorted(routes, key=specificity):
        groups.setdefault((host in redirected, tuple(map(id, routes[host]))), []).append(host)
    made = [
        ir.VirtualHost(
            name=with_port(hosts[0], port),
            domains=tuple(hosts),
            routes=_sorted(routes[hosts[0]]),
            require_tls=secure,
        )
        for (secure, _), hosts in groups.items()
    ]
    return tuple(sorted(made, key=lambda host: host.name))


def _sorted(routes: Iterable[ir.Route]) -> tuple[ir.Route, ...]:
    """Routes that take everything go last: another VirtualService of the same host may follow."""
    return tuple(sorted(routes, key=lambda route: matches_everything(route.match)))
