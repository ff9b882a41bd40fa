"""DestinationRule: which rules a client obeys for a host, merged, and what their traffic policy means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from weft import ir
from weft.compile.age import age
from weft.compile.policy import NO_RULE, ClientTls, ClientTlsMode, Policy, Rule, Subset
from weft.compile.settings import Settings
from weft.compile.sources import source
from weft.compile.view import exported
from weft.model.connection_pool import ConnectionPoolSettings
from weft.model.destination_rule import (
    ClientTLSSettings,
    ConsistentHashLB,
    DestinationRule,
    LoadBalancerSettings,
    OutlierDetection,
    PortTrafficPolicy,
    RetryBudget,
    TrafficPolicy,
)
from weft.model.resource import Key
from weft.names import expand_host
from weft.units import parse_duration

_ALGORITHMS: Final = {
    "ROUND_ROBIN": ir.Algorithm.ROUND_ROBIN,
    "LEAST_CONN": ir.Algorithm.LEAST_REQUEST,
    "LEAST_REQUEST": ir.Algorithm.LEAST_REQUEST,
    "RANDOM": ir.Algorithm.RANDOM,
    "PASSTHROUGH": ir.Algorithm.PROVIDED,
}
_RING: Final = 1024
_BUDGET_PERCENT: Final = 20.0  # Istio's defaults of a retry budget
_BUDGET_CONCURRENCY: Final = 3


def merge(rules: tuple[DestinationRule, ...], settings: Settings) -> Rule:
    """Rules of one host, one namespace and one selector, the oldest first: Istio's merge.

    Subsets are joined, the first of a name wins; the first traffic policy there is holds.
    """
    if not rules:
        return NO_RULE
    top = next((rule for rule in rules if rule.spec.traffic_policy is not None), rules[0])
    policy = top.spec.traffic_policy
    subsets: dict[str, Subset] = {}
    for rule in rules:
        for subset in rule.spec.subsets or ():
            if subset.name not in subsets:
                labels = tuple(sorted((subset.labels or {}).items()))
                subsets[subset.name] = _subset(
                    subset.name, labels, policy, subset.traffic_policy, rule, settings
                )
    return Rule(default=_subset("", (), policy, None, top, settings), subsets=tuple(subsets.values()))


def _subset(
    name: str,
    labels: tuple[tuple[str, str], ...],
    base: TrafficPolicy | None,
    own: TrafficPolicy | None,
    rule: DestinationRule,
    settings: Settings,
) -> Subset:
    """A subset's policies. Its own blocks replace the rule's, a port's settings replace all."""
    base_ports, own_ports = _port_blocks(base), _port_blocks(own)
    own_blocks = _blocks(own)

    def resolved(blocks: _Blocks, port: int | None) -> Policy:
        merged = own_ports.get(port) if port is not None else None
        return _policy(merged or blocks.overlaid(own_blocks), rule, settings)

    whole = _blocks(base)
    return Subset(
        name=name,
        labels=labels,
        policies=tuple(
            (number, resolved(base_ports.get(number, whole), number))
            for number in sorted({*base_ports, *own_ports})
        ),
        default=resolved(whole, None),
    )


@dataclass(frozen=True, slots=True)
class _Blocks:
    """The parts of a traffic policy; each is taken whole or not at all."""

    balancer: LoadBalancerSettings | None = None
    pool: ConnectionPoolSettings | None = None
    outlier: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None
    budget: RetryBudget | None = None

    def overlaid(self, other: _Blocks) -> _Blocks:
        """These, where ``other`` has none of its own."""
        return _Blocks(
            other.balancer or self.balancer,
            other.pool or self.pool,
            other.outlier or self.outlier,
            other.tls or self.tls,
            other.budget or self.budget,
        )


def _blocks(policy: TrafficPolicy | PortTrafficPolicy | None) -> _Blocks:
    if policy is None:
        return _Blocks()
    return _Blocks(
        policy.load_balancer,
        policy.connection_pool,
        policy.outlier_detection,
        policy.tls,
        policy.retry_budget if isinstance(policy, TrafficPolicy) else None,
    )


def _port_blocks(policy: TrafficPolicy | None) -> dict[int, _Blocks]:
    levels = (policy.port_level_settings or ()) if policy is not None else ()
    return {
        level.port.number: _blocks(level)
        for level in reversed(levels)  # the first of a port holds
        if level.port is not None and level.port.number is not None
    }


def _policy(blocks: _Blocks, rule: DestinationRule, settings: Settings) -> Policy:
    balancer, http = blocks.balancer, blocks.pool.http if blocks.pool else None
    hashing = balancer.consistent_hash if balancer else None
    upgrade = {"UPGRADE": True, "DO_NOT_UPGRADE": False}.get(str(http.h2_upgrade_policy)) if http else None
    return Policy(
        balancing=load_balancing(balancer),
        hash_on=_hash_on(hashing),
        connections=_connections(blocks, settings),
        outlier=outlier(blocks.outlier),
        tls=client_tls(blocks.tls, rule.metadata.namespace),
        upgrade=upgrade,
        client_protocol=bool(http and http.use_client_protocol),
        passthrough=balancer is not None and balancer.simple == "PASSTHROUGH",
        source=source(rule.key),
    )


def load_balancing(balancer: LoadBalancerSettings | None) -> ir.LoadBalancing:
    """``loadBalancer``; LEAST_REQUEST unless said otherwise. A consistent hash goes before ``simple``."""
    if balancer is None:
        return ir.LoadBalancing()
    warm = balancer.warmup
    result = ir.LoadBalancing(
        algorithm=_ALGORITHMS.get(str(balancer.simple), ir.Algorithm.LEAST_REQUEST),
        warm_up=warm.duration if warm else balancer.warmup_duration_secs,
        warm_up_minimum_percent=(10.0 if warm.minimum_percent is None else warm.minimum_percent)
        if warm
        else None,
        warm_up_aggression=(1.0 if warm.aggression is None else warm.aggression) if warm else None,
    )
    hashing = balancer.consistent_hash
    if hashing is None:
        return result
    if hashing.maglev is not None:
        return replace(result, algorithm=ir.Algorithm.MAGLEV, table_size=hashing.maglev.table_size)
    size = hashing.ring_hash.minimum_ring_size if hashing.ring_hash else hashing.minimum_ring_size
    return replace(result, algorithm=ir.Algorithm.RING_HASH, ring_minimum=size or _RING)


def _hash_on(hashing: ConsistentHashLB | None) -> ir.HashOn | None:
    if hashing is None:
        return None
    if hashing.http_header_name:
        return ir.HashOn(header=hashing.http_header_name)
    if hashing.http_query_parameter_name:
        return ir.HashOn(query=hashing.http_query_parameter_name)
    if hashing.use_source_ip:
        return ir.HashOn(source_ip=True)
    cookie = hashing.http_cookie
    if cookie is None:
        return None
    return ir.HashOn(
        cookie=cookie.name,
        cookie_ttl=parse_duration(cookie.ttl) if cookie.ttl else None,
        cookie_path=cookie.path or "",
        cookie_attributes=tuple(
            (attribute.name, attribute.value or "") for attribute in cookie.attributes or ()
        ),
    )


def _connections(blocks: _Blocks, settings: Settings) -> ir.Connections | None:
    pool, budget = blocks.pool, blocks.budget
    if pool is None and budget is None:
        return None
    found = connections(pool or ConnectionPoolSettings(), settings)
    if budget is None:
        return found
    return replace(
        found,
        retry_budget_percent=_BUDGET_PERCENT if budget.percent is None else budget.percent,
        retry_budget_min_concurrency=budget.min_retry_concurrency or _BUDGET_CONCURRENCY,
    )


def connections(pool: ConnectionPoolSettings, settings: Settings) -> ir.Connections:
    """``connectionPool``: zero means that no limit was given, as in Istio."""
    tcp, http = pool.tcp, pool.http
    keepalive = settings.keepalive
    if tcp is not None and tcp.tcp_keepalive is not None:
        keepalive = ir.Keepalive(
            probes=tcp.tcp_keepalive.probes,
            time=tcp.tcp_keepalive.time,
            interval=tcp.tcp_keepalive.interval,
        )
    idle = http.idle_timeout if http else None
    return ir.Connections(
        connect_timeout=(tcp.connect_timeout if tcp else None) or settings.connect_timeout,
        max_connections=(tcp.max_connections if tcp else None) or None,
        max_pending_requests=(http.http1_max_pending_requests if http else None) or None,
        max_requests=(http.http2_max_requests if http else None) or None,
        max_retries=(http.max_retries if http else None) or None,
        max_requests_per_connection=(http.max_requests_per_connection if http else None) or None,
        max_concurrent_streams=(http.max_concurrent_streams if http else None) or None,
        idle_timeout=idle if idle is not None else (tcp.idle_timeout if tcp else None),
        tcp_idle_timeout=tcp.idle_timeout if tcp else None,
        max_connection_duration=tcp.max_connection_duration if tcp else None,
        keepalive=keepalive,
    )


def outlier(detection: OutlierDetection | None) -> ir.OutlierDetection | None:
    """``outlierDetection`` with Istio's defaults: five 5xx in a row, unless a count is given."""
    if detection is None:
        return None
    five = detection.consecutive_5xx_errors
    return ir.OutlierDetection(
        interval=detection.interval or timedelta(seconds=10),
        ejection_time=detection.base_ejection_time or timedelta(seconds=30),
        max_ejection_percent=detection.max_ejection_percent or 10,
        consecutive_5xx=5 if five is None else five or None,
        consecutive_gateway_errors=detection.consecutive_gateway_errors or None,
        consecutive_local_failures=detection.consecutive_local_origin_failures or None,
        split_local_errors=bool(detection.split_external_local_origin_errors),
        min_health_percent=detection.min_health_percent or 0,
    )


def client_tls(tls: ClientTLSSettings | None, namespace: str) -> ClientTls | None:
    """``tls``; a credential is a Secret of the rule's namespace."""
    if tls is None:
        return None
    return ClientTls(
        mode=ClientTlsMode(str(tls.mode or "DISABLE")),
        sni=tls.sni or "",
        names=tuple(tls.subject_alt_names or ()),
        credential=f"{namespace}/{tls.credential_name}" if tls.credential_name else "",
        certificate_path=tls.client_certificate or "",
        key_path=tls.private_key or "",
        bundle_path=tls.ca_certificates or "",
        skip_verify=bool(tls.insecure_skip_verify),
    )


class RuleIndex:
    """DestinationRules by namespace and host; looked up without walking them."""

    __slots__ = ("_rules", "selective")

    def __init__(self, rules: Mapping[Key, DestinationRule], settings: Settings) -> None:
        self._rules: dict[str, dict[str, tuple[DestinationRule, ...]]] = {}
        self.selective = False
        for rule in sorted(rules.values(), key=lambda rule: age(rule.metadata)):
            namespace = rule.metadata.namespace
            host = expand_host(rule.spec.host, namespace, settings.domain).lower()
            own = self._rules.setdefault(namespace, {})
            own[host] = (*own.get(host, ()), rule)
            self.selective = self.selective or rule.spec.workload_selector is not None

    def find(
        self,
        host: str,
        owner: str,
        client: str,
        labels: frozenset[tuple[str, str]],
        settings: Settings,
    ) -> tuple[DestinationRule, ...]:
        """The rules that a client obeys for a host: its namespace's, else the service's, else the root's."""
        for namespace in dict.fromkeys((client, owner, settings.root_namespace)):
            own = self._rules.get(namespace)
            for pattern in _patterns(host) if own else ():
                rules = [
                    rule
                    for rule in (own or {}).get(pattern, ())
                    if exported(rule.spec.export_to or settings.export_destination_rules, namespace, client)
                    and (rule.spec.workload_selector is None or namespace == client)
                ]
                chosen = _selected(rules, labels) if rules else ()
                if chosen:
                    return chosen
        return ()

    def everywhere(self, host: str) -> Iterable[DestinationRule]:
        """All rules that may be obeyed for a host, of whatever namespace, the oldest first."""
        patterns = set(_patterns(host))
        found = [
            rule
            for own in self._rules.values()
            for name, rules in own.items()
            if name in patterns
            for rule in rules
        ]
        return sorted(found, key=lambda rule: age(rule.metadata))


def find_subset(
    index: RuleIndex, host: str, owner: str, subset: str, settings: Settings
) -> tuple[tuple[str, str], ...] | None:
    """Labels of a subset by its name alone: as the service's own namespace defines it, else the oldest rule.

    A cluster's name does not say whose rule it was made by.
    """
    for rule in (*index.find(host, owner, owner, frozenset(), settings), *index.everywhere(host)):
        for part in rule.spec.subsets or ():
            if part.name == subset:
                return tuple(sorted((part.labels or {}).items()))
    return None


def _selected(
    rules: list[DestinationRule], labels: frozenset[tuple[str, str]]
) -> tuple[DestinationRule, ...]:
    """Rules that name this very workload go before those for all."""
    named = tuple(
        rule
        for rule in rules
        if rule.spec.workload_selector is not None
        and labels.issuperset((rule.spec.workload_selector.match_labels or {}).items())
    )
    return named or tuple(rule for rule in rules if rule.spec.workload_selector is None)


def _patterns(host: str) -> Iterable[str]:
    """The host, then wildcards over it, the longest first."""
    yield host
    parts = host.removeprefix("*.").split(".")
    for start in range(1, len(parts)):
        yield "*." + ".".join(parts[start:])
    yield "*"
