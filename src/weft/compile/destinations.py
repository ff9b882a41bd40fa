"""Where a rule may lead: what its destinations' names mean to the client that obeys it."""

from __future__ import annotations

from dataclasses import dataclass

from weft.compile.policy import NO_POLICY, NO_RULE, Policy, Rule
from weft.compile.service import Service
from weft.names import outbound_cluster


@dataclass(frozen=True, slots=True)
class Target:
    """A host of a destination: its service, if the client knows one, and what rules say of it."""

    service: Service | None
    rule: Rule = NO_RULE


UNKNOWN = Target(None)


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Targets by full host name; made once for a set of them, so that it can be remembered by."""

    hosts: tuple[tuple[str, Service | None, Rule], ...]

    def get(self, host: str) -> Target:
        """The target of that name."""
        for name, service, rule in self.hosts:
            if name == host:
                return Target(service, rule)
        return UNKNOWN


def cluster_of(host: str, port: int | None, subset: str, target: Target, listen_port: int) -> str:
    """The cluster of a destination: its port, else the service's only one, else the listener's (Istio)."""
    service = target.service
    if service is not None and service.alias_of:
        host = service.alias_of
    if port is None:
        only = service.ports[0].number if service is not None and len(service.ports) == 1 else None
        port = only if only is not None else listen_port
    return outbound_cluster(host, port, subset)


def policy_of(target: Target, port: int | None, subset: str, listen_port: int) -> Policy:
    """What holds for connections to it."""
    found = target.rule.subset(subset)
    if found is None:
        return NO_POLICY
    service = target.service
    if port is None and service is not None and len(service.ports) == 1:
        port = service.ports[0].number
    return found.policy(port or listen_port)
