"""HTTPRoutes and GRPCRoutes that mean the same host names at a listener: the older kind has them alone."""

from __future__ import annotations

from dataclasses import replace
from heapq import merge

from weft.compile.age import age
from weft.compile.gatewayapi.binding import Attached, Parent, attached, parents_of
from weft.compile.gatewayapi.facts import Facts, Route
from weft.compile.gatewayapi.mesh import CONFLICTED, mesh_parent
from weft.compile.gatewayapi.routes import RequestRoute
from weft.compile.hosts import overlaps
from weft.model.gateway import Gateway
from weft.model.grpc_route import GRPCRoute
from weft.model.http_route import HTTPRoute
from weft.model.resource import Key

_Place = tuple[Key, str]
"""The owner of a listener, and its name."""


def request_routes(gateway: Gateway, facts: Facts) -> Attached[RequestRoute]:
    """HTTPRoutes and GRPCRoutes of a Gateway, the oldest first, without bindings that another kind has."""
    lost = facts.memo(_lost, gateway, facts)
    return tuple(
        (route, tuple(_without(parent, lost.get(route.key)) for parent in parents))
        for route, parents in _all(gateway, facts)
    )


def settled(route: Route, facts: Facts, ground: Facts | None = None) -> tuple[Parent, ...]:
    """All parents of a route, services of the mesh among them (these have an ``owner`` and no ``gateway``).

    Where it lost every host name to a route of the other kind, it is refused. ``ground``: that of ``facts``.
    """
    found: list[Parent] = []
    rivals = bool(facts.routes) and bool(facts.grpc_routes)
    for parent in facts.memo(parents_of, route, ground or facts.ground):
        meshed = mesh_parent(parent.place, parent.ref, route, facts)
        if meshed is not None or not isinstance(route, HTTPRoute | GRPCRoute):
            found.append(meshed or parent)
            continue
        gateway = facts.gateways.get(parent.gateway) if parent.gateway is not None and rivals else None
        lost = facts.memo(_lost, gateway, facts).get(route.key) if gateway is not None else None
        found.append(_without(parent, lost))
    return tuple(found)


def _all(gateway: Gateway, facts: Facts) -> Attached[RequestRoute]:
    return tuple(
        merge(
            attached(facts.routes, gateway, facts),
            attached(facts.grpc_routes, gateway, facts),
            key=lambda item: age(item[0].metadata),
        )
    )


def _lost(gateway: Gateway, facts: Facts) -> dict[Key, frozenset[_Place]]:
    """The listeners at which a route has to yield to an older one of the other kind (specification)."""
    if not facts.routes or not facts.grpc_routes:
        return {}
    held: dict[_Place, list[tuple[type[RequestRoute], str]]] = {}
    lost: dict[Key, set[_Place]] = {}
    for route, parents in _all(gateway, facts):
        kind = type(route)
        for binding in (binding for parent in parents for binding in parent.bindings):
            place = (binding.owner, binding.listener)
            others = held.setdefault(place, [])
            if any(
                other is not kind and overlaps(name, own)
                for other, name in others
                for own in binding.hostnames
            ):
                lost.setdefault(route.key, set()).add(place)
            else:
                others += ((kind, name) for name in binding.hostnames)
    return {key: frozenset(places) for key, places in lost.items()}


def _without(parent: Parent, lost: frozenset[_Place] | None) -> Parent:
    if not lost or not parent.bindings:
        return parent
    kept = tuple(binding for binding in parent.bindings if (binding.owner, binding.listener) not in lost)
    if kept:
        return replace(parent, bindings=kept)
    message = "an older route of the other kind, HTTPRoute or GRPCRoute, has these host names"
    return replace(parent, bindings=(), reason=CONFLICTED, message=message)
