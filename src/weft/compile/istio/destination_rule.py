"""DestinationRule: the rules of one host merged, and what holds for each of its subsets and ports."""

from __future__ import annotations

from dataclasses import dataclass, replace

from weft import ir
from weft.compile.istio import traffic_policy as policies
from weft.compile.policy import NO_RULE, Policy, Rule, Stream, Subset
from weft.compile.settings import Settings
from weft.compile.sources import source
from weft.model.connection_pool import ConnectionPoolSettings
from weft.model.destination_rule import (
    ClientTLSSettings,
    DestinationRule,
    LoadBalancerSettings,
    OutlierDetection,
    PortTrafficPolicy,
    ProxyProtocol,
    RetryBudget,
    TrafficPolicy,
)


def merge(
    rules: tuple[DestinationRule, ...], settings: Settings, sticky: bool, contested: frozenset[str]
) -> Rule:
    """Rules of one host, in the order in which they count: Istio's merge.

    Subsets are joined, the first of a name wins; the first traffic policy there is holds. ``sticky``: the
    service itself wants a client's connections at one endpoint, where no rule has a balancer. ``contested``
    are subsets that other rules define otherwise.
    """
    top = next((rule for rule in rules if rule.spec.traffic_policy is not None), rules[0] if rules else None)
    if top is None and not sticky and settings.default_pool is None and settings.default_outlier is None:
        return NO_RULE
    maker = _Maker(top, settings, sticky)
    subsets: dict[str, Subset] = {}
    for rule in rules:
        for part in rule.spec.subsets or ():
            if part.name not in subsets:
                labels = tuple(sorted((part.labels or {}).items()))
                made = maker.subset(part.name, labels, part.traffic_policy)
                subsets[part.name] = replace(made, contested=True) if part.name in contested else made
    return Rule(default=maker.subset("", (), None), subsets=tuple(subsets.values()))


@dataclass(frozen=True, slots=True)
class _Maker:
    """The rule whose traffic policy holds for the whole host."""

    rule: DestinationRule | None
    settings: Settings
    sticky: bool

    def subset(self, name: str, labels: tuple[tuple[str, str], ...], own: TrafficPolicy | None) -> Subset:
        """A subset's policies. Its own blocks replace the rule's, settings of a port all there are."""
        base = self.rule.spec.traffic_policy if self.rule else None
        base_ports, own_ports = _port_blocks(base), _port_blocks(own)
        whole, own_blocks = _blocks(base), _blocks(own)

        def resolved(port: int | None) -> Policy:
            blocks = whole if port is None else base_ports.get(port, whole)
            if port is not None and port in own_ports:
                return self._policy(blocks.replaced(own_ports[port]), seeded=False)
            return self._policy(blocks.overlaid(own_blocks), seeded=True)

        return Subset(
            name=name,
            labels=labels,
            policies=tuple((number, resolved(number)) for number in sorted({*base_ports, *own_ports})),
            default=resolved(None),
            stream=self._stream(name, base, own),
        )

    def _policy(self, blocks: _Blocks, *, seeded: bool) -> Policy:
        """``seeded``: where a block is missing the mesh's default traffic policy holds."""
        balancer, settings = blocks.balancer, self.settings
        http = blocks.pool.http if blocks.pool else None
        upgrade = policies.upgrade(blocks.pool)
        client_protocol = bool(http and http.use_client_protocol)
        balancing, hashed = policies.load_balancing(balancer), None
        if balancer is not None:
            hashed = policies.hash_on(balancer.consistent_hash)
        elif self.sticky:
            balancing, hashed = policies.STICKY, policies.BY_CLIENT
        if blocks.pool is not None:
            pool = policies.connections(blocks.pool, settings)
        elif seeded and settings.default_pool is not None:
            pool, upgrade = settings.default_pool, settings.default_upgrade
            client_protocol = settings.default_client_protocol
        else:
            pool = ir.Connections(connect_timeout=settings.connect_timeout, keepalive=settings.keepalive)
        outlier = policies.outlier(blocks.outlier)
        return Policy(
            balancing=balancing,
            hash_on=hashed,
            nearness=policies.nearness(balancer.zone_aware_lb_setting, balancer.locality_lb_setting)
            if balancer
            else None,
            connections=policies.budgeted(pool, blocks.budget),
            outlier=outlier if outlier or not seeded else settings.default_outlier,
            tls=policies.client_tls(blocks.tls, self.rule),
            proxy_header=policies.proxy_header(blocks.announce),
            upgrade=upgrade,
            client_protocol=client_protocol,
            passthrough=balancer is not None and balancer.simple == "PASSTHROUGH",
            source=source(self.rule.key) if self.rule else None,
        )

    def _stream(self, name: str, base: TrafficPolicy | None, own: TrafficPolicy | None) -> Stream:
        """Istio looks at the host's policy here, not at its ports; a tunnel is not inherited by subsets."""
        pool = base.connection_pool if base else None
        tcp = pool.tcp if pool else None
        balancer = (own.load_balancer if own else None) or (base.load_balancer if base else None)
        hashing = balancer.consistent_hash if balancer else None
        tunnel = own if name else base
        return Stream(
            idle_timeout=tcp.idle_timeout if tcp else None,
            max_duration=tcp.max_connection_duration if tcp else None,
            hash_source_ip=bool(hashing and hashing.use_source_ip) or (self.sticky and balancer is None),
            tunnel=policies.tunnel(tunnel.tunnel) if tunnel else None,
        )


@dataclass(frozen=True, slots=True)
class _Blocks:
    """The parts of a traffic policy; each is taken whole or not at all. Ports have the first four only."""

    balancer: LoadBalancerSettings | None = None
    pool: ConnectionPoolSettings | None = None
    outlier: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None
    budget: RetryBudget | None = None
    announce: ProxyProtocol | None = None

    def overlaid(self, other: _Blocks) -> _Blocks:
        """``other``'s blocks, these where it has none."""
        return _Blocks(
            other.balancer or self.balancer,
            other.pool or self.pool,
            other.outlier or self.outlier,
            other.tls or self.tls,
            other.budget or self.budget,
            other.announce or self.announce,
        )

    def replaced(self, port: _Blocks) -> _Blocks:
        """What a port of a subset says, or leaves out; these where a port cannot say anything."""
        return replace(port, budget=self.budget, announce=self.announce)


def _blocks(policy: TrafficPolicy | PortTrafficPolicy | None) -> _Blocks:
    if policy is None:
        return _Blocks()
    first = (policy.load_balancer, policy.connection_pool, policy.outlier_detection, policy.tls)
    if isinstance(policy, TrafficPolicy):
        return _Blocks(*first, policy.retry_budget, policy.proxy_protocol)
    return _Blocks(*first)


def _port_blocks(policy: TrafficPolicy | None) -> dict[int, _Blocks]:
    levels = (policy.port_level_settings or ()) if policy is not None else ()
    return {
        level.port.number: _blocks(level)
        for level in reversed(levels)  # the first of a port holds
        if level.port is not None and level.port.number is not None
    }
