"""Route tables of Gateway API listeners: those of one port share what the specification lets them share."""

from __future__ import annotations

from collections.abc import Iterable

from weft import ir
from weft.compile.age import age
from weft.compile.gatewayapi.binding import Parent, parents_of
from weft.compile.gatewayapi.facts import Facts
from weft.compile.gatewayapi.http_route import Order, routes_of
from weft.compile.gatewayapi.listeners import Listener
from weft.compile.hosts import covers, specificity, with_port
from weft.compile.memo import Memo
from weft.model.gateway import Gateway
from weft.model.http_route import HTTPRoute

Attached = tuple[tuple[HTTPRoute, tuple[Parent, ...]], ...]


def attached(gateway: Gateway, facts: Facts, memo: Memo) -> Attached:
    """Routes with a parentRef to a Gateway, the oldest first."""
    found = []
    for route in sorted(facts.routes.values(), key=lambda route: age(route.metadata)):
        parents = tuple(p for p in memo(parents_of, route, facts) if p.gateway == gateway.key)
        if parents:
            found.append((route, parents))
    return tuple(found)


def hosts_of(
    listener: Listener, rivals: Iterable[Listener], routes: Attached, facts: Facts, memo: Memo
) -> tuple[ir.VirtualHost, ...]:
    """Virtual hosts of one listener. A name that a rival at the same port has more exactly is the rival's."""
    tls = listener.tls is not None
    found: dict[str, list[tuple[Order, int, ir.Route]]] = {listener.hostname: []}
    others = [rival.hostname for rival in rivals if rival is not listener]
    for number, (route, parents) in enumerate(routes):
        names = {
            name
            for parent in parents
            for binding in parent.bindings
            if binding.at(listener)
            for name in binding.hostnames
        }
        made = memo(routes_of, route, listener.port, tls, facts) if names else ()
        for name in names:
            if _belongs_elsewhere(name, listener.hostname, others):
                continue
            found.setdefault(name, []).extend((key, number, item) for key, item in made)
    return tuple(
        ir.VirtualHost(
            name=with_port(name, listener.port),
            domains=(name,),
            routes=tuple(item for _, _, item in sorted(found[name], key=lambda entry: entry[:2])),
        )
        for name in sorted(found, key=specificity)
    )


def _belongs_elsewhere(name: str, own: str, others: list[str]) -> bool:
    """Whether another listener's host name covers a name, and is more specific than the own one."""
    return any(covers(other, name) and other != own and covers(own, other) for other in others)
