"""TLSRoute: connections by their server name, inside TLS that passes through or ends here."""

from __future__ import annotations

from collections.abc import Sequence

from weft import ir
from weft.compile.gatewayapi.binding import Attached, bound
from weft.compile.gatewayapi.facts import Facts
from weft.compile.gatewayapi.isolation import belongs
from weft.compile.gatewayapi.layer4 import tcp_handler
from weft.compile.gatewayapi.listeners import Listener
from weft.compile.hosts import covers
from weft.model.tcp_route import TCPRoute
from weft.model.tls_route import TLSRoute
from weft.names import BLACKHOLE_CLUSTER


def chains(
    listener: Listener,
    rivals: Sequence[Listener],
    tls_routes: Attached[TLSRoute],
    tcp_routes: Attached[TCPRoute],
    facts: Facts,
) -> tuple[ir.FilterChain, ...]:
    """Chains of a listener of protocol TLS. Of several routes for a name the oldest takes it.

    TCPRoutes, which have no names, take what TLSRoutes leave of the listener's own name.
    """
    found: dict[str, ir.FilterChain] = {}
    routes: list[tuple[TLSRoute | TCPRoute, tuple[str, ...]]] = []
    routes += bound(listener, tls_routes)
    routes += bound(listener, tcp_routes)
    for route, names in routes:
        for name in names:
            if name not in found and belongs(name, listener, rivals):
                found[name] = _chain(listener, name, tcp_handler(route, facts))
    wider = any(
        rival is not listener
        and rival.hostname != listener.hostname
        and covers(rival.hostname, listener.hostname)
        for rival in rivals
    )
    if listener.hostname not in found and wider:
        # Else a connection for the names of this listener would be the wider one's.
        nothing = ir.TcpHandler(
            stat_prefix=BLACKHOLE_CLUSTER, destinations=(ir.Destination(cluster=BLACKHOLE_CLUSTER),)
        )
        found[listener.hostname] = _chain(listener, listener.hostname, nothing)
    return tuple(found.values())


def _chain(listener: Listener, name: str, handler: ir.TcpHandler) -> ir.FilterChain:
    match = ir.ChainMatch(server_names=() if name == "*" else (name,))
    title = f"tls.{listener.port}.{name}.{listener.owner.namespace}.{listener.owner.name}.{listener.name}"
    return ir.FilterChain(name=title, match=match, handler=handler, tls=listener.tls)
