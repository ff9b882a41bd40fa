"""HTTPRoutes and GRPCRoutes that mean the same host names at a listener: the older kind has them alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from heapq import merge
from typing import Final

from weft.compile.age import age
from weft.compile.gatewayapi.binding import Attached, Parent, attached, parents_of
from weft.compile.gatewayapi.facts import Facts, Route
from weft.compile.gatewayapi.mesh import CONFLICTED, mesh_parent
from weft.compile.gatewayapi.routes import RequestRoute
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
    held: dict[tuple[_Place, bool], _Names] = {}
    lost: dict[Key, set[_Place]] = {}
    for route, parents in _all(gateway, facts):
        rpc = isinstance(route, GRPCRoute)
        for binding in (binding for parent in parents for binding in parent.bindings):
            place = (binding.owner, binding.listener)
            others = held.get((place, not rpc), _NOTHING)
            if any(map(others.overlap, binding.hostnames)):
                lost.setdefault(route.key, set()).add(place)
            else:
                own = held.setdefault((place, rpc), _Names())
                for name in binding.hostnames:
                    own.add(name)
    return {key: frozenset(places) for key, places in lost.items()}


class _Names:
    """Host names, ``*.example.com`` among them, of which one finds out at once whether another overlaps."""

    def __init__(self) -> None:
        self._all: set[str] = set()
        self._above: set[str] = set()

    def add(self, name: str) -> None:
        self._all.add(name)
        self._above.update(_parents(name))

    def overlap(self, name: str) -> bool:
        """Whether some name is meant by ``name`` and by one of these."""
        if name in self._all or "*" in self._all or (name == "*" and self._all):
            return True
        if any(f"*.{parent}" in self._all for parent in _parents(name)):
            return True
        return name.startswith("*.") and name[2:] in self._above


_NOTHING: Final = _Names()


def _parents(name: str) -> Iterator[str]:
    """``b.c`` and ``c`` of ``a.b.c``, and of ``*.a.b.c``."""
    _, _, rest = name.removeprefix("*.").partition(".")
    while rest:
        yield rest
        _, _, rest = rest.partition(".")


def _without(parent: Parent, lost: frozenset[_Place] | None) -> Parent:
    if not lost or not parent.bindings:
        return parent
    kept = tuple(binding for binding in parent.bindings if (binding.owner, binding.listener) not in lost)
    if kept:
        return replace(parent, bindings=kept)
    message = "an older route of the other kind, HTTPRoute or GRPCRoute, has these host names"
    return replace(parent, bindings=(), reason=CONFLICTED, message=message)
