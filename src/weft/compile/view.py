"""What one proxy may see. Equal views are one object: what was compiled for one is found again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from weft.compile.hosts import covers
from weft.compile.registry import Services
from weft.compile.service import Service

EVERYWHERE = "*"


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Services that a namespace may call, one a host, in the order of their hosts."""

    namespace: str
    services: tuple[Service, ...]
    by_host: Mapping[str, Service]

    @classmethod
    def of(cls, namespace: str, services: tuple[Service, ...]) -> View:
        """A view of these services."""
        return cls(namespace, services, {service.host: service for service in services})


def exported(export_to: Iterable[str], owner: str, client: str) -> bool:
    """Whether ``exportTo`` lets a namespace see a resource of another (``*``, ``.``, ``~`` or names)."""
    own = {EVERYWHERE, client, "."} if owner == client else {EVERYWHERE, client}
    return not own.isdisjoint(export_to)


def visible_services(
    services: Services, namespace: str, limits: tuple[EgressHosts, ...] | None
) -> tuple[Service, ...]:
    """One service a host: the client's own namespace first, then Kubernetes', then the oldest."""
    found: list[Service] = []
    for host in sorted(services.by_host):
        candidates = [
            service
            for service in services.by_host[host]
            if exported(service.export_to, service.namespace, namespace)
            and (limits is None or any(limit.allows(service, namespace) for limit in limits))
        ]
        if candidates:
            found.append(min(candidates, key=lambda s: (s.namespace != namespace, not s.kubernetes, s.order)))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressHosts:
    """One entry of a Sidecar's ``egress.hosts``: ``namespace/host``; ``.`` is the own namespace."""

    namespace: str
    host: str

    def allows(self, service: Service, client: str) -> bool:
        """Whether the entry lets ``client`` see the service."""
        return self.admits(service.namespace, client) and covers(self.host, service.host)

    def admits(self, owner: str, client: str) -> bool:
        """Whether the entry is about resources of ``owner``."""
        return self.namespace == EVERYWHERE or owner == (client if self.namespace == "." else self.namespace)
