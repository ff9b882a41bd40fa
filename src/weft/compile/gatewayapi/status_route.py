"""``status`` of a route: what each of its parents says of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from weft.compile.gatewayapi import layer4
from weft.compile.gatewayapi.backends import backend_of, references
from weft.compile.gatewayapi.binding import Parent
from weft.compile.gatewayapi.conditions import Status, condition
from weft.compile.gatewayapi.facts import GROUP, Facts, Route, Verdict
from weft.compile.gatewayapi.flaws import matches_something, unknown_filters, unsound_matches
from weft.compile.gatewayapi.listeners import ACCEPTED, RESOLVED
from weft.compile.gatewayapi.rivals import settled
from weft.model.gateway import Gateway
from weft.model.grpc_route import GRPCRoute
from weft.model.http_route import HTTPRoute
from weft.model.resource import Key
from weft.model.route import BackendObjectReference, ParentReference

_UNSUPPORTED: Final = "UnsupportedValue"


def route_parents(route: Route, facts: Facts, controller: str) -> list[Status]:
    """What each parent of ours says of a route of any kind, in the order of its parentRefs."""
    parents = facts.memo(judged, route, facts)
    if not parents:
        return []
    dropped = "; ".join(_dropped(route))
    resolved = {mesh: _resolved(route, facts, mesh) for mesh in {one.gateway is None for one in parents}}

    def conditions(parent: Parent) -> Iterator[Status]:
        accepted = parent.reason == ACCEPTED
        yield condition(route.metadata, "Accepted", accepted, parent.reason, parent.message)
        if dropped and accepted:
            yield condition(
                route.metadata, "PartiallyInvalid", True, _UNSUPPORTED, f"Dropped Rule: {dropped}"
            )
        said = resolved[parent.gateway is None]
        yield condition(route.metadata, "ResolvedRefs", said.holds, said.reason, said.message)

    return [
        {
            "parentRef": reference(parent.ref),
            "controllerName": controller_of(
                facts.gateways.get(parent.gateway) if parent.gateway is not None else None, facts, controller
            ),
            "conditions": list(conditions(parent)),
        }
        for parent in parents
    ]


def judged(route: Route, facts: Facts) -> tuple[Parent, ...]:
    """The parents of ours that a route names, each with the last word on whether it is accepted there."""
    found = tuple(parent for parent in settled(route, facts) if parent.owner is not None)
    return tuple(_judge(parent, route) for parent in found)


def _judge(parent: Parent, route: Route) -> Parent:
    if parent.reason != ACCEPTED or not isinstance(route, HTTPRoute | GRPCRoute) or matches_something(route):
        return parent
    return replace(parent, bindings=(), reason=_UNSUPPORTED, message="; ".join(_dropped(route)))


def _dropped(route: Route) -> tuple[str, ...]:
    """Matches that no proxy can be given, with what is wrong with them."""
    if not isinstance(route, HTTPRoute | GRPCRoute):
        return ()
    return tuple(f"{flaw.path}: {flaw.message}" for flaw in unsound_matches(route))


def reference(ref: ParentReference) -> Status:
    """A parentRef with the defaults that the API writes out: group and kind."""
    said: Status = ref.model_dump(mode="json", by_alias=True, exclude_unset=True)
    given = {name: value for name, value in said.items() if value is not None}
    return {"group": GROUP, "kind": "Gateway", **given}


def controller_of(gateway: Gateway | None, facts: Facts, controller: str) -> str:
    """Who speaks for a Gateway: the controller of its class, ``controller`` if no object describes that."""
    name = "" if gateway is None else str(gateway.spec.gateway_class_name)
    found = facts.classes.get(Key(f"{GROUP}/GatewayClass", "", name))
    return controller if found is None else str(found.spec.controller_name)


def backend_references(route: Route) -> tuple[BackendObjectReference, ...]:
    """All that a route of any kind refers to as a backend, mirrors included."""
    if isinstance(route, HTTPRoute | GRPCRoute):
        return tuple(ref for _, ref in references(route))
    return layer4.backends(route)


def _resolved(route: Route, facts: Facts, mesh: bool) -> Verdict:
    """The first reference that leads nowhere: a backend, a mirror, or a filter of an unknown kind."""
    for ref in backend_references(route):
        backend = backend_of(ref, route.metadata.namespace, facts, type(route).__name__, mesh=mesh)
        if backend.reason != RESOLVED:
            return Verdict(holds=False, reason=backend.reason, message=backend.message)
    if isinstance(route, HTTPRoute | GRPCRoute):
        for flaw in unknown_filters(route):
            return Verdict(holds=False, reason=flaw.reason, message=f"{flaw.path}: {flaw.message}")
    return Verdict(reason=RESOLVED)
