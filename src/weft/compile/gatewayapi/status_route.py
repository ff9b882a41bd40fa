"""``status`` of a route: what each of its parents says of it."""

from __future__ import annotations

from collections.abc import Iterator

from weft.compile.gatewayapi.backends import backend_of
from weft.compile.gatewayapi.binding import parents_of
from weft.compile.gatewayapi.conditions import Status, condition
from weft.compile.gatewayapi.facts import GROUP, Facts, Route
from weft.compile.gatewayapi.listeners import ACCEPTED, RESOLVED
from weft.model.gateway import Gateway
from weft.model.http_route import HTTPBackendRef
from weft.model.resource import Key
from weft.model.route import BackendObjectReference, ParentReference


def route_parents(route: Route, facts: Facts, controller: str) -> list[Status]:
    """What each parent of ours says of a route of any kind, in the order of its parentRefs."""
    parents = [parent for parent in facts.memo(parents_of, route, facts) if parent.gateway is not None]
    resolved, message = _resolved(route, facts) if parents else (RESOLVED, "")
    return [
        {
            "parentRef": reference(parent.ref),
            "controllerName": controller_of(facts.gateways.get(parent.gateway), facts, controller),
            "conditions": [
                condition(
                    route.metadata, "Accepted", parent.reason == ACCEPTED, parent.reason, parent.message
                ),
                condition(route.metadata, "ResolvedRefs", resolved == RESOLVED, resolved, message),
            ],
        }
        for parent in parents
        if parent.gateway is not None
    ]


def reference(ref: ParentReference) -> Status:
    """A parentRef with the defaults that the API writes out: group and kind."""
    said: Status = ref.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {
        "group": GROUP,
        "kind": "Gateway",
        **{name: value for name, value in said.items() if value is not None},
    }


def controller_of(gateway: Gateway | None, facts: Facts, controller: str) -> str:
    """Who speaks for a Gateway: the controller of its class, ``controller`` if no object describes that."""
    name = "" if gateway is None else str(gateway.spec.gateway_class_name)
    found = facts.classes.get(Key(f"{GROUP}/GatewayClass", "", name))
    return controller if found is None else str(found.spec.controller_name)


def _resolved(route: Route, facts: Facts) -> tuple[str, str]:
    """The first reference that leads nowhere, backends and mirrors alike."""
    for ref in _references(route):
        backend = backend_of(ref, route.metadata.namespace, facts, str(route.kind))
        if backend.reason != RESOLVED:
            return backend.reason, backend.message
    return RESOLVED, ""


def _references(route: Route) -> Iterator[HTTPBackendRef | BackendObjectReference]:
    for rule in route.spec.rules or ():
        yield from rule.backend_refs or ()
        for filters in (rule, *(rule.backend_refs or ())):
            for item in getattr(filters, "filters", None) or ():
                if item.request_mirror is not None:
                    yield item.request_mirror.backend_ref
