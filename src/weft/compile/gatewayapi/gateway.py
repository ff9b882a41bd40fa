"""A Gateway API Gateway as listeners and route tables of its proxy."""

from __future__ import annotations

from dataclasses import dataclass

from weft import ir
from weft.compile.gatewayapi.facts import Facts
from weft.compile.gatewayapi.listeners import Listener, merged
from weft.compile.gatewayapi.tables import attached, hosts_of
from weft.compile.memo import Memo
from weft.compile.outbound import ANYWHERE
from weft.compile.server import edge_handler
from weft.compile.sources import source
from weft.model.gateway import Gateway
from weft.names import GATEWAY_NAME_LABEL


@dataclass(frozen=True, slots=True, eq=False)
class Edge:
    """What a Gateway adds to its proxy."""

    listeners: tuple[ir.Listener, ...]
    tables: tuple[ir.RouteTable, ...]


def gateway_named(facts: Facts, namespace: str, labels: tuple[tuple[str, str], ...]) -> Gateway | None:
    """The Gateway that a proxy is for: in its own namespace, named by its label."""
    name = dict(labels).get(GATEWAY_NAME_LABEL)
    for key, gateway in facts.gateways.items():
        if (key.namespace, key.name) == (namespace, name) and facts.ours(gateway):
            return gateway
    return None


def edge_of(gateway: Gateway, facts: Facts, port_map: tuple[tuple[int, int], ...], memo: Memo) -> Edge:
    """All sound listeners of a Gateway. HTTP listeners of a port share a table, HTTPS ones have their own."""
    routes = attached(gateway, facts, memo)
    by_port: dict[int, list[Listener]] = {}
    for listener in merged(gateway, facts):
        if listener.sound and listener.protocol in {"HTTP", "HTTPS"}:
            by_port.setdefault(listener.port, []).append(listener)
    listeners: list[ir.Listener] = []
    tables: list[ir.RouteTable] = []
    for port, group in sorted(by_port.items()):
        chains: list[ir.FilterChain] = []
        name = f"{ANYWHERE}_{port}"
        if group[0].tls is None:
            table = f"http.{port}"
            hosts = tuple(host for item in group for host in hosts_of(item, group, routes, facts, memo))
            tables.append(ir.RouteTable(name=table, virtual_hosts=_merged(hosts)))
            chains.append(
                ir.FilterChain(
                    name=name, match=ir.ChainMatch(), handler=edge_handler(name, table, facts.settings)
                )
            )
        else:
            for item in group:
                table = f"https.{port}.{item.name}.{gateway.metadata.name}.{gateway.metadata.namespace}"
                own = hosts_of(item, group, routes, facts, memo)
                tables.append(ir.RouteTable(name=table, virtual_hosts=_merged(own)))
                names = () if item.hostname == "*" else (item.hostname,)
                chains.append(
                    ir.FilterChain(
                        name=table,
                        match=ir.ChainMatch(server_names=names),
                        handler=edge_handler(name, table, facts.settings),
                        tls=item.tls,
                    )
                )
        listeners.append(
            ir.Listener(
                name=name,
                direction=ir.Direction.GATEWAY,
                address=ANYWHERE,
                port=dict(port_map).get(port, port),
                receive=ir.Receive.BOUND,
                chains=tuple(chains),
                inspect_tls=group[0].tls is not None,
                inspect_timeout=facts.settings.detection_timeout,
                source=source(gateway.key),
            )
        )
    return Edge(tuple(listeners), tuple(tables))


def _merged(hosts: tuple[ir.VirtualHost, ...]) -> tuple[ir.VirtualHost, ...]:
    """One virtual host a name: Envoy refuses a domain that stands twice."""
    found: dict[str, ir.VirtualHost] = {}
    for host in hosts:
        known = found.get(host.name)
        if known is None or (not known.routes and host.routes):
            found[host.name] = host
    return tuple(found[name] for name in sorted(found))
