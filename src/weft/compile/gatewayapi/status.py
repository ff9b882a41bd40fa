"""Status of the Gateway API's resources, as the specification words it: a pure function of the facts.

Conditions bear no time: ``dated`` gives each the time at which it last changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from weft.compile.gatewayapi.backends import backend_of
from weft.compile.gatewayapi.binding import parents_of
from weft.compile.gatewayapi.facts import BUILT_IN_CLASSES, GROUP, Facts
from weft.compile.gatewayapi.listeners import ACCEPTED, NO_CONFLICT, RESOLVED, Listener, listeners_of
from weft.compile.memo import Memo
from weft.model.gateway import Gateway
from weft.model.gateway_class import GatewayClass
from weft.model.http_route import HTTPRoute
from weft.model.resource import Key, Metadata
from weft.names import GATEWAY_CONTROLLER

Status = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a sound Gateway does not serve yet: reason and message of its condition Programmed."""

    reason: str
    message: str


def statuses(
    facts: Facts,
    memo: Memo,
    controller: str = GATEWAY_CONTROLLER,
    addresses: Mapping[Key, tuple[str, ...]] | None = None,
    waiting: Mapping[Key, Waiting] | None = None,
) -> dict[Key, Status]:
    """``status`` of every GatewayClass, Gateway and HTTPRoute that is ours, as JSON.

    ``addresses`` are IPs where a Gateway's proxy listens, by the Gateway; ``waiting`` are the Gateways
    whose proxies do not have it yet. Without a running mesh there are none, and what is sound is programmed.
    """
    return dict(each_status(facts, memo, controller, addresses or {}, waiting or {}))


def each_status(
    facts: Facts,
    memo: Memo,
    controller: str,
    addresses: Mapping[Key, tuple[str, ...]],
    waiting: Mapping[Key, Waiting],
) -> Iterator[tuple[Key, Status]]:
    """The same one by one, for who must not be busy for long."""
    for key, resource in facts.classes.items():
        if key.name in BUILT_IN_CLASSES or str(resource.spec.controller_name) in facts.settings.controllers:
            yield key, class_status(resource)
    for key, route in facts.routes.items():
        parents = route_parents(route, facts, memo, controller)
        if parents:
            yield key, {"parents": parents}
    # After the routes: what they are bound to is remembered, and only counted here.
    for key, gateway in facts.gateways.items():
        if facts.ours(gateway):
            yield key, gateway_status(gateway, facts, memo, addresses.get(key, ()), waiting.get(key))


def class_status(resource: GatewayClass) -> Status:
    """A class of ours is accepted."""
    return {"conditions": [_condition(resource.metadata, "Accepted", True, "Accepted")]}


def gateway_status(
    gateway: Gateway, facts: Facts, memo: Memo, addresses: Iterable[str] = (), waiting: Waiting | None = None
) -> Status:
    """A Gateway is accepted when one of its listeners can serve, and programmed when its proxy has it."""
    listeners = listeners_of(gateway, facts)
    counts = _attached(gateway, facts, memo)
    bad = [listener.name for listener in listeners if not listener.sound]
    usable = len(bad) < len(listeners)
    message = f"not valid: {', '.join(bad)}" if bad else ""
    if not usable:
        programmed = _condition(gateway.metadata, "Programmed", False, "Invalid", message)
    elif waiting is not None:
        programmed = _condition(gateway.metadata, "Programmed", False, waiting.reason, waiting.message)
    else:
        programmed = _condition(gateway.metadata, "Programmed", True, "Programmed", message)
    reason = "ListenersNotValid" if bad else "Accepted"
    status: Status = {
        "conditions": [
            _condition(gateway.metadata, "Accepted", usable, reason, message),
            programmed,
        ],
        "listeners": [
            _listener_status(gateway, listener, counts.get(listener.name, 0), waiting)
            for listener in listeners
        ],
    }
    found = [{"type": "IPAddress", "value": address} for address in addresses]
    return {**status, "addresses": found} if found else status


def _listener_status(gateway: Gateway, listener: Listener, attached: int, waiting: Waiting | None) -> Status:
    def condition(kind: str, holds: bool, reason: str, message: str = listener.message) -> Status:
        return _condition(gateway.metadata, kind, holds, reason, "" if holds else message)

    conflict = listener.conflict != NO_CONFLICT
    accepted = listener.accepted if not conflict else listener.conflict
    if not listener.sound:
        programmed = condition("Programmed", False, "Invalid")
    elif waiting is not None:
        programmed = condition("Programmed", False, "Pending", waiting.message)
    else:
        programmed = condition("Programmed", True, "Programmed")
    return {
        "name": listener.name,
        "supportedKinds": [{"group": GROUP, "kind": kind} for kind in listener.kinds],
        "attachedRoutes": attached,
        "conditions": [
            condition("Accepted", accepted == ACCEPTED, accepted),
            condition("Conflicted", conflict, listener.conflict),
            condition("ResolvedRefs", listener.resolved == RESOLVED, listener.resolved),
            programmed,
        ],
    }


def _attached(gateway: Gateway, facts: Facts, memo: Memo) -> Mapping[str, int]:
    """Routes at each listener; whether their backends exist does not matter."""
    found: dict[str, set[Key]] = {}
    for key, route in facts.routes.items():
        for parent in memo(parents_of, route, facts):
            if parent.gateway == gateway.key:
                for binding in parent.bindings:
                    found.setdefault(binding.listener, set()).add(key)
    return {name: len(keys) for name, keys in found.items()}


def route_parents(route: HTTPRoute, facts: Facts, memo: Memo, controller: str) -> list[Status]:
    """What each parent of ours says of a route."""
    refs = route.spec.parent_refs or ()
    resolved, message = _resolved(route, facts)
    return [
        {
            "parentRef": refs[parent.place].model_dump(mode="json", by_alias=True, exclude_unset=True),
            "controllerName": controller,
            "conditions": [
                _condition(
                    route.metadata, "Accepted", parent.reason == ACCEPTED, parent.reason, parent.message
                ),
                _condition(route.metadata, "ResolvedRefs", resolved == RESOLVED, resolved, message),
            ],
        }
        for parent in memo(parents_of, route, facts)
        if parent.gateway is not None
    ]


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


def _condition(metadata: Metadata, kind: str, holds: bool, reason: str, message: str = "") -> Status:
    return {
        "type": kind,
        "status": "True" if holds else "False",
        "reason": reason,
        "message": message,
        "observedGeneration": metadata.generation or 0,
    }


def dated(status: Status, previous: Status | None, now: str) -> Status:
    """The same status with ``lastTransitionTime``: the previous one where a condition did not change."""

    def at(conditions: list[Status], before: list[Status]) -> list[Status]:
        known = {item["type"]: item for item in before}
        return [
            {
                **item,
                "lastTransitionTime": (
                    known[item["type"]].get("lastTransitionTime", now)
                    if known.get(item["type"], {}).get("status") == item["status"]
                    else now
                ),
            }
            for item in conditions
        ]

    old = previous or {}
    result = dict(status)
    if "conditions" in status:
        result["conditions"] = at(status["conditions"], old.get("conditions", []))
    for name, identity in (("listeners", "name"), ("parents", "parentRef")):
        if name in status:
            before = {str(item.get(identity)): item for item in old.get(name, [])}
            result[name] = [
                {
                    **item,
                    "conditions": at(
                        item["conditions"], before.get(str(item[identity]), {}).get("conditions", [])
                    ),
                }
                for item in status[name]
            ]
    return result
