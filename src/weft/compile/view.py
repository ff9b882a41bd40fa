"""What one proxy may see. Equal views are one object: what was compiled for one is found again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from weft.compile.hosts import covers, overlaps
from weft.compile.memo import Memo
from weft.compile.registry import Services
from weft.compile.service import Service

EVERYWHERE = "*"
NOBODY = "~"


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Services that a namespace may call, one a host, in the order of their hosts."""

    namespace: str
    services: tuple[Service, ...]
    by_host: Mapping[str, Service]

    @classmethod
    def of(cls, namespace: str, services: tuple[Service, ...]) -> View:
        """A view of these services; ExternalNames of ExternalNames stand for what the last one does."""
        if any(service.alias_of for service in services):
            aliases = {service.host: service.alias_of for service in services if service.alias_of}
            services = tuple(_led_on(service, aliases) for service in services)
        return cls(namespace, services, {service.host: service for service in services})

    def part(self, services: tuple[Service, ...]) -> View:
        """A view that lists these services only, while rules may lead to all that this one knows."""
        return View(self.namespace, services, self.by_host)


def _led_on(service: Service, aliases: Mapping[str, str]) -> Service:
    """The service, with where its chain of names ends; one that goes round in a circle stays as it is."""
    end, seen = service.alias_of, {service.host}
    while end in aliases and end not in seen:
        seen.add(end)
        end = aliases[end]
    return service if end == service.alias_of or end in seen else replace(service, alias_of=end)


def exported(export_to: Iterable[str], owner: str, client: str) -> bool:
    """Whether ``exportTo`` lets a namespace see a resource of another (``*``, ``.``, ``~`` or names)."""
    return exposure(export_to, owner, client) is not None


def exposure(export_to: Iterable[str], owner: str, client: str) -> int | None:
    """How near a resource is to a client: 0 its namespace's own, 1 meant for it, 2 for all; None: not seen.

    ``~`` hides it from everybody, unless ``*`` stands there too. The nearer rule for a host is asked first.
    """
    names = frozenset(export_to)
    if EVERYWHERE in names:
        return 2
    if NOBODY in names:
        return None
    if owner == client and names & {client, "."}:
        return 0
    return 1 if owner != client and client in names else None


Limits = tuple[tuple[str, str], ...]
"""(namespace or ``*``, host) pairs of a Sidecar's ``egress.hosts``: nothing else is seen.

After a ``~`` before the namespace the pair hides what others let through.
"""


def admitted(limits: Limits | None, owner: str, host: str) -> bool:
    """Whether limits let a rule of a namespace about a host through; wildcards may meet halfway."""
    if limits is None:
        return True
    return not _hidden(limits, owner, host) and any(
        space in {EVERYWHERE, owner} and overlaps(wanted, host) for space, wanted in limits
    )


def imported(limits: Limits | None, owner: str, host: str) -> bool:
    """Whether limits let a service of a namespace through: all of its names, that is."""
    if limits is None:
        return True
    return not _hidden(limits, owner, host) and any(
        space in {EVERYWHERE, owner} and covers(wanted, host) for space, wanted in limits
    )


def _hidden(limits: Limits, owner: str, host: str) -> bool:
    return any(
        space.startswith(NOBODY) and space[1:] in {EVERYWHERE, owner} and covers(wanted, host)
        for space, wanted in limits
    )


def visible_services(
    services: Services, namespace: str, limits: Limits | None, besides: frozenset[str]
) -> tuple[Service, ...]:
    """One service a host: the client's own namespace first, then Kubernetes', then the oldest.

    ``besides``: hosts that are seen whatever the limits, for a rule that is seen leads there.
    """
    found: list[Service] = []
    for host in sorted(services.by_host):
        candidates = [
            service
            for service in services.by_host[host]
            if exported(service.export_to, service.namespace, namespace)
            and (host in besides or imported(limits, service.namespace, host))
        ]
        if candidates:
            found.append(min(candidates, key=lambda s: (s.namespace != namespace, not s.kubernetes, s.order)))
    return tuple(found)


def view_of(
    services: Services, namespace: str, limits: Limits | None, besides: frozenset[str], memo: Memo
) -> View:
    """What a namespace may call; the same object as long as that is the same."""
    return memo(View.of, namespace, memo(visible_services, services, namespace, limits, besides))
