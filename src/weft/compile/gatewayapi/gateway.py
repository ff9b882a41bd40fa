"""A Gateway API Gateway as listeners, route tables and clusters of its proxy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from weft import ir
from weft.compile import quic
from weft.compile.clusters import Peers
from weft.compile.gatewayapi import tls_route, udp_route
from weft.compile.gatewayapi.binding import attached, bound
from weft.compile.gatewayapi.facts import Facts
from weft.compile.gatewayapi.isolation import misdirected
from weft.compile.gatewayapi.layer4 import tcp_handler
from weft.compile.gatewayapi.listeners import Listener, merged
from weft.compile.gatewayapi.rivals import request_routes
from weft.compile.gatewayapi.status_gateway import refusal
from weft.compile.gatewayapi.tables import hosts_of
from weft.compile.hosts import specificity
from weft.compile.istio import auto_passthrough
from weft.compile.memo import Memo
from weft.compile.outbound import ANYWHERE
from weft.compile.rules import Rules
from weft.compile.server import Server, Speaks, edge_handler, edge_receive
from weft.compile.sources import source
from weft.compile.view import View
from weft.model.gateway import Gateway
from weft.names import GATEWAY_NAME_LABEL

PeersByService = Mapping[tuple[str, str], Peers]


@dataclass(frozen=True, slots=True, eq=False)
class Edge:
    """What a Gateway adds to its proxy.

    ``clusters``: those that only it needs. ``servers``: those that join networks, which need more of them.
    """

    listeners: tuple[ir.Listener, ...]
    tables: tuple[ir.RouteTable, ...]
    clusters: tuple[ir.Cluster, ...] = ()
    servers: tuple[Server, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What the parts of an edge are made from."""

    gateway: Gateway
    facts: Facts
    view: View
    rules: Rules
    peers: PeersByService
    memo: Memo


_Part = tuple[list[ir.FilterChain], list[ir.RouteTable]]


def gateway_named(facts: Facts, namespace: str, labels: tuple[tuple[str, str], ...]) -> Gateway | None:
    """The Gateway that a proxy is for: in its own namespace, named by its label."""
    name = dict(labels).get(GATEWAY_NAME_LABEL)
    for key, gateway in facts.gateways.items():
        if (key.namespace, key.name) == (namespace, name) and facts.ours(gateway):
            return gateway
    return None


def edge_of(
    gateway: Gateway,
    facts: Facts,
    view: View,
    rules: Rules,
    peers: PeersByService,
    port_map: tuple[tuple[int, int], ...],
    memo: Memo,
) -> Edge:
    """All sound listeners of a Gateway. HTTP listeners of a port share a table, HTTPS ones have their own."""
    if refusal(gateway, facts) is not None:
        return Edge((), ())
    scene = Scene(gateway, facts, view, rules, peers, memo)
    ports: dict[tuple[bool, int], list[Listener]] = {}
    servers: list[Server] = []
    for listener in merged(gateway, facts):
        if listener.sound:
            ports.setdefault((listener.layer == "UDP", listener.port), []).append(listener)
            servers += (_server(listener),) if listener.automatic else ()
    listeners: list[ir.Listener] = []
    tables: list[ir.RouteTable] = []
    clusters: dict[str, ir.Cluster] = {}
    for (datagrams, port), group in sorted(ports.items()):
        bind = dict(port_map).get(port, port)
        if datagrams:
            found = _udp(group[0], bind, scene)
            if found is not None:
                listeners.append(found[0])
                clusters |= {cluster.name: cluster for cluster in found[1]}
            continue
        over_quic = quic.asked_for(gateway.metadata.annotations) and (True, port) not in ports
        chains, own = _chains(port, group, quic.offer(bind) if over_quic else "", scene)
        tables += own
        if chains:
            made = _listener(port, bind, chains, gateway, facts)
            twin = quic.beside(made, chains) if over_quic else None
            listeners += (made, twin) if twin is not None else (made,)
    return Edge(
        tuple(memo.same(listener) for listener in listeners),
        tuple(tables),
        tuple(memo.same(cluster) for cluster in clusters.values()),
        tuple(memo.same(server) for server in servers),
    )


def _listener(
    port: int, bind: int, chains: Sequence[ir.FilterChain], gateway: Gateway, facts: Facts
) -> ir.Listener:
    return ir.Listener(
        name=f"{ANYWHERE}_{port}",
        direction=ir.Direction.GATEWAY,
        address=ANYWHERE,
        port=bind,
        receive=edge_receive(facts.settings),
        chains=tuple(chains),
        inspect_tls=any(chain.tls is not None or chain.match.server_names for chain in chains),
        inspect_timeout=facts.settings.detection_timeout,
        source=source(gateway.key),
    )


def _chains(port: int, group: Sequence[Listener], offer: str, scene: Scene) -> _Part:
    """Chains and tables of a port's listeners, which share a layer. ``offer``: where HTTP/3 is."""
    match group[0].layer:
        case "HTTP":
            return _http(port, group, scene)
        case "TLS":
            return _tls(group, offer, scene)
    return _tcp(group[0], scene), []


def _http(port: int, group: Sequence[Listener], scene: Scene) -> _Part:
    name, table = f"{ANYWHERE}_{port}", f"http.{port}"
    routes = scene.memo(request_routes, scene.gateway, scene.facts)
    hosts = tuple(
        host for item in group for host in hosts_of(item, group, routes, scene.facts, scene.rules, scene.memo)
    )
    handler = edge_handler(name, table, scene.facts.settings)
    chain = ir.FilterChain(name=name, match=ir.ChainMatch(), handler=handler)
    return [chain], [scene.memo(_table, table, _merged(hosts), "")]


def _tls(group: Sequence[Listener], offer: str, scene: Scene) -> _Part:
    facts, gateway = scene.facts, scene.gateway
    tls_routes = attached(facts.tls_routes, gateway, facts)
    tcp_routes = attached(facts.tcp_routes, gateway, facts)
    requests = scene.memo(request_routes, gateway, facts)
    https = [item for item in group if item.protocol == "HTTPS"]
    chains: list[ir.FilterChain] = []
    tables: list[ir.RouteTable] = []
    for item in group:
        if item.automatic:
            chains += auto_passthrough.chains_of(_server(item), scene.view, scene.rules)
        if item.protocol != "HTTPS":
            chains += tls_route.chains(item, group, tls_routes, tcp_routes, facts)
            continue
        table = _table_name(item)
        hosts = hosts_of(item, https, requests, facts, scene.rules, scene.memo)
        own = (name for host in hosts for name in host.domains)
        hosts = (*hosts, *misdirected(item, https, own, scene.memo))
        chain = ir.FilterChain(
            name=table,
            match=ir.ChainMatch(server_names=() if item.hostname == "*" else (item.hostname,)),
            handler=edge_handler(f"{ANYWHERE}_{item.port}", table, facts.settings, tls=item.tls),
            tls=item.tls,
        )
        chains.append(chain)
        tables.append(scene.memo(_table, table, _merged(hosts), offer if quic.possible(chain) else ""))
    # What names a host more exactly goes first, so that a reader meets the chains as Envoy tries them.
    chains.sort(key=lambda chain: specificity(next(iter(chain.match.server_names), "*")))
    return chains, tables


def _server(listener: Listener) -> Server:
    """A listener that joins networks, in the form that Istio's Gateways have."""
    return Server(
        gateway=f"{listener.owner.namespace}/{listener.owner.name}",
        port=listener.port,
        name=listener.name,
        speaks=Speaks.PASSTHROUGH,
        hosts=(("*", listener.hostname),),
        automatic=True,
        source=listener.owner,
    )


def _table(name: str, hosts: tuple[ir.VirtualHost, ...], offer: str) -> ir.RouteTable:
    made = ir.RouteTable(name=name, virtual_hosts=hosts)
    return quic.told(made, offer) if offer else made


def _table_name(listener: Listener) -> str:
    """Istio's name of a table; a ListenerSet's says what it is, as a Gateway may have the same name."""
    owner = listener.owner
    kind = "listenerset." if owner.kind.endswith("/ListenerSet") else ""
    return f"https.{listener.port}.{listener.name}.{kind}{owner.name}.{owner.namespace}"


def _tcp(listener: Listener, scene: Scene) -> list[ir.FilterChain]:
    """The chain of the oldest TCPRoute: connections have nothing to tell others by."""
    routes = bound(listener, attached(scene.facts.tcp_routes, scene.gateway, scene.facts))
    if not routes:
        return []
    name = f"{ANYWHERE}_{listener.port}"
    return [ir.FilterChain(name=name, match=ir.ChainMatch(), handler=tcp_handler(routes[0][0], scene.facts))]


def _udp(listener: Listener, bind: int, scene: Scene) -> tuple[ir.Listener, tuple[ir.Cluster, ...]] | None:
    """The listener of the oldest UDPRoute, and its clusters."""
    facts = scene.facts
    routes = bound(listener, attached(facts.udp_routes, scene.gateway, facts))
    if not routes:
        return None
    route = routes[0][0]
    made = ir.Listener(
        name=quic.name_of(f"{ANYWHERE}_{listener.port}"),
        direction=ir.Direction.GATEWAY,
        address=ANYWHERE,
        port=bind,
        receive=ir.Receive.BOUND,
        chains=(),
        udp=udp_route.handler(route, facts),
        source=source(scene.gateway.key),
    )
    return made, udp_route.clusters(route, facts, scene.rules, scene.peers)


def _merged(hosts: tuple[ir.VirtualHost, ...]) -> tuple[ir.VirtualHost, ...]:
    """One virtual host a name: Envoy refuses a domain that stands twice."""
    found: dict[str, ir.VirtualHost] = {}
    for host in hosts:
        known = found.get(host.name)
        if known is None or (not known.routes and host.routes):
            found[host.name] = host
    return tuple(found[name] for name in sorted(found))
