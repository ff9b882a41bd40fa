"""What a sidecar sees, egress listener by egress listener, and what it reaches in all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from weft.compile.istio.sidecar import WHOLE, Egress
from weft.compile.memo import Memo
from weft.compile.mesh_routes import led_to, mesh_virtual_services
from weft.compile.protocol import Protocol
from weft.compile.registry import Services
from weft.compile.service import Service
from weft.compile.settings import Settings
from weft.compile.view import Limits, View, visible_services
from weft.model.resource import Key
from weft.model.virtual_service import VirtualService


@dataclass(frozen=True, slots=True, eq=False)
class Outlook:
    """One egress listener: the services that it shows, and the rules that hold there, in their order."""

    egress: Egress
    view: View
    resources: tuple[VirtualService, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Outlooks:
    """``reach``: all services that some listener shows, or some rule leads to."""

    all: tuple[Outlook, ...]
    reach: View


def outlooks_of(
    services: Services,
    resources: Mapping[Key, VirtualService],
    namespace: str,
    egress: tuple[Egress, ...],
    besides: Callable[[Limits], frozenset[str]],
    settings: Settings,
    memo: Memo,
) -> Outlooks:
    """``besides``: hosts that rules other than VirtualServices lead to, under a listener's limits."""
    if egress == (WHOLE,):
        # By few inputs first: a key of every service is dear, and most sidecars ask for the same.
        return memo(_unlimited, services, resources, namespace, settings, memo)
    rules = [memo(mesh_virtual_services, resources, namespace, part.limits, settings) for part in egress]
    shown = [memo(_shown, services, namespace, part.limits, part.only, memo) for part in egress]
    led: frozenset[str] = frozenset()
    for part, obeyed in zip(egress, rules, strict=True):
        if part.limits is not None:
            led |= memo(led_to, obeyed, settings.domain) | besides(part.limits)
    beyond = memo(visible_services, services, namespace, (), led)
    reach = memo(View.of, namespace, memo(_together, (*shown, beyond), memo))
    made = tuple(
        memo(Outlook, part, memo(_part, reach, listed), obeyed)
        for part, listed, obeyed in zip(egress, shown, rules, strict=True)
    )
    return memo(_outlooks, made, reach)


def _unlimited(
    services: Services,
    resources: Mapping[Key, VirtualService],
    namespace: str,
    settings: Settings,
    memo: Memo,
) -> Outlooks:
    """Where no Sidecar says anything: all that is exported to the namespace."""
    rules = memo(mesh_virtual_services, resources, namespace, WHOLE.limits, settings)
    reach = memo(View.of, namespace, memo(visible_services, services, namespace, None, frozenset()))
    return memo(_outlooks, (memo(Outlook, WHOLE, reach, rules),), reach)


def _outlooks(made: tuple[Outlook, ...], reach: View) -> Outlooks:
    return Outlooks(made, reach)


def _part(reach: View, services: tuple[Service, ...]) -> View:
    return reach if services == reach.services else reach.part(services)


def _shown(
    services: Services, namespace: str, limits: Limits | None, only: int | None, memo: Memo
) -> tuple[Service, ...]:
    """Services that limits let through; of a listener with a port, that port of those that have it."""
    found = memo(visible_services, services, namespace, limits, frozenset())
    if only is None:
        return found
    return tuple(memo(_trimmed, service, only) for service in found if service.port(only))


def _trimmed(service: Service, number: int) -> Service:
    if len(service.ports) == 1:
        return service
    return replace(service, ports=tuple(port for port in service.ports if port.number == number))


def _together(groups: tuple[tuple[Service, ...], ...], memo: Memo) -> tuple[Service, ...]:
    """One service a host, with the ports that some group shows; the first group to show a host names it."""
    found: dict[str, Service] = {}
    for group in groups:
        for service in group:
            known = found.setdefault(service.host, service)
            if known is not service and known.source == service.source:
                found[service.host] = memo(_joined, known, service)
    return tuple(found[host] for host in sorted(found))


def _joined(one: Service, other: Service) -> Service:
    """Two parts of a service."""
    missing = tuple(port for port in other.ports if not one.port(port.number))
    return replace(one, ports=(*one.ports, *missing)) if missing else one


def spoken(view: View, protocol: Protocol) -> View:
    """A view whose ports speak what an egress listener says, whatever the services themselves say."""
    return view.part(
        tuple(
            replace(service, ports=tuple(replace(port, protocol=protocol) for port in service.ports))
            for service in view.services
        )
    )
