"""The parts of a trafficPolicy, with Istio's defaults (cluster_traffic_policy.go there)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Final

from weft import ir
from weft.compile.hosts import with_port
from weft.compile.nearness import Nearness
from weft.compile.policy import ClientTls, ClientTlsMode
from weft.compile.settings import Settings
from weft.model.connection_pool import ConnectionPoolSettings, TcpKeepalive
from weft.model.destination_rule import (
    ClientTLSSettings,
    ConsistentHashLB,
    DestinationRule,
    Distribute,
    Failover,
    LoadBalancerSettings,
    LocalityLoadBalancerSetting,
    OutlierDetection,
    ProxyProtocol,
    RetryBudget,
    TunnelSettings,
    ZoneAwareLoadBalancerSetting,
)
from weft.model.load_balancer import BackendUtilization
from weft.units import parse_duration

_ALGORITHMS: Final = {
    "ROUND_ROBIN": ir.Algorithm.ROUND_ROBIN,
    "LEAST_CONN": ir.Algorithm.LEAST_REQUEST,
    "LEAST_REQUEST": ir.Algorithm.LEAST_REQUEST,
    "RANDOM": ir.Algorithm.RANDOM,
    "PASSTHROUGH": ir.Algorithm.PROVIDED,
}
_RING: Final = 1024
_WARM_PERCENT: Final = 10.0
_BUDGET_PERCENT: Final = 20.0
_BUDGET_CONCURRENCY: Final = 3
_OFTEN: Final = timedelta(milliseconds=100)
_SECOND: Final = timedelta(seconds=1)

STICKY: Final = ir.LoadBalancing(algorithm=ir.Algorithm.RING_HASH, ring_minimum=_RING)
BY_CLIENT: Final = ir.HashOn(source_ip=True)


def load_balancing(balancer: LoadBalancerSettings | None) -> ir.LoadBalancing:
    """``loadBalancer``; LEAST_REQUEST unless said otherwise. A consistent hash goes before ``simple``."""
    if balancer is None:
        return ir.LoadBalancing()
    warm = balancer.warmup
    result = ir.LoadBalancing(
        algorithm=_ALGORITHMS.get(str(balancer.simple), ir.Algorithm.LEAST_REQUEST),
        warm_up=warm.duration if warm else balancer.warmup_duration_secs,
        warm_up_minimum_percent=(_WARM_PERCENT if warm.minimum_percent is None else warm.minimum_percent)
        if warm
        else None,
        warm_up_aggression=(1.0 if warm.aggression is None else warm.aggression) if warm else None,
    )
    if balancer.backend_utilization is not None:
        load = reported_load(balancer.backend_utilization)
        return replace(result, algorithm=ir.Algorithm.REPORTED_LOAD, reported=load)
    hashing = balancer.consistent_hash
    if hashing is None:
        return result
    if hashing.maglev is not None:
        return replace(result, algorithm=ir.Algorithm.MAGLEV, table_size=hashing.maglev.table_size or None)
    if hashing.ring_hash is not None:
        size = hashing.ring_hash.minimum_ring_size or None
    else:
        size = hashing.minimum_ring_size or _RING
    return replace(result, algorithm=ir.Algorithm.RING_HASH, ring_minimum=size)


def reported_load(rule: BackendUtilization) -> ir.ReportedLoad:
    """``backendUtilization``. Envoy computes weights at most ten times in a second."""
    penalty, period = rule.error_utilization_penalty_percent, rule.weight_update_period
    return ir.ReportedLoad(
        metrics=tuple(rule.metric_names_for_computing_utilization or ()),
        error_penalty=None if penalty is None else penalty / 100,
        settled_after=rule.weight_stabilization_period,
        forgotten_after=rule.weight_expiration_period,
        period=None if period is None else max(period, _OFTEN),
    )


def hash_on(hashing: ConsistentHashLB | None) -> ir.HashOn | None:
    """What of a request is hashed."""
    if hashing is None:
        return None
    if hashing.http_header_name:
        return ir.HashOn(header=hashing.http_header_name)
    if hashing.http_query_parameter_name:
        return ir.HashOn(query=hashing.http_query_parameter_name)
    if hashing.use_source_ip:
        return BY_CLIENT
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


def nearness(
    zones: ZoneAwareLoadBalancerSetting | None, places: LocalityLoadBalancerSetting | None
) -> Nearness | None:
    """``zoneAwareLbSetting``, else ``localityLbSetting``; None when neither is there."""
    if zones is not None:
        return Nearness(
            enabled=zones.enabled is not False,
            zone_aware=True,
            failover=_failover(zones.failover),
            labels=_labels(zones.failover_priority),
            min_hosts=zones.min_cluster_size,
        )
    if places is None:
        return None
    return Nearness(
        enabled=places.enabled is not False,
        distribute=_distribute(places.distribute),
        failover=_failover(places.failover),
        labels=_labels(places.failover_priority),
    )


def _distribute(rules: Iterable[Distribute] | None) -> tuple[ir.LocalityWeight, ...] | None:
    if not rules:
        return None
    return tuple(
        ir.LocalityWeight(origin=rule.from_ or "", to=tuple((rule.to or {}).items())) for rule in rules
    )


def _failover(rules: Iterable[Failover] | None) -> tuple[tuple[str, str], ...] | None:
    return tuple((rule.from_ or "", rule.to or "") for rule in rules) if rules else None


def _labels(priority: Iterable[str] | None) -> tuple[tuple[str, str | None], ...] | None:
    """``label`` is compared with the client's, ``label=value`` with the value."""
    if not priority:
        return None
    pairs = (text.partition("=") for text in priority)
    return tuple((name, value if found else None) for name, found, value in pairs)


def connections(pool: ConnectionPoolSettings, settings: Settings) -> ir.Connections:
    """``connectionPool``: zero means that no limit was given, as in Istio."""
    tcp, http = pool.tcp, pool.http
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
        max_connection_duration=tcp.max_connection_duration if tcp else None,
        keepalive=keepalive(tcp.tcp_keepalive if tcp else None, settings.keepalive),
        ping=_ping(pool),
    )


def upgrade(pool: ConnectionPoolSettings | None) -> bool | None:
    """``h2UpgradePolicy``: whether requests travel by HTTP/2; None: as the mesh says."""
    asked = pool.http.h2_upgrade_policy if pool and pool.http else None
    return {"UPGRADE": True, "DO_NOT_UPGRADE": False}.get(str(asked))


def keepalive(own: TcpKeepalive | None, mesh: ir.Keepalive | None = None) -> ir.Keepalive | None:
    """``tcpKeepalive``: each value of its own goes before the mesh's. Any of it turns keep-alive on."""
    if own is None:
        return mesh
    mesh = mesh or ir.Keepalive()
    return ir.Keepalive(
        probes=own.probes or mesh.probes,
        time=own.time if own.time is not None else mesh.time,
        interval=own.interval if own.interval is not None else mesh.interval,
    )


def _ping(pool: ConnectionPoolSettings) -> ir.Ping | None:
    """``http2KeepAlive``; both values are needed (Istio's validation says so)."""
    ping = pool.http.http2_keep_alive if pool.http else None
    if ping is None or ping.interval is None or ping.timeout is None:
        return None
    return ir.Ping(interval=ping.interval, timeout=ping.timeout)


def budgeted(found: ir.Connections, budget: RetryBudget | None) -> ir.Connections:
    """``retryBudget``: 20 % of the requests and at least 3, unless said otherwise."""
    if budget is None:
        return found
    return replace(
        found,
        retry_budget_percent=_BUDGET_PERCENT if budget.percent is None else budget.percent,
        retry_budget_min_concurrency=budget.min_retry_concurrency or _BUDGET_CONCURRENCY,
        retry_budget_interval=budget.budget_interval,
    )


def outlier(detection: OutlierDetection | None) -> ir.OutlierDetection | None:
    """``outlierDetection`` with Istio's defaults: five 5xx in a row, unless a count is given."""
    if detection is None:
        return None
    five = detection.consecutive_5xx_errors
    split = bool(detection.split_external_local_origin_errors)
    return ir.OutlierDetection(
        interval=detection.interval or timedelta(seconds=10),
        ejection_time=detection.base_ejection_time or timedelta(seconds=30),
        max_ejection_percent=detection.max_ejection_percent or 10,
        consecutive_5xx=5 if five is None else five or None,
        consecutive_gateway_errors=detection.consecutive_gateway_errors or None,
        consecutive_local_failures=(detection.consecutive_local_origin_failures or 5) if split else None,
        split_local_errors=split,
        min_health_percent=detection.min_health_percent or 0,
        http_codes=tuple(detection.outlier_detection_http_error_codes or ()),
    )


def client_tls(tls: ClientTLSSettings | None, rule: DestinationRule | None = None) -> ClientTls | None:
    """``tls`` of a rule, or of another resource."""
    if tls is None:
        return None
    return ClientTls(
        mode=ClientTlsMode(str(tls.mode or "DISABLE")),
        sni=tls.sni or "",
        names=tuple(tls.subject_alt_names or ()),
        credential=tls.credential_name or "",
        selected=rule is not None and rule.spec.workload_selector is not None,
        certificate_path=tls.client_certificate or "",
        key_path=tls.private_key or "",
        bundle_path=tls.ca_certificates or "",
        revoked_path=tls.ca_crl or "",
        skip_verify=bool(tls.insecure_skip_verify),
    )


def proxy_header(announce: ProxyProtocol | None) -> ir.ProxyHeader | None:
    """``proxyProtocol``; version 1 unless said otherwise."""
    if announce is None:
        return None
    return ir.ProxyHeader.V2 if announce.version == "V2" else ir.ProxyHeader.V1


def tunnel(settings: TunnelSettings | None) -> ir.Tunnel | None:
    """``tunnel``; CONNECT unless said otherwise."""
    if settings is None:
        return None
    return ir.Tunnel(
        to=with_port(settings.target_host, settings.target_port), post=settings.protocol == "POST"
    )
