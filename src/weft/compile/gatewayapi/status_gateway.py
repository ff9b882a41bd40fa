"""``status`` of a Gateway: whether it is accepted, whether it serves, and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from weft.compile.gatewayapi.backend_tls_policy import client_certificate
from weft.compile.gatewayapi.conditions import Status, condition
from weft.compile.gatewayapi.facts import Facts, Verdict
from weft.compile.gatewayapi.infrastructure import parameters_flaw
from weft.compile.gatewayapi.listeners import RESOLVED, listeners_of
from weft.compile.gatewayapi.status_addresses import ADDRESS_TYPES, Places, places_of
from weft.compile.gatewayapi.status_listener_set import attached_count
from weft.compile.gatewayapi.status_listeners import (
    LISTENERS_NOT_VALID,
    PROGRAMMED,
    Waiting,
    closed,
    invalid,
    listener_statuses,
    programmed,
)
from weft.model.gateway import Gateway

_UNSUPPORTED_ADDRESS: Final = "UnsupportedAddress"


def gateway_status(
    gateway: Gateway, facts: Facts, addresses: Iterable[str] | None = None, waiting: Waiting | None = None
) -> Status:
    """A Gateway is accepted when one of its listeners can serve, and programmed when its proxy has it.

    ``addresses`` are those of its proxies; None without a running mesh: then it has what it asks for.
    """
    listeners = listeners_of(gateway, facts)
    bad = invalid(listeners)
    places = places_of(gateway, {item.port: None for item in listeners}, addresses, facts)
    refused = refusal(gateway, facts)
    accepted = refused or _listeners(gateway, bad)
    verdicts = {
        "Accepted": accepted,
        "InsecureFrontendValidationMode": _insecure(gateway),
        PROGRAMMED: _programmed(gateway, refused, bad, places, waiting),
        "ResolvedRefs": _resolved(gateway, facts),
    }
    status: Status = {
        "conditions": [
            condition(gateway.metadata, kind, verdict.holds, verdict.reason, verdict.message)
            for kind, verdict in verdicts.items()
            if verdict is not None
        ],
        "listeners": listener_statuses(gateway, gateway, facts, closed(refused) or waiting),
    }
    if places.found:
        status["addresses"] = list(places.found)
    if gateway.spec.allowed_listeners is not None:
        status["attachedListenerSets"] = 0 if refused else attached_count(gateway, facts)
    return status


def refusal(gateway: Gateway, facts: Facts) -> Verdict | None:
    """Why a Gateway as a whole is not accepted, whatever its listeners are; None when nothing is wrong.

    Of one that is not accepted nothing is served.
    """
    for address in gateway.spec.addresses or ():
        if str(address.type or "IPAddress") not in ADDRESS_TYPES:
            message = f"an address is an IPAddress or a Hostname, not {address.type}: {address.value}"
            return Verdict(holds=False, reason=_UNSUPPORTED_ADDRESS, message=message)
    flaw = parameters_flaw(gateway, facts.config_maps)
    return Verdict(holds=False, reason="InvalidParameters", message=flaw) if flaw else None


def _listeners(gateway: Gateway, bad: list[str]) -> Verdict:
    if not bad:
        return Verdict(message="valid")
    holds = len(bad) < len(gateway.spec.listeners or ())
    return Verdict(holds=holds, reason=LISTENERS_NOT_VALID, message=f"not valid: {', '.join(bad)}")


def _programmed(
    gateway: Gateway, refused: Verdict | None, bad: list[str], places: Places, waiting: Waiting | None
) -> Verdict:
    if refused is not None:
        reason = refused.reason if refused.reason == _UNSUPPORTED_ADDRESS else "Invalid"
        return replace(refused, reason=reason)
    if bad and len(bad) == len(gateway.spec.listeners or ()):
        return Verdict(holds=False, reason="Invalid", message=f"not valid: {', '.join(bad)}")
    if places.refusal is not None and waiting is None:
        return places.refusal
    return programmed(Verdict(), bad, waiting)


def _resolved(gateway: Gateway, facts: Facts) -> Verdict:
    """References of the Gateway itself, then those of its listeners."""
    _, own = client_certificate(gateway, facts)
    if not own.holds:
        return own
    unresolved = [item.name for item in listeners_of(gateway, facts) if item.resolved != RESOLVED]
    if unresolved:
        message = f"not resolved: {', '.join(unresolved)}"
        return Verdict(holds=False, reason="ListenersNotResolved", message=message)
    return Verdict(reason=RESOLVED)


def _insecure(gateway: Gateway) -> Verdict | None:
    """What warns of ports that let clients without a valid certificate in; None: there is none."""
    frontend = gateway.spec.tls.frontend if gateway.spec.tls is not None else None
    if frontend is None:
        return None
    parts = [("by default", frontend.default)]
    parts += [(f"at port {item.port}", item.tls) for item in frontend.per_port or ()]
    found = [
        where
        for where, tls in parts
        if tls.validation is not None and tls.validation.mode == "AllowInsecureFallback"
    ]
    if not found:
        return None
    message = f"clients need no valid certificate {', '.join(found)}"
    return Verdict(reason="ConfigurationChanged", message=message)
