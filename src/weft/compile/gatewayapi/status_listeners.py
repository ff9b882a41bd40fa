"""``status.listeners`` of a Gateway: what became of each, and how many routes are attached to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from weft.compile.gatewayapi.binding import parents_of
from weft.compile.gatewayapi.conditions import Status, condition
from weft.compile.gatewayapi.facts import GROUP, Facts
from weft.compile.gatewayapi.listeners import ACCEPTED, NO_CONFLICT, RESOLVED, Listener
from weft.compile.hosts import narrower
from weft.compile.memo import Memo
from weft.model.resource import Key, Metadata

_ENDING_TLS = frozenset({"HTTPS", "TLS"})


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a sound Gateway does not serve yet: reason and message of its condition Programmed."""

    reason: str
    message: str


def listener_status(
    metadata: Metadata,
    listener: Listener,
    attached: int,
    waiting: Waiting | None,
    overlapping: tuple[str, ...] = (),
) -> Status:
    """One listener of the object with this metadata. ``overlapping`` are others that its TLS hosts meet."""

    def of(kind: str, holds: bool, reason: str, message: str) -> Status:
        return condition(metadata, kind, holds, reason, message)

    conflict = listener.conflict != NO_CONFLICT
    accepted = listener.accepted if not conflict else listener.conflict
    resolved = listener.resolved == RESOLVED
    why = listener.message
    if not listener.sound:
        programmed = of("Programmed", False, listener.conflict if conflict else "Invalid", why)
    elif waiting is not None:
        programmed = of("Programmed", False, "Pending", waiting.message)
    else:
        programmed = of("Programmed", True, "Programmed", "")
    conditions = [
        of("Accepted", accepted == ACCEPTED, accepted, "" if accepted == ACCEPTED else why),
        of("Conflicted", conflict, listener.conflict, why if conflict else ""),
        programmed,
        of("ResolvedRefs", resolved, listener.resolved, "" if resolved else why),
    ]
    if overlapping:
        message = f"its host names meet those of {', '.join(overlapping)}: a client may mix their connections"
        conditions.insert(2, of("OverlappingTLSConfig", True, "OverlappingHostnames", message))
    return {
        "name": listener.name,
        "supportedKinds": [{"group": GROUP, "kind": kind} for kind in listener.kinds],
        "attachedRoutes": attached,
        "conditions": conditions,
    }


def overlaps(listener: Listener, others: Iterable[Listener]) -> tuple[str, ...]:
    """Names of listeners with TLS at the same port whose host names meet; conflicts are told elsewhere."""
    if listener.protocol not in _ENDING_TLS or listener.conflict != NO_CONFLICT:
        return ()
    return tuple(
        other.name
        for other in others
        if other is not listener
        and other.port == listener.port
        and other.protocol in _ENDING_TLS
        and other.conflict == NO_CONFLICT
        and narrower(listener.hostname, other.hostname) is not None
    )


Attached = Mapping[tuple[Key, str], int]
"""Routes by the object that declares a listener, and the listener's name."""


def attached_routes(facts: Facts, memo: Memo) -> Attached:
    """How many accepted routes each listener has; whether their backends exist does not matter."""
    found: dict[tuple[Key, str], set[Key]] = {}
    for key, route in facts.routes.items():
        for parent in memo(parents_of, route, facts):
            if parent.gateway is not None:
                for binding in parent.bindings:
                    found.setdefault((parent.gateway, binding.listener), set()).add(key)
    return {place: len(keys) for place, keys in found.items()}
