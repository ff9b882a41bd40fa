"""Route tables of Gateway API listeners: those of one port share what the specification lets them share."""

from __future__ import annotations

from collections.abc import Iterable

from weft import ir
from weft.compile.gatewayapi.backends import backends_of
from weft.compile.gatewayapi.binding import Attached, bound
from weft.compile.gatewayapi.facts import Facts
from weft.compile.gatewayapi.listeners import Listener
from weft.compile.gatewayapi.match import Order
from weft.compile.gatewayapi.routes import RequestRoute, routes_of
from weft.compile.hosts import covers, specificity, with_port
from weft.compile.memo import Memo
from weft.compile.rules import Rules


def hosts_of(
    listener: Listener,
    rivals: Iterable[Listener],
    routes: Attached[RequestRoute],
    facts: Facts,
    rules: Rules,
    memo: Memo,
) -> tuple[ir.VirtualHost, ...]:
    """Virtual hosts of one listener. A name that a rival at the same port has more exactly is the rival's."""
    tls = listener.tls is not None
    found: dict[str, list[tuple[Order, int, ir.Route]]] = {listener.hostname: []}
    others = [rival.hostname for rival in rivals if rival is not listener]
    ground = facts.ground
    for number, (route, names) in enumerate(bound(listener, routes)):
        backends = backends_of(route, ground, rules, memo)
        made = memo(routes_of, route, listener.port, tls, backends, facts.settings)
        for name in names:
            if not _belongs_elsewhere(name, listener.hostname, others):
                found.setdefault(name, []).extend((key, number, item) for key, item in made)
    return tuple(
        memo(
            _virtual_host,
            name,
            listener.port,
            tuple(item for _, _, item in sorted(found[name], key=lambda entry: entry[:2])),
        )
        for name in sorted(found, key=specificity)
    )


def _virtual_host(name: str, port: int, routes: tuple[ir.Route, ...]) -> ir.VirtualHost:
    return ir.VirtualHost(name=with_port(name, port), domains=(name,), routes=routes)


def _belongs_elsewhere(name: str, own: str, others: list[str]) -> bool:
    """Whether another listener's host name covers a name, and is more specific than the own one."""
    return any(covers(other, name) and other != own and covers(own, other) for other in others)
