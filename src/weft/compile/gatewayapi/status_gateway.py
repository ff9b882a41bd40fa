"""``status`` of a Gateway: whether it is accepted, whether it serves, and where."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from weft.compile.gatewayapi.conditions import Status, condition
from weft.compile.gatewayapi.facts import Facts, Verdict
from weft.compile.gatewayapi.listeners import RESOLVED, listeners_of
from weft.compile.gatewayapi.status_listeners import (
    Waiting,
    attached_routes,
    listener_status,
    overlaps,
)
from weft.compile.memo import Memo
from weft.model.gateway import Gateway

_ADDRESS_TYPES: Final = frozenset({"IPAddress", "Hostname"})
_LISTENERS_NOT_VALID: Final = "ListenersNotValid"


def gateway_status(
    gateway: Gateway,
    facts: Facts,
    memo: Memo,
    addresses: Iterable[str] | None = None,
    waiting: Waiting | None = None,
) -> Status:
    """A Gateway is accepted when one of its listeners can serve, and programmed when its proxy has it.

    ``addresses`` are those of its proxies; None without a running mesh: then it has what it asks for.
    """
    listeners = listeners_of(gateway, facts)
    counts = memo(attached_routes, facts, memo)
    bad = [listener.name for listener in listeners if not listener.sound]
    accepted = _accepted(gateway, facts, bad, len(listeners))
    found = _addresses(gateway, addresses)
    programmed = _programmed(gateway, accepted, bad, len(listeners), addresses, waiting)
    resolved = _resolved(gateway, [one.name for one in listeners if one.resolved != RESOLVED])

    def of(kind: str, verdict: Verdict) -> Status:
        return condition(gateway.metadata, kind, verdict.holds, verdict.reason, verdict.message)

    conditions = [of("Accepted", accepted), of("Programmed", programmed), of("ResolvedRefs", resolved)]
    insecure = _insecure(gateway)
    if insecure:
        conditions.insert(1, of("InsecureFrontendValidationMode", insecure))
    status: Status = {
        "conditions": conditions,
        "listeners": [
            listener_status(
                gateway.metadata,
                listener,
                counts.get((gateway.key, listener.name), 0),
                waiting,
                overlaps(listener, listeners),
            )
            for listener in listeners
        ],
    }
    return {**status, "addresses": found} if found else status


def _accepted(gateway: Gateway, facts: Facts, bad: list[str], count: int) -> Verdict:
    for address in gateway.spec.addresses or ():
        if str(address.type or "IPAddress") not in _ADDRESS_TYPES:
            message = f"an address is an IPAddress or a Hostname, not {address.type}: {address.value}"
            return Verdict(holds=False, reason="UnsupportedAddress", message=message)
    flaw = _parameters_flaw(gateway, facts)
    if flaw:
        return Verdict(holds=False, reason="InvalidParameters", message=flaw)
    if bad:
        return Verdict(holds=len(bad) < count, reason=_LISTENERS_NOT_VALID, message=_list("not valid", bad))
    return Verdict(message="the Gateway is accepted")


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
    count: int,
    addresses: Iterable[str] | None,
    waiting: Waiting | None,
) -> Verdict:
    if accepted.reason == "UnsupportedAddress":
        return accepted
    if bad and len(bad) == count:
        return Verdict(holds=False, reason="Invalid", message=_list("not valid", bad))
    if waiting is not None:
        return Verdict(holds=False, reason=waiting.reason, message=waiting.message)
    missing = _missing(gateway, addresses)
    if missing:
        message = f"no proxy of this Gateway has the address {', '.join(missing)}"
        return Verdict(holds=False, reason="AddressNotUsable", message=message)
    message = _list("all but what is not valid is served", bad) if bad else "the Gateway is served"
    return Verdict(reason="Programmed", message=message)


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


def _resolved(gateway: Gateway, unresolved: list[str]) -> Verdict:
    if unresolved:
        message = _list("not resolved", unresolved)
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


def _list(what: str, names: list[str]) -> str:
    return f"{what}: {', '.join(names)}"
