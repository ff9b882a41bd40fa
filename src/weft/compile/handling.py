"""What a proxy is told of its headers, limits and buffers: the same for all of its listeners and clusters."""

from __future__ import annotations

from dataclasses import dataclass, replace

from weft import ir
from weft.compile.memo import Memo

_HEADERS = ir.OwnHeaders()
_LIMITS = ir.HttpLimits()
_WITHOUT_CASE = frozenset({ir.UpstreamProtocol.HTTP2, ir.UpstreamProtocol.TCP})


@dataclass(frozen=True, slots=True, kw_only=True)
class Handling:
    """``server``: what answers bear as ``server``; empty: Envoy's own word, or the application's.

    ``client_certificate`` is for what comes in to a sidecar. ``forwarded_host``: where a route changes the
    host, the old one goes along (``x-forwarded-host``). ``edge`` is for gateways: what stands before one.
    """

    server: str = ""
    headers: ir.OwnHeaders = _HEADERS
    client_certificate: ir.ClientCertificate | None = None
    count_attempts: bool = True
    forwarded_host: bool = False
    limits: ir.HttpLimits = _LIMITS
    listener_buffer: int | None = None
    cluster_buffer: int | None = None
    edge: Edge | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """``trusted_hops``: proxies in front whose ``x-forwarded-for`` is believed. ``announced``: they say in a
    PROXY header whose connection it is.
    """

    trusted_hops: int
    certificate: ir.ClientCertificate
    announced: bool


ORDINARY = Handling()


def handled(proxy: ir.Proxy, handling: Handling, memo: Memo) -> ir.Proxy:
    """The proxy under its handling; the very same where nothing is said."""
    if handling == ORDINARY:
        return proxy
    handling = memo.same(handling)
    listeners = tuple(memo(_listener, one, handling) for one in proxy.listeners)
    routes, clusters = proxy.routes, proxy.clusters
    if not handling.count_attempts or handling.forwarded_host:
        routes = tuple(memo(_table, one, handling) for one in routes)
    if handling.headers.keep_case or handling.cluster_buffer is not None:
        clusters = memo(_clusters, clusters, handling, memo)
    return replace(proxy, listeners=listeners, routes=routes, clusters=clusters)


def _listener(listener: ir.Listener, handling: Handling) -> ir.Listener:
    direction, last = listener.direction, listener.default_chain
    edge = handling.edge if direction is ir.Direction.GATEWAY else None
    receive = listener.receive
    if edge is not None and receive in {ir.Receive.BOUND, ir.Receive.PROXY_PROTOCOL}:
        receive = ir.Receive.PROXY_PROTOCOL if edge.announced else ir.Receive.BOUND
    return replace(
        listener,
        receive=receive,
        chains=tuple(_chain(chain, direction, handling) for chain in listener.chains),
        default_chain=None if last is None else _chain(last, direction, handling),
        buffer_limit=handling.listener_buffer,
    )


def _chain(chain: ir.FilterChain, direction: ir.Direction, handling: Handling) -> ir.FilterChain:
    handler = chain.handler
    if not isinstance(handler, ir.HttpHandler):
        return chain
    routes = handler.routes if isinstance(handler.routes, str) else _table(handler.routes, handling)
    headers = handling.headers
    if direction is not ir.Direction.INBOUND:
        headers = replace(headers, certificate=handler.headers.certificate)
    made = replace(
        handler, routes=routes, headers=headers, server_name=handling.server, limits=handling.limits
    )
    if direction is ir.Direction.INBOUND and handling.client_certificate is not None:
        made = replace(made, client_certificate=handling.client_certificate)
    if direction is ir.Direction.GATEWAY and handling.edge is not None:
        edge = handling.edge
        made = replace(made, trusted_hops=edge.trusted_hops, client_certificate=edge.certificate)
    return replace(chain, handler=made)


def _table(table: ir.RouteTable, handling: Handling) -> ir.RouteTable:
    return replace(table, virtual_hosts=tuple(_host(host, handling) for host in table.virtual_hosts))


def _host(host: ir.VirtualHost, handling: Handling) -> ir.VirtualHost:
    routes = tuple(map(_route, host.routes)) if handling.forwarded_host else host.routes
    return replace(host, routes=routes, count_attempts=host.count_attempts and handling.count_attempts)


def _route(route: ir.Route) -> ir.Route:
    if not isinstance(route.action, ir.Forward):
        return route
    return replace(route, action=replace(route.action, append_forwarded_host=True))


def _clusters(clusters: tuple[ir.Cluster, ...], handling: Handling, memo: Memo) -> tuple[ir.Cluster, ...]:
    return tuple(memo(_cluster, cluster, handling) for cluster in clusters)


def _cluster(cluster: ir.Cluster, handling: Handling) -> ir.Cluster:
    keeps = handling.headers.keep_case and cluster.protocol not in _WITHOUT_CASE
    return replace(cluster, keep_case=keeps, buffer_limit=handling.cluster_buffer)
