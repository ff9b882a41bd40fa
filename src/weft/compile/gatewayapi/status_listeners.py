"""``status.listeners`` of Gateways and ListenerSets: what became of each, and the routes attached to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from weft.compile.gatewayapi.conditions import Status, condition
from weft.compile.gatewayapi.facts import GROUP, Facts, Verdict
from weft.compile.gatewayapi.listeners import (
    ACCEPTED,
    NO_CONFLICT,
    RESOLVED,
    Listener,
    listeners_of,
    merged,
)
from weft.compile.gatewayapi.status_route import judged
from weft.compile.hosts import narrower
from weft.model.gateway import Gateway
from weft.model.listener_set import ListenerSet
from weft.model.resource import Key, Metadata

LISTENERS_NOT_VALID: Final = "ListenersNotValid"
PROGRAMMED: Final = "Programmed"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a sound Gateway does not serve yet: reason and message of its condition Programmed."""

    reason: str
    message: str


def closed(refusal: Verdict | None) -> Waiting | None:
    """What the listeners of a Gateway wait for that is not accepted, if it is not."""
    return None if refusal is None else Waiting("Invalid", f"the Gateway is not accepted: {refusal.message}")


def listener_statuses(
    owner: Gateway | ListenerSet, gateway: Gateway, facts: Facts, waiting: Waiting | None
) -> list[Status]:
    """One entry a listener that ``owner`` declares and ``gateway`` serves, in their order."""
    counts = facts.memo(_attached_routes, facts)
    every = merged(gateway, facts)
    return [
        _status(
            owner.metadata, item, counts.get((owner.key, item.name), 0), waiting, _overlapping(item, every)
        )
        for item in listeners_of(owner, facts)
    ]


def invalid(listeners: Iterable[Listener]) -> list[str]:
    """Names of those that serve nobody."""
    return [listener.name for listener in listeners if not listener.sound]


def programmed(accepted: Verdict, bad: list[str], waiting: Waiting | None) -> Verdict:
    """Whether a proxy serves something that is accepted or not; ``bad`` are its listeners that it cannot."""
    if not accepted.holds:
        return accepted
    if waiting is not None:
        return Verdict(holds=False, reason=waiting.reason, message=waiting.message)
    message = f"served, but for {', '.join(bad)}" if bad else "served"
    return Verdict(reason=PROGRAMMED, message=message)


def _status(
    metadata: Metadata,
    listener: Listener,
    attached: int,
    waiting: Waiting | None,
    overlapping: tuple[str, ...],
) -> Status:
    def of(kind: str, holds: bool, reason: str, message: str = "") -> Status:
        return condition(metadata, kind, holds, reason, message)

    why = listener.message
    conflict = listener.conflict != NO_CONFLICT
    accepted = listener.conflict if conflict else listener.accepted
    resolved = listener.resolved == RESOLVED
    if not listener.sound:
        served = of(PROGRAMMED, False, listener.conflict if conflict else "Invalid", why)
    elif waiting is not None:
        reason = waiting.reason if waiting.reason == "Invalid" else "Pending"
        served = of(PROGRAMMED, False, reason, waiting.message)
    else:
        served = of(PROGRAMMED, True, PROGRAMMED)
    conditions = [
        of("Accepted", accepted == ACCEPTED, accepted, "" if accepted == ACCEPTED else why),
        of("Conflicted", conflict, listener.conflict, why if conflict else ""),
        served,
        of("ResolvedRefs", resolved, listener.resolved, "" if resolved else why),
    ]
    if overlapping:
        message = (
            f"host names of {', '.join(overlapping)} meet its own: clients may reuse connections of either"
        )
        conditions.insert(2, of("OverlappingTLSConfig", True, "OverlappingHostnames", message))
    return {
        "name": listener.name,
        "supportedKinds": [{"group": GROUP, "kind": kind} for kind in listener.kinds],
        "attachedRoutes": attached,
        "conditions": conditions,
    }


def _overlapping(listener: Listener, others: Iterable[Listener]) -> tuple[str, ...]:
    """Listeners with TLS at the same port whose host names meet; conflicts are told elsewhere."""
    if listener.layer != "TLS" or listener.conflict != NO_CONFLICT:
        return ()
    return tuple(
        other.name if other.owner == listener.owner else f"{other.owner} {other.name}"
        for other in others
        if (other.owner, other.name) != (listener.owner, listener.name)
        and other.port == listener.port
        and other.layer == "TLS"
        and other.conflict == NO_CONFLICT
        and narrower(listener.hostname, other.hostname) is not None
    )


def _attached_routes(facts: Facts) -> Mapping[tuple[Key, str], int]:
    """How many accepted routes each listener has, by its owner and name; whatever their backends are."""
    found: dict[tuple[Key, str], set[Key]] = {}
    for routes in facts.all_routes:
        for key, route in routes.items():
            for parent in facts.memo(judged, route, facts):
                for binding in parent.bindings:
                    found.setdefault((binding.owner, binding.listener), set()).add(key)
    return {place: len(keys) for place, keys in found.items()}
