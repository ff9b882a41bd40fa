"""``status`` of a ListenerSet: whether its Gateway takes it, and what became of its listeners."""

from __future__ import annotations

from weft.compile.gatewayapi.conditions import Status, condition
from weft.compile.gatewayapi.facts import Facts, Verdict
from weft.compile.gatewayapi.listener_set import attached_sets, attachment
from weft.compile.gatewayapi.listeners import listeners_of
from weft.compile.gatewayapi.status_addresses import places_of
from weft.compile.gatewayapi.status_listeners import (
    LISTENERS_NOT_VALID,
    Waiting,
    closed,
    invalid,
    listener_statuses,
    programmed,
)
from weft.model.gateway import Gateway
from weft.model.listener_set import ListenerSet


def listener_set_status(
    listeners: ListenerSet, gateway: Gateway, refusal: Verdict | None, waiting: Waiting | None, facts: Facts
) -> Status:
    """What is to say of one that refers to a Gateway of ours.

    ``refusal``: why that is not accepted; ``waiting``: why it does not serve yet.
    """
    said = attachment(listeners, gateway, facts)
    if not said.holds:
        # What its listeners would meet at a Gateway that does not take it is none of its business.
        return {"conditions": _conditions(listeners, said, said)}
    found = listeners_of(listeners, facts)
    bad = invalid(found)
    places = places_of(gateway, {item.port: None for item in found}, None, facts)
    if refusal is not None:
        message = f"the Gateway is not accepted: {refusal.message}"
        said = Verdict(holds=False, reason="ParentNotAccepted", message=message)
    elif bad:
        message = f"not valid: {', '.join(bad)}"
        said = Verdict(holds=len(bad) < len(found), reason=LISTENERS_NOT_VALID, message=message)
    served = programmed(said, bad, waiting)
    return {
        "conditions": _conditions(listeners, said, places.refusal or served if served.holds else served),
        "listeners": listener_statuses(listeners, gateway, facts, closed(refusal) or waiting),
    }


def _conditions(listeners: ListenerSet, accepted: Verdict, served: Verdict) -> list[Status]:
    return [
        condition(listeners.metadata, kind, verdict.holds, verdict.reason, verdict.message)
        for kind, verdict in (("Accepted", accepted), ("Programmed", served))
    ]


def attached_count(gateway: Gateway, facts: Facts) -> int:
    """How many ListenerSets a Gateway has: those that it takes, and that have a listener that can serve."""
    return sum(
        len(invalid(found)) < len(found)
        for found in (listeners_of(item, facts) for item in attached_sets(gateway, facts))
    )
