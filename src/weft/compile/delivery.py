"""Which clusters a proxy may wait for until a request needs them, and the proxy that asks for those."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from weft import ir
from weft.compile.memo import Memo
from weft.compile.settings import Delivery, Settings

MANY: Final = 300
"""More visible clusters than that are delivered on demand, if nobody says otherwise."""

_OUTBOUND: Final = "outbound|"
# As long as one cluster is not ready, Envoy asks for no other. These are ready at once.
_PROMPT: Final = frozenset({ir.Discovery.EDS, ir.Discovery.STATIC, ir.Discovery.ORIGINAL_DST})
# Clusters in what people add themselves: nothing is known of how it is used.
_IN_TEXT: Final = re.compile(r'outbound\|\d+\|[^|"\s]*\|[\w.*-]+')


@dataclass(frozen=True, slots=True)
class _Clusters:
    """Names of a proxy's clusters: those of services, those of them that may wait, and all others."""

    services: frozenset[str]
    patient: frozenset[str]
    others: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Listeners:
    """Listeners that ask, and the clusters that they cannot ask for."""

    asking: tuple[ir.Listener, ...]
    needed: frozenset[str]


@dataclass(frozen=True, slots=True)
class OnDemand:
    """``proxy`` asks for clusters that it has not got; ``lazy`` are those that it gets only then.

    ``source`` is the proxy that it was made of.
    """

    proxy: ir.Proxy
    lazy: frozenset[str]
    source: ir.Proxy
    clusters: _Clusters
    listeners: _Listeners


def is_many(proxy: ir.Proxy, settings: Settings) -> bool:
    """Whether the clusters of a proxy that starts are to come on demand. A gateway always gets all."""
    if proxy.identity.name.kind == "router" or settings.delivery is Delivery.EAGER:
        return False
    return settings.delivery is Delivery.ON_DEMAND or sum(map(_may_wait, proxy.clusters)) > MANY


def on_demand(proxy: ir.Proxy, memo: Memo, before: OnDemand | None = None) -> OnDemand:
    """The same proxy, and its clusters the same, but for those that asks and those that wait.

    What nothing can ask for does not wait: copies of requests (mirrors), datagrams, services that filters
    and telemetry call, and what an EnvoyFilter names; nor do clusters that are not ready at once. ``before``
    is the last result for this proxy: what did not change since is not looked at again. Proxies that see the
    same share the names.
    """
    if before is not None and before.source.clusters is proxy.clusters:
        clusters = before.clusters
    else:
        clusters = _clusters(proxy.clusters, memo)
    if before is not None and before.source.listeners == proxy.listeners:
        listeners = before.listeners
    else:
        listeners = _listeners(proxy.listeners, memo)
    needed: set[str] = {*listeners.needed, *memo(_named_in, proxy.patches)}
    tables: list[ir.RouteTable] = []
    for table in proxy.routes:
        uses = memo(_uses, table, memo)
        needed |= uses.mirrors
        if unknown := memo(_less, uses.leads_to, clusters.services) - clusters.others:
            table, served = memo(_stranded, table, unknown)
            needed |= served
        tables.append(table)
    needed |= memo(_told_to, proxy.telemetry)
    return OnDemand(
        replace(proxy, listeners=listeners.asking, routes=tuple(tables)),
        memo(_less, clusters.patient, frozenset(needed) & clusters.patient),
        proxy,
        clusters,
        listeners,
    )


def _may_wait(cluster: ir.Cluster) -> bool:
    """Clusters of services, but for those that wait themselves: for DNS, for a Secret that may be missing."""
    if not cluster.name.startswith(_OUTBOUND) or cluster.discovery not in _PROMPT:
        return False
    tls = cluster.tls
    return tls is None or not any(
        secret is not None and secret.source is ir.SecretFrom.ADS for secret in (tls.certificate, tls.trust)
    )


def _clusters(clusters: tuple[ir.Cluster, ...], memo: Memo) -> _Clusters:
    names = [cluster.name for cluster in clusters]
    services = frozenset(name for name in names if name.startswith(_OUTBOUND))
    return _Clusters(
        memo.same(services),
        memo.same(frozenset(cluster.name for cluster in clusters if _may_wait(cluster))),
        frozenset(names) - services,
    )


def _less(names: frozenset[str], others: frozenset[str]) -> frozenset[str]:
    return names - others


# Routes


@dataclass(frozen=True, slots=True, eq=False)
class _Uses:
    leads_to: frozenset[str]
    mirrors: frozenset[str]


def _uses(table: ir.RouteTable, memo: Memo) -> _Uses:
    parts = [memo(_host_uses, host) for host in table.virtual_hosts]
    return _Uses(
        frozenset().union(*(part.leads_to for part in parts)),
        frozenset().union(*(part.mirrors for part in parts)),
    )


def _host_uses(host: ir.VirtualHost) -> _Uses:
    forwards = [route.action for route in host.routes if isinstance(route.action, ir.Forward)]
    return _Uses(
        frozenset(to.cluster for action in forwards for to in action.destinations),
        frozenset(mirror.cluster for action in forwards for mirror in action.mirrors),
    )


def _stranded(table: ir.RouteTable, unknown: frozenset[str]) -> tuple[ir.RouteTable, frozenset[str]]:
    """The table where nothing is asked for on routes that lead to ``unknown`` clusters.

    They answer what the route says then, at once. Their other clusters must be there: the second result.
    """
    served: set[str] = set()
    hosts: list[ir.VirtualHost] = []
    for host in table.virtual_hosts:
        routes: list[ir.Route] = []
        for route in host.routes:
            to = {one.cluster for one in _destinations(route)}
            if to & unknown:
                served |= to - unknown
                route = replace(route, on_demand=False)
            routes.append(route)
        changed = any(new is not old for new, old in zip(routes, host.routes, strict=True))
        hosts.append(replace(host, routes=tuple(routes)) if changed else host)
    return replace(table, virtual_hosts=tuple(hosts)), frozenset(served)


def _destinations(route: ir.Route) -> tuple[ir.Destination, ...]:
    return route.action.destinations if isinstance(route.action, ir.Forward) else ()


# Listeners


def _listeners(listeners: tuple[ir.Listener, ...], memo: Memo) -> _Listeners:
    return _Listeners(
        tuple(memo(_asking, listener) for listener in listeners),
        frozenset().union(*(memo(_needed, listener) for listener in listeners)),
    )


def _handlers(listener: ir.Listener) -> Iterator[ir.HttpHandler | ir.TcpHandler]:
    for chain in listener.chains:
        yield chain.handler
    if listener.default_chain is not None:
        yield listener.default_chain.handler


def _needed(listener: ir.Listener) -> frozenset[str]:
    """Clusters that a listener uses in ways that cannot wait."""
    found = {to.cluster for to in listener.udp.destinations} if listener.udp is not None else set()
    for handler in _handlers(listener):
        found |= {one.authorizer.cluster for one in handler.consultations if one.authorizer is not None}
        if isinstance(handler, ir.HttpHandler):
            found |= {limit.service.cluster for limit in handler.rate_limits if limit.service is not None}
            found |= {authorizer.cluster for authorizer in handler.authorizers}
            if isinstance(handler.routes, ir.RouteTable):
                for host in handler.routes.virtual_hosts:
                    uses = _host_uses(host)
                    found |= uses.leads_to | uses.mirrors
    return frozenset(found)


def _asking(listener: ir.Listener) -> ir.Listener:
    return listener.with_chains(_asking_chain)


def _asking_chain(chain: ir.FilterChain) -> ir.FilterChain:
    handler = chain.handler
    if isinstance(handler, ir.HttpHandler):
        asks = isinstance(handler.routes, str)
        return replace(chain, handler=replace(handler, on_demand=True)) if asks else chain
    if any(to.cluster.startswith(_OUTBOUND) for to in handler.destinations):
        return replace(chain, handler=replace(handler, on_demand=True))
    return chain


def _told_to(telemetry: ir.Telemetry) -> frozenset[str]:
    return telemetry.clusters()


def _named_in(patches: Iterable[ir.Patch]) -> frozenset[str]:
    return frozenset(name for patch in patches for name in _IN_TEXT.findall(patch.value))
