"""``status`` of a route: what each of its parents says of it."""

from __future__ import annotations

from weft.compile.gatewayapi.backends import backend_of
from weft.compile.gatewayapi.binding import parents_of
from weft.compile.gatewayapi.conditions import Status, condition
from weft.compile.gatewayapi.facts import GROUP, Facts
from weft.compile.gatewayapi.listeners import ACCEPTED, RESOLVED
from weft.compile.memo import Memo
from weft.model.gateway import Gateway
from weft.model.http_route import HTTPRoute
from weft.model.resource import Key
from weft.model.route import ParentReference


def route_parents(route: HTTPRoute, facts: Facts, memo: Memo, controller: str) -> list[Status]:
    """What each parent of ours says of a route, in the order of its parentRefs."""
    refs = route.spec.parent_refs or ()
    resolved, message = _resolved(route, facts)
    return [
        {
            "parentRef": reference(refs[parent.place]),
            "controllerName": controller_of(facts.gateways.get(parent.gateway), facts, controller),
            "conditions": [
                condition(
                    route.metadata, "Accepted", parent.reason == ACCEPTED, parent.reason, parent.message
                ),
                condition(route.metadata, "ResolvedRefs", resolved == RESOLVED, resolved, message),
            ],
        }
        for parent in memo(parents_of, route, facts)
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


def _resolved(route: HTTPRoute, facts: Facts) -> tuple[str, str]:
    """The first reference that leads nowhere, backends and mirrors alike."""
    for rule in route.spec.rules or ():
        backends = [backend_of(ref, route.metadata.namespace, facts) for ref in rule.backend_refs or ()]
        backends += [
            backend_of(item.request_mirror.backend_ref, route.metadata.namespace, facts)
            for item in rule.filters or ()
            if item.request_mirror is not None
        ]
        for backend in backends:
            if backend.reason != RESOLVED:
                return backend.reason, backend.message
    return RESOLVED, ""
