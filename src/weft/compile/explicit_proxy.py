"""The proxy that applications are told of by ``http_proxy`` and ``https_proxy``: its listener and its table.

Requests in clear text name their host in the request line. For everything else clients ask for a tunnel
(CONNECT) to a host and port: one of the mesh's TCP or TLS ports, or, in an open mesh, anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from weft import ir
from weft.compile.outbound import ANYWHERE
from weft.compile.policy import Policy
from weft.compile.protocol import Protocol
from weft.compile.routes import NO_TIMEOUT, catch_all, default_route, service_host, unique
from weft.compile.service import Resolution
from weft.compile.settings import Settings
from weft.compile.view import View
from weft.names import outbound_cluster

TABLE: Final = "http_proxy"

ByPort = tuple[tuple[int, tuple[ir.VirtualHost, ...]], ...]
"""Virtual hosts by port; their domains are without it."""


def own_address(attachment: ir.Attachment) -> str:
    """Where a sidecar listens for its application only."""
    own = attachment.outbound_address
    return "127.0.0.1" if own == ANYWHERE else own


def listener(attachment: ir.Attachment, port: int) -> ir.Listener:
    """Where applications reach the proxy that their environment names."""
    return proxy_listener(own_address(attachment), port, TABLE)


def proxy_listener(address: str, port: int, table: str) -> ir.Listener:
    """Where applications ask for hosts by their names."""
    name = f"{address}_{port}"
    handler = ir.HttpHandler(stat_prefix=f"outbound_{name}", routes=table, explicit_proxy=True, grpc=True)
    return ir.Listener(
        name=name,
        direction=ir.Direction.OUTBOUND,
        address=address,
        port=port,
        receive=ir.Receive.BOUND,
        chains=(ir.FilterChain(name=name, match=ir.ChainMatch(), handler=handler),),
    )


def table(hosts: ByPort, tunnels: ByPort, settings: Settings, name: str = TABLE) -> ir.RouteTable:
    """All ports at once: names bear the port, but for 80."""
    merged: list[ir.VirtualHost] = []
    for port, group in (*hosts, *tunnels):
        for host in group:
            ported = tuple(f"{domain}:{port}" for domain in host.domains)
            merged.append(replace(host, domains=(*host.domains, *ported) if port == 80 else ported))
    rest = catch_all(settings)
    elsewhere = _tunnel(settings.elsewhere)
    if not settings.outbound_any:
        elsewhere = replace(elsewhere, action=ir.Respond(status=502))
    return ir.RouteTable(
        name=name,
        virtual_hosts=(
            *unique(merged),
            replace(rest, routes=(replace(elsewhere, name=rest.name), *rest.routes)),
        ),
        ignore_port_in_host=False,
    )


def tunnels_of(view: View, settings: Settings) -> ByPort:
    """Tunnels to the ports of a view whose protocol is known not to be HTTP.

    Requests that a client addresses to a TCP port are passed on, too: it does not know what was declared.
    """
    found: list[tuple[int, tuple[ir.VirtualHost, ...]]] = []
    for service in view.services:
        if service.resolution is Resolution.ALIAS:
            continue
        for port in service.ports:
            if not port.protocol.may_be_http and port.protocol is not Protocol.UDP:
                routes = [_tunnel(outbound_cluster(service.host, port.number))]
                if port.protocol is Protocol.TCP:
                    routes.append(default_route(service, port, Policy(), settings))
                host = service_host(service, port.number, tuple(routes), view.namespace, settings.domain, ())
                found.append((port.number, (host,)))
    return tuple(found)


def _tunnel(cluster: str) -> ir.Route:
    return ir.Route(
        name="tunnel",
        match=ir.RequestMatch(connect=True),
        action=ir.Forward(destinations=(ir.Destination(cluster=cluster),), timeout=NO_TIMEOUT, tunnel=True),
    )


def named(clusters: Iterable[ir.Cluster]) -> tuple[ir.Cluster, ...]:
    """Clusters for clients that name their host: nobody knows an original destination here."""
    return tuple(
        replace(cluster, discovery=ir.Discovery.NAMED)
        if cluster.discovery is ir.Discovery.ORIGINAL_DST
        else cluster
        for cluster in clusters
    )
