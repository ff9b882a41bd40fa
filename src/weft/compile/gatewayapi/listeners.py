"""Listeners of Gateways and of their ListenerSets: which are sound, and what routes they take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from weft import ir
from weft.compile.gatewayapi.certificates import RESOLVED as RESOLVED
from weft.compile.gatewayapi.facts import GROUP, Facts
from weft.compile.gatewayapi.listener_set import attached_sets, attachment, gateway_of
from weft.compile.gatewayapi.listener_tls import automatic, tls_of
from weft.model.gateway import Gateway
from weft.model.gateway import Listener as Resource
from weft.model.listener import AllowedRoutes
from weft.model.listener_set import ListenerSet
from weft.model.resource import Key

ACCEPTED: Final = "Accepted"
NO_CONFLICT: Final = "NoConflicts"

_KINDS: Final = {
    "HTTP": ("HTTPRoute", "GRPCRoute"),
    "HTTPS": ("HTTPRoute", "GRPCRoute"),
    "TLS": ("TLSRoute",),
    "TCP": ("TCPRoute",),
    "UDP": ("UDPRoute",),
}
_ENDED_TLS: Final = ("TLSRoute", "TCPRoute")
_BY_HOST: Final = frozenset({"HTTP", "TLS"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One listener; the reasons are the specification's words, ``message`` says more.

    ``owner`` is the Gateway or ListenerSet that declares it, where its name is unique. ``kinds`` are the
    kinds of routes that it takes. ``broken``: without a valid certificate, or without any of the
    authorities that its clients must be known to, so that its port opens for nobody. ``automatic``: what
    passes through goes to the service that its SNI names.
    """

    owner: Key
    name: str
    hostname: str
    port: int
    protocol: str
    kinds: tuple[str, ...]
    allowed: AllowedRoutes | None = None
    accepted: str = ACCEPTED
    conflict: str = NO_CONFLICT
    resolved: str = RESOLVED
    message: str = ""
    broken: bool = False
    tls: ir.DownstreamTls | None = None
    passthrough: bool = False
    automatic: bool = False

    @property
    def sound(self) -> bool:
        """Whether it can serve."""
        stands = self.accepted == ACCEPTED and self.conflict == NO_CONFLICT
        return stands and bool(self.kinds) and not self.broken

    @property
    def layer(self) -> str:
        """What listeners of one port must agree on: HTTPS and TLS are told apart by SNI.

        UDP has ports of its own.
        """
        return "TLS" if self.protocol in {"HTTPS", "TLS"} else self.protocol


def merged(gateway: Gateway, facts: Facts) -> tuple[Listener, ...]:
    """All listeners of a Gateway: its own, then those of its ListenerSets in the order of their precedence.

    Listeners of one resource that cannot be told apart are in conflict, all of them; what a resource of
    lower precedence adds to those already there must be distinct from them.
    """
    return facts.memo(_merged, gateway, facts.doors)


def listeners_of(owner: Gateway | ListenerSet, facts: Facts) -> tuple[Listener, ...]:
    """The listeners that a Gateway or a ListenerSet declares itself, in their order."""
    if isinstance(owner, Gateway):
        gateway: Gateway | None = owner
    else:
        gateway = gateway_of(owner, facts)
        if gateway is None or not attachment(owner, gateway, facts).holds:
            return _apart(_declared(owner, gateway, facts), ())
    return tuple(item for item in merged(gateway, facts) if item.owner == owner.key) if gateway else ()


def _merged(gateway: Gateway, facts: Facts) -> tuple[Listener, ...]:
    found: list[Listener] = []
    owners: tuple[Gateway | ListenerSet, ...] = (gateway, *attached_sets(gateway, facts))
    for owner in owners:
        placed = [item for item in found if item.conflict == NO_CONFLICT]
        found += _apart(_declared(owner, gateway, facts), placed)
    return tuple(found)


def _apart(listeners: Sequence[Listener], placed: Iterable[Listener]) -> tuple[Listener, ...]:
    """The listeners of one resource with their conflicts: with those ``placed`` before, and among them."""
    known = tuple(placed)
    first = [_against(item, known) for item in listeners]
    rest = [item for item in first if item.conflict == NO_CONFLICT]
    return tuple(
        _against(item, [other for other in rest if other is not item])
        if item.conflict == NO_CONFLICT
        else item
        for item in first
    )


def _against(item: Listener, others: Iterable[Listener]) -> Listener:
    same = [other for other in others if other.port == item.port and _meet(other.layer, item.layer)]
    rival = next((other for other in same if other.layer != item.layer), None)
    if rival is not None:
        message = f"port {item.port} is {rival.protocol} in listener {rival.name}"
        return replace(item, conflict="ProtocolConflict", message=message)
    rival = next(
        (other for other in same if item.layer not in _BY_HOST or other.hostname == item.hostname), None
    )
    if rival is None:
        return item
    if item.layer not in _BY_HOST:
        message = f"port {item.port} is that of listener {rival.name}"
        return replace(item, conflict="ProtocolConflict", message=message)
    message = f"listener {rival.name} has port {item.port} and host name {item.hostname} too"
    return replace(item, conflict="HostnameConflict", message=message)


def _meet(one: str, other: str) -> bool:
    """Whether two layers share ports."""
    return (one == "UDP") == (other == "UDP")


def _declared(owner: Gateway | ListenerSet, gateway: Gateway | None, facts: Facts) -> tuple[Listener, ...]:
    return tuple(_listener(item, owner, gateway, facts) for item in owner.spec.listeners or ())


def _listener(
    item: Resource, owner: Gateway | ListenerSet, gateway: Gateway | None, facts: Facts
) -> Listener:
    protocol = str(item.protocol)
    inside = protocol in {"HTTPS", "TLS"}
    passthrough = inside and item.tls is not None and str(item.tls.mode or "Terminate") == "Passthrough"
    served = _KINDS.get(protocol, ())
    if protocol == "TLS" and not passthrough:
        served = _ENDED_TLS
    allowed = item.allowed_routes
    made = Listener(
        owner=owner.key,
        name=str(item.name),
        hostname=str(item.hostname or "*").lower(),
        port=item.port,
        protocol=protocol,
        kinds=served,
        allowed=allowed,
        accepted=ACCEPTED if served else "UnsupportedProtocol",
        message="" if served else f"protocol {protocol} is not supported",
        passthrough=passthrough,
        automatic=passthrough and automatic(item, owner),
    )
    if allowed is not None and allowed.kinds:
        wanted = [(str(kind.group or GROUP), str(kind.kind)) for kind in allowed.kinds]
        kinds = tuple(dict.fromkeys(kind for group, kind in wanted if group == GROUP and kind in served))
        made = replace(made, kinds=kinds)
        if any(group != GROUP or kind not in served for group, kind in wanted):
            unknown = ", ".join(kind for group, kind in wanted if group != GROUP or kind not in served)
            message = f"protocol {protocol} takes no {unknown}"
            made = replace(made, resolved="InvalidRouteKinds", message=message)
    if not inside or passthrough:
        return made
    found = tls_of(item, owner, gateway, facts)
    return replace(
        made,
        tls=found.tls,
        broken=found.tls is None,
        accepted=made.accepted if found.accepted.holds else found.accepted.reason,
        resolved=made.resolved if found.resolved.holds else found.resolved.reason,
        message=found.accepted.message or found.resolved.message or made.message,
    )
