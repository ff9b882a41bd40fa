"""What TLSRoute, TCPRoute and UDPRoute have in common: one rule, whose backends have weights."""

from __future__ import annotations

from collections.abc import Iterable

from weft import ir
from weft.compile.gatewayapi.backends import UNKNOWN, backend_of
from weft.compile.gatewayapi.facts import Facts
from weft.compile.sources import source
from weft.model.route import BackendRef
from weft.model.tcp_route import TCPRoute
from weft.model.tls_route import TLSRoute
from weft.model.udp_route import UDPRoute

NOWHERE = (ir.Destination(cluster=UNKNOWN),)
"""A cluster that does not exist: connections are closed at once, datagrams dropped."""


def backends(route: TLSRoute | TCPRoute | UDPRoute) -> tuple[BackendRef, ...]:
    """The backends of a route's one rule."""
    return tuple(ref for rule in route.spec.rules[:1] for ref in rule.backend_refs or ())


def weighted(parts: Iterable[tuple[str, int | None]]) -> tuple[ir.Destination, ...]:
    """Clusters with their weights, 1 unless said otherwise. What weighs nothing gets nothing."""
    found = tuple(
        ir.Destination(cluster=cluster, weight=1 if weight is None else weight) for cluster, weight in parts
    )
    return tuple(part for part in found if part.weight) or NOWHERE


def tcp_handler(route: TLSRoute | TCPRoute, facts: Facts) -> ir.TcpHandler:
    """A TCP proxy to the backends of a route; what is lost of them takes its share with it."""
    owner, kind = route.metadata.namespace, type(route).__name__
    return ir.TcpHandler(
        stat_prefix=f"{route.metadata.name}.{owner}",
        destinations=weighted(
            (backend_of(ref, owner, facts, kind).cluster, ref.weight) for ref in backends(route)
        ),
        source=source(route.key, 0),
    )
