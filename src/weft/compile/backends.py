"""The workloads behind services, and what clients must know of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from weft.compile import kubernetes
from weft.compile.clusters import Peers, Sidecars
from weft.compile.memo import Memo
from weft.compile.registry import Bucket, Instances, Services, select
from weft.compile.service import Instance, Resolution, Service
from weft.model.resource import Key
from weft.model.workload import Workload
from weft.model.workload_group import WorkloadGroup
from weft.spiffe import SpiffeId

Template = tuple[frozenset[tuple[str, str]], str, str]
"""Labels that instances of a template bear, their namespace and service account."""

_LOOKED_UP: Final = frozenset({Resolution.DNS, Resolution.DNS_ROUND_ROBIN})

PeersByService = Mapping[tuple[str, str], Peers]
"""By namespace and host."""


@dataclass(frozen=True, slots=True, eq=False)
class Backing:
    """All that runs, or may: workloads, listed addresses, and templates of workloads to come."""

    instances: Instances
    lists: Mapping[tuple[str, str], tuple[kubernetes.Listed, ...]]
    workloads: Mapping[Key, Workload]
    groups: Mapping[Key, WorkloadGroup]

    def of(self, service: Service, memo: Memo) -> tuple[Instance, ...]:
        """The workloads behind a service, in a stable order, whatever their health."""
        selector = service.selector
        bucket = None if selector is None else self.instances.candidates(service.namespace, selector)
        lists = self.lists.get((service.namespace, service.name), ())
        return _running(service, bucket, lists, memo)


def peers_of(services: Services, backing: Backing, trust_domain: str, memo: Memo) -> PeersByService:
    """Who may be behind each service. Equal answers are one object: endpoints may come and go unseen."""
    templates = memo(_templates, backing.workloads, backing.groups)
    found: dict[tuple[str, str], Peers] = {}
    for group in services.by_host.values():
        for service in group:
            selector = service.selector
            bucket: Bucket | None = None
            planned: tuple[Template, ...] = ()
            if selector is not None:
                bucket = backing.instances.candidates(service.namespace, selector)
                planned = templates.get(service.namespace, ())
            lists = backing.lists.get((service.namespace, service.name), ())
            if bucket or planned or lists or service.endpoints:
                found[service.namespace, service.host] = memo(
                    _peers, service, bucket or None, lists, planned, trust_domain, memo
                )
    return found


def _templates(
    workloads: Mapping[Key, Workload], groups: Mapping[Key, WorkloadGroup]
) -> Mapping[str, tuple[Template, ...]]:
    found: dict[str, list[Template]] = {}
    for workload in workloads.values():
        space, account = workload.metadata.namespace, workload.spec.service_account or "default"
        found.setdefault(space, []).append(
            (frozenset((workload.metadata.labels or {}).items()), space, account)
        )
    for group in groups.values():
        space, template = group.metadata.namespace, group.spec.template
        labels = group.spec.metadata.labels if group.spec.metadata else None
        account = (template.service_account if template else None) or "default"
        found.setdefault(space, []).append((frozenset((labels or {}).items()), space, account))
    return {namespace: tuple(templates) for namespace, templates in found.items()}


def _peers(
    service: Service,
    bucket: Bucket | None,
    lists: tuple[kubernetes.Listed, ...],
    templates: tuple[Template, ...],
    trust_domain: str,
    memo: Memo,
) -> Peers:
    running = _running(service, bucket, lists, memo)
    wanted = frozenset(service.selector or ())
    accounts = {(member.namespace, member.account) for member in running if member.account}
    accounts |= {(space, account) for labels, space, account in templates if wanted <= labels}
    carrying = sum(member.mesh for member in running)
    if carrying == len(running):
        sidecars = Sidecars.ALL if accounts else Sidecars.NONE
    else:
        sidecars = Sidecars.SOME if carrying else Sidecars.NONE
    identities = tuple(filter(None, (_identity(trust_domain, *account) for account in sorted(accounts))))
    # Where Envoy looks up their names they are part of the cluster; elsewhere they come and go unseen.
    named = service.resolution in _LOOKED_UP and service.selector is not None
    return memo(_share, identities, sidecars, running if named else ())


def _identity(trust_domain: str, namespace: str, account: str) -> str:
    """Empty for a service account that no identity can have: nobody bears it, nobody is let in for it."""
    try:
        return str(SpiffeId(trust_domain, namespace, account))
    except ValueError:
        return ""


def _running(
    service: Service, bucket: Bucket | None, lists: tuple[kubernetes.Listed, ...], memo: Memo
) -> tuple[Instance, ...]:
    """Selected workloads; where none is registered, the addresses that are listed."""
    if bucket and service.selector is not None:
        selected = memo(select, bucket, service.selector)
        if selected:
            return selected
    if service.kubernetes:
        return memo(kubernetes.listed_instances, lists, service) if lists else ()
    return service.endpoints if service.selector is None else ()


def _share(identities: tuple[str, ...], sidecars: Sidecars, members: tuple[Instance, ...]) -> Peers:
    return Peers(identities=identities, sidecars=sidecars, members=members)
