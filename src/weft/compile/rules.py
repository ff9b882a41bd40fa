"""The DestinationRules that a client obeys, one result a service of its view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from weft.compile.clusters import Peers, service_cluster
from weft.compile.istio.destination_rule import merge
from weft.compile.istio.rule_index import RuleIndex
from weft.compile.memo import Memo
from weft.compile.policy import NO_RULE, Rule, Subset
from weft.compile.service import Labels, Resolution, Service, reachable
from weft.compile.settings import Settings
from weft.compile.view import View
from weft.ir import ANYWHERE, Cluster, Standpoint, UpstreamProtocol, seen
from weft.names import ClusterName


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """Rules by host; the same object as long as none of them differs."""

    by_host: Mapping[str, Rule]
    default: Rule = NO_RULE

    def of(self, host: str) -> Rule:
        """What holds for a host."""
        return self.by_host.get(host, self.default)


def rules_of(view: View, index: RuleIndex, labels: Labels, settings: Settings, memo: Memo) -> Rules:
    """All rules for a view. ``labels`` only matter when some rule is for certain workloads."""
    bearer = frozenset(labels)
    default = memo(merge, (), settings, False, _NONE)
    found: list[Rule] = []
    for service in view.services:
        obeyed = index.find(service.host, service.namespace, view.namespace, bearer, settings)
        if obeyed or service.sticky:
            contested = index.contested(service.host) if obeyed else _NONE
            found.append(memo(merge, obeyed, settings, service.sticky, contested))
        else:
            found.append(default)
    return memo(_rules, view, tuple(found), default)


_NONE: Final[frozenset[str]] = frozenset()


def _rules(view: View, found: tuple[Rule, ...], default: Rule) -> Rules:
    return Rules(
        {
            service.host: rule
            for service, rule in zip(view.services, found, strict=True)
            if rule is not default
        },
        default,
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
        rule = rules.of(service.host)
        found += memo(
            _service_clusters,
            service,
            rule,
            peers.get((service.namespace, service.host), _NOBODY),
            settings,
            router,
            view.namespace if memo(_keeps_secrets, rule) else "",
        )
    return memo(Clusters, tuple(found))


_NOBODY = Peers()


def _keeps_secrets(rule: Rule) -> bool:
    """Whether a policy names a Secret, which is one of the client's own namespace."""
    return any(
        policy.tls is not None and policy.tls.credential
        for subset in (rule.default, *rule.subsets)
        for policy in (subset.default, *(policy for _, policy in subset.policies))
    )


def _subsets(service: Service, rule: Rule) -> tuple[Subset, ...]:
    """What is looked up when a client says it has no parts."""
    return (rule.default,) if service.resolution is Resolution.NAMED else (rule.default, *rule.subsets)


def _service_clusters(
    service: Service, rule: Rule, peers: Peers, settings: Settings, router: bool, namespace: str
) -> tuple[Cluster, ...]:
    if service.resolution is Resolution.ALIAS:
        return ()
    return tuple(
        service_cluster(service, port, subset, subset.policy(port.number), peers, settings, router, namespace)
        for port in service.ports
        if reachable(service, port)
        for subset in _subsets(service, rule)
    )


def versatile(sending: Clusters, streams: frozenset[tuple[str, int]], memo: Memo) -> Clusters:
    """The clusters of these hosts and ports take bytes as before, and requests as they come."""
    found = list(sending.all)
    for place, cluster in enumerate(found):
        if cluster.protocol is UpstreamProtocol.TCP:
            name = ClusterName.parse(cluster.name)
            if name is not None and (name.host, name.port) in streams:
                found[place] = memo(_versatile, cluster)
    return memo(Clusters, tuple(found))


def _versatile(cluster: Cluster) -> Cluster:
    return replace(cluster, protocol=UpstreamProtocol.AS_RECEIVED)


def localized(sending: Clusters, client: Standpoint, memo: Memo) -> Clusters:
    """The clusters for a client at its place: endpoints that are a part of a cluster are ranked there."""
    places = memo(_ranked, sending)
    if not places:
        return sending
    found = list(sending.all)
    for place in places:
        found[place] = memo(_at, found[place], seen(found[place].placement, client))
    return memo(Clusters, tuple(found))


def _ranked(sending: Clusters) -> tuple[int, ...]:
    return tuple(
        place
        for place, cluster in enumerate(sending.all)
        if cluster.endpoints and cluster.placement != ANYWHERE
    )


def _at(cluster: Cluster, client: Standpoint) -> Cluster:
    return replace(cluster, client=client)
