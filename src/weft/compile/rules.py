"""The DestinationRules that a client obeys, one result a service of its view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from weft.compile.clusters import Peers, service_cluster
from weft.compile.istio.destination_rule import RuleIndex, merge
from weft.compile.memo import Memo
from weft.compile.policy import NO_RULE, Rule
from weft.compile.protocol import Protocol
from weft.compile.service import Labels, Resolution, Service
from weft.compile.settings import Settings
from weft.compile.view import View
from weft.ir import Cluster


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """Rules by host; the same object as long as none of them differs."""

    by_host: Mapping[str, Rule]

    def of(self, host: str) -> Rule:
        """What holds for a host."""
        return self.by_host.get(host, NO_RULE)


def rules_of(view: View, index: RuleIndex, labels: Labels, settings: Settings, memo: Memo) -> Rules:
    """All rules for a view. ``labels`` only matter when some rule is for certain workloads."""
    bearer = frozenset(labels)
    found: list[Rule] = []
    for service in view.services:
        obeyed = index.find(service.host, service.namespace, view.namespace, bearer, settings)
        found.append(memo(merge, obeyed, settings) if obeyed else NO_RULE)
    return memo(_rules, view, tuple(found))


def _rules(view: View, found: tuple[Rule, ...]) -> Rules:
    return Rules(
        {
            service.host: rule
            for service, rule in zip(view.services, found, strict=True)
            if rule is not NO_RULE
        }
    )


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Clusters of a view; the same object as long as they are the same."""

    all: tuple[Cluster, ...]


def clusters_of(
    view: View,
    rules: Rules,
    peers: Mapping[tuple[str, str], Peers],
    settings: Settings,
    router: bool,
    memo: Memo,
) -> Clusters:
    """A cluster for every port and subset of every service of a view."""
    found: list[Cluster] = []
    for service in view.services:
        found += memo(
            _service_clusters,
            service,
            rules.of(service.host),
            peers.get((service.namespace, service.host), _NOBODY),
            settings,
            router,
        )
    return memo(Clusters, tuple(found))


_NOBODY = Peers()


def _service_clusters(
    service: Service, rule: Rule, peers: Peers, settings: Settings, router: bool
) -> tuple[Cluster, ...]:
    if service.resolution is Resolution.ALIAS:
        return ()
    return tuple(
        service_cluster(service, port, subset, subset.policy(port.number), peers, settings, router)
        for port in service.ports
        if port.protocol is not Protocol.UDP
        for subset in (rule.default, *rule.subsets)
    )
