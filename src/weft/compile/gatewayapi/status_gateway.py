"""``status`` of a Gateway: whether it is accepted, whether it serves, and where."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from weft.compile.gatewayapi.conditions import Status, condition
from weft.compile.gatewayapi.facts import Facts, Verdict
from weft.compile.gatewayapi.listeners import RESOLVED, listeners_of
from weft.compile.gatewayapi.status_listener_set import attached_count
from weft.compile.gatewayapi.status_listeners import (
    LISTENERS_NOT_VALID,
    PROGRAMMED,
    Waiting,
    invalid,
    listener_statuses,
    programmed,
)
from weft.model.gateway import Gateway

_ADDRESS_TYPES: Final = frozenset({"IPAddress", "Hostname"})
_UNSUPPORTED_ADDRESS: Final = "UnsupportedAddress"


def gateway_status(
    gateway: Gateway, facts: Facts, addresses: Iterable[str] | None = None, waiting: Waiting | None = None
) -> Status:
    """A Gateway is accepted when one of its listeners can serve, and programmed when its proxy has it.

    ``addresses`` are those of its proxies; None without a running mesh: then it has what it asks for.
    """
    bad = invalid(listeners_of(gateway, facts))
    refused = refusal(gateway, facts)
    accepted = refused or _listeners(gateway, bad)
    verdicts = {
        "Accepted": accepted,
        "InsecureFrontendValidationMode": _insecure(gateway),
        PROGRAMMED: _programmed(gateway, accepted, bad, addresses, waiting),
        "ResolvedRefs": _resolved(gateway, facts),
    }
    status: Status = {
        "conditions": [
            condition(gateway.metadata, kind, verdict.holds, verdict.reason, verdict.message)
            for kind, verdict in verdicts.items()
            if verdict is not None
        ],
        "listeners": listener_statuses(gateway, gateway, facts, waiting),
    }
    found = _addresses(gateway, addresses)
    if found:
        status["addresses"] = found
    if gateway.spec.allowed_listeners is not None:
        status["attachedListenerSets"] = attached_count(gateway, facts)
    return status


def refusal(gateway: Gateway, facts: Facts) -> Verdict | None:
    """Why a Gateway as a whole is not accepted, whatever its listeners are; None when nothing is wrong."""
    for address in gateway.spec.addresses or ():
        if str(address.type or "IPAddress") not in _ADDRESS_TYPES:
            message = f"an address is an IPAddress or a Hostname, not {address.type}: {address.value}"
            return Verdict(holds=False, reason=_UNSUPPORTED_ADDRESS, message=message)
    flaw = _parameters_flaw(gateway, facts)
    return Verdict(holds=False, reason="InvalidParameters", message=flaw) if flaw else None


def _listeners(gateway: Gateway, bad: list[str]) -> Verdict:
    if not bad:
        return Verdict(message="valid")
    holds = len(bad) < len(gateway.spec.listeners or ())
    return Verdict(holds=holds, reason=LISTENERS_NOT_VALID, message=f"not valid: {', '.join(bad)}")


def _parameters_flaw(gateway: Gateway, facts: Facts) -> str:
    infrastructure = gateway.spec.infrastructure
    ref = infrastructure.parameters_ref if infrastructure is not None else None
    if ref is None:
        return ""
    if (str(ref.group), str(ref.kind)) != ("", "ConfigMap"):
        return f"parametersRef names a {ref.kind} of group {ref.group!r}, only a ConfigMap may be named"
    namespace = gateway.metadata.namespace
    known = facts.config_map(namespace, str(ref.name)) is not None
    return "" if known else f"there is no ConfigMap {namespace}/{ref.name}"


def _programmed(
    gateway: Gateway,
    accepted: Verdict,
    bad: list[str],
    addresses: Iterable[str] | None,
    waiting: Waiting | None,
) -> Verdict:
    if accepted.reason == _UNSUPPORTED_ADDRESS:
        return accepted
    if bad and len(bad) == len(gateway.spec.listeners or ()):
        return Verdict(holds=False, reason="Invalid", message=f"not valid: {', '.join(bad)}")
    missing = _missing(gateway, addresses) if waiting is None else ()
    if missing:
        message = f"no proxy of this Gateway has the address {', '.join(missing)}"
        return Verdict(holds=False, reason="AddressNotUsable", message=message)
    return programmed(Verdict(), bad, waiting)


def _missing(gateway: Gateway, addresses: Iterable[str] | None) -> tuple[str, ...]:
    """IP addresses that are asked for and that no proxy has; without a running mesh nobody can tell."""
    if addresses is None:
        return ()
    known = set(addresses)
    return tuple(
        str(address.value)
        for address in gateway.spec.addresses or ()
        if address.value and str(address.type or "IPAddress") == "IPAddress" and address.value not in known
    )


def _addresses(gateway: Gateway, addresses: Iterable[str] | None) -> list[Status]:
    """Where it is reached. Of its proxies' addresses only those that are asked for, if any are."""
    asked = [
        {"type": str(address.type or "IPAddress"), "value": str(address.value)}
        for address in gateway.spec.addresses or ()
        if address.value and str(address.type or "IPAddress") in _ADDRESS_TYPES
    ]
    if addresses is None:
        return asked
    found = [{"type": "IPAddress", "value": address} for address in addresses]
    wanted = [one for one in asked if one["type"] == "IPAddress"]
    return [one for one in found if one in wanted] if wanted else found


def _resolved(gateway: Gateway, facts: Facts) -> Verdict:
    """References of the Gateway itself, then those of its listeners."""
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
