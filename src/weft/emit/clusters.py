"""Clusters: destinations with their balancing, limits, protocol and protection."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from weft.emit.balancing import balance
from weft.emit.endpoints import load_assignment
from weft.emit.filters.forward_proxy import name_cache
from weft.emit.header_case import keep_case
from weft.emit.scalars import (
    duration,
    maybe_uint32,
    source_metadata,
    uint32,
)
from weft.emit.tls import ads_source, plain, upstream
from weft.ir.cluster import (
    Cluster,
    Connections,
    Discovery,
    MutualTls,
    OutlierDetection,
    ProxyHeader,
    UpstreamProtocol,
)
from weft.protos import (
    cluster_v3,
    core_v3,
    forward_proxy_cluster_v3,
    http_protocols_v3,
    matcher_v3,
    proxy_header_v3,
    route_v3,
    tap_match_v3,
)
from weft.protos.wire import pack

_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_FORWARD_PROXY: Final = "envoy.clusters.dynamic_forward_proxy"
_PROXY_SOCKET: Final = "envoy.transport_sockets.upstream_proxy_protocol"
_NO_LIMIT: Final = 2**32 - 1
_DNS_RETRY_FIRST: Final = timedelta(seconds=1)
_DNS_RETRY_LAST: Final = timedelta(seconds=10)


def _thresholds(limits: Connections) -> cluster_v3.CircuitBreakers:
    def limit(value: int | None) -> int:
        return _NO_LIMIT if value is None else value

    thresholds = cluster_v3.CircuitBreakers.Thresholds(
        max_connections=uint32(limit(limits.max_connections)),
        max_pending_requests=uint32(limit(limits.max_pending_requests)),
        max_requests=uint32(limit(limits.max_requests)),
        max_retries=uint32(limit(limits.max_retries)),
        track_remaining=True,
    )
    if limits.retry_budget_percent is not None:
        budget = thresholds.retry_budget
        budget.budget_percent.value = limits.retry_budget_percent
        if limits.retry_budget_min_concurrency is not None:
            budget.min_retry_concurrency.CopyFrom(uint32(limits.retry_budget_min_concurrency))
        if limits.retry_budget_interval is not None:
            budget.budget_interval.CopyFrom(duration(limits.retry_budget_interval))
    return cluster_v3.CircuitBreakers(thresholds=[thresholds])


def _outlier(rule: OutlierDetection) -> cluster_v3.OutlierDetection:
    """Only the tests that are asked for run: Envoy would run success-rate and 5xx tests by default."""

    def enforced(value: int | None) -> int:
        return 0 if value is None else 100

    return cluster_v3.OutlierDetection(
        interval=duration(rule.interval),
        base_ejection_time=duration(rule.ejection_time),
        max_ejection_percent=uint32(rule.max_ejection_percent),
        consecutive_5xx=maybe_uint32(rule.consecutive_5xx),
        enforcing_consecutive_5xx=uint32(enforced(rule.consecutive_5xx)),
        consecutive_gateway_failure=maybe_uint32(rule.consecutive_gateway_errors),
        enforcing_consecutive_gateway_failure=uint32(enforced(rule.consecutive_gateway_errors)),
        consecutive_local_origin_failure=maybe_uint32(rule.consecutive_local_failures),
        enforcing_consecutive_local_origin_failure=uint32(enforced(rule.consecutive_local_failures)),
        split_external_local_origin_errors=rule.split_local_errors,
        enforcing_success_rate=uint32(0),
        enforcing_local_origin_success_rate=uint32(0),
    )


def _http_options(cluster: Cluster) -> http_protocols_v3.HttpProtocolOptions:
    limits = cluster.connections
    http1 = core_v3.Http1ProtocolOptions()
    if cluster.keep_case:
        keep_case(http1)
    http2 = core_v3.Http2ProtocolOptions(
        allow_connect=True,  # WebSockets (RFC 8441)
        max_concurrent_streams=maybe_uint32(limits.max_concurrent_streams),
    )
    if limits.ping is not None:
        http2.connection_keepalive.CopyFrom(
            core_v3.KeepaliveSettings(
                interval=duration(limits.ping.interval), timeout=duration(limits.ping.timeout)
            )
        )
    options = http_protocols_v3.HttpProtocolOptions()
    match cluster.protocol:
        case UpstreamProtocol.HTTP2:
            options.explicit_http_config.http2_protocol_options.CopyFrom(http2)
        case UpstreamProtocol.AS_RECEIVED:
            options.use_downstream_protocol_config.http_protocol_options.CopyFrom(http1)
            options.use_downstream_protocol_config.http2_protocol_options.CopyFrom(http2)
        case UpstreamProtocol.NEGOTIATED:
            options.auto_config.http_protocol_options.CopyFrom(http1)
            options.auto_config.http2_protocol_options.CopyFrom(http2)
        case UpstreamProtocol.HTTP1 | UpstreamProtocol.TCP:
            options.explicit_http_config.http_protocol_options.CopyFrom(http1)
    common = options.common_http_protocol_options
    if limits.idle_timeout is not None:
        common.idle_timeout.CopyFrom(duration(limits.idle_timeout))
    if limits.max_requests_per_connection is not None:
        common.max_requests_per_connection.CopyFrom(uint32(limits.max_requests_per_connection))
    if limits.max_connection_duration is not None:
        common.max_connection_duration.CopyFrom(duration(limits.max_connection_duration))
    if cluster.tls is not None and cluster.tls.sni_from_host:
        options.upstream_http_protocol_options.CopyFrom(
            core_v3.UpstreamHttpProtocolOptions(
                auto_sni=True,
                auto_san_validation=cluster.tls.trust is not None and cluster.tls.san_from_host,
            )
        )
    if cluster.outlier is not None and cluster.outlier.http_codes:
        options.outlier_detection.error_matcher.CopyFrom(_statuses(cluster.outlier.http_codes))
    return options


def _statuses(codes: tuple[int, ...]) -> tap_match_v3.MatchPredicate:
    """True for answers with one of these statuses."""
    status = matcher_v3.StringMatcher
    header = route_v3.HeaderMatcher
    tests = [
        tap_match_v3.MatchPredicate(
            http_response_headers_match=tap_match_v3.HttpHeadersMatch(
                headers=[header(name=":status", string_match=status(exact=str(code)))]
            )
        )
        for code in codes
    ]
    if len(tests) == 1:
        return tests[0]
    return tap_match_v3.MatchPredicate(or_match=tap_match_v3.MatchPredicate.MatchSet(rules=tests))


def _discover(made: cluster_v3.Cluster, cluster: Cluster) -> None:
    kind = cluster_v3.Cluster.DiscoveryType
    match cluster.discovery:
        case Discovery.EDS:
            made.type = kind.EDS
            made.eds_cluster_config.eds_config.CopyFrom(ads_source())
            made.eds_cluster_config.service_name = cluster.name
            return
        case Discovery.ORIGINAL_DST:
            made.type = kind.ORIGINAL_DST
            if cluster.original_port is not None:
                made.original_dst_lb_config.upstream_port_override.value = cluster.original_port
            return
        case Discovery.NAMED:
            config = forward_proxy_cluster_v3.ClusterConfig(
                dns_cache_config=name_cache(),
                # What is verified is for ``Cluster.tls`` to say; Envoy would insist on all of it.
                allow_insecure_cluster_options=True,
            )
            made.cluster_type.name = _FORWARD_PROXY
            made.cluster_type.typed_config.CopyFrom(pack(config))
            return
        case Discovery.BLACK_HOLE:
            made.type = kind.STATIC
            return
        case Discovery.STATIC:
            made.type = kind.STATIC
        case Discovery.STRICT_DNS | Discovery.LOGICAL_DNS:
            strict = cluster.discovery is Discovery.STRICT_DNS
            made.type = kind.STRICT_DNS if strict else kind.LOGICAL_DNS
            families = cluster_v3.Cluster.DnsLookupFamily
            made.dns_lookup_family = families.ALL if cluster.races else families.V4_PREFERRED
            made.dns_refresh_rate.CopyFrom(duration(cluster.dns_refresh))
            made.respect_dns_ttl = cluster.respect_dns_ttl
            made.dns_failure_refresh_rate.base_interval.CopyFrom(duration(_DNS_RETRY_FIRST))
            made.dns_failure_refresh_rate.max_interval.CopyFrom(duration(_DNS_RETRY_LAST))
    made.load_assignment.CopyFrom(
        load_assignment(cluster.name, cluster.endpoints, cluster.placement, cluster.client)
    )


def _protect(made: cluster_v3.Cluster, cluster: Cluster) -> None:
    """With automatic mTLS each endpoint's own metadata says whether a sidecar answers there."""
    version = cluster.proxy_header
    if cluster.tls is None:
        if version is not None:
            made.transport_socket.CopyFrom(_announcing(plain(), version))
        return
    if cluster.mutual is MutualTls.ALWAYS:
        made.transport_socket.CopyFrom(_announcing(upstream(cluster.tls), version))
        return
    match = cluster_v3.Cluster.TransportSocketMatch
    mesh = match(name="tlsMode-istio", transport_socket=_announcing(upstream(cluster.tls), version))
    mesh.match.fields["tlsMode"].string_value = "istio"
    other = match(name="tlsMode-disabled", transport_socket=_announcing(plain(), version))
    other.match.SetInParent()
    made.transport_socket_matches.extend((mesh, other))


def _announcing(socket: core_v3.TransportSocket, version: ProxyHeader | None) -> core_v3.TransportSocket:
    """The socket, with a PROXY header before all that it sends."""
    if version is None:
        return socket
    versions = core_v3.ProxyProtocolConfig.Version
    config = core_v3.ProxyProtocolConfig(version=versions.V1 if version is ProxyHeader.V1 else versions.V2)
    return core_v3.TransportSocket(
        name=_PROXY_SOCKET,
        typed_config=pack(
            proxy_header_v3.ProxyProtocolUpstreamTransport(config=config, transport_socket=socket)
        ),
    )


def _metadata(cluster: Cluster) -> core_v3.Metadata:
    metadata = source_metadata(cluster.source) or core_v3.Metadata()
    if cluster.subset:
        metadata.filter_metadata["istio"].fields["subset"].string_value = cluster.subset
    # Istio's list cannot be read by a log formatter: telemetry has the same in plain fields. Of a
    # cluster without a service it says the cluster's name, as Istio's does.
    own = metadata.filter_metadata["weft"].fields
    service = cluster.service
    if service is not None:
        services = metadata.filter_metadata["istio"].fields["services"].list_value
        entry = services.values.add().struct_value.fields
        entry["host"].string_value = service.host
        entry["name"].string_value = service.name
        entry["namespace"].string_value = service.namespace
    own["service"].string_value = service.host if service else "unknown"
    own["service_name"].string_value = service.name if service else cluster.name
    own["service_namespace"].string_value = service.namespace if service else "unknown"
    for key, value in cluster.metadata:
        own[key].string_value = value
    return metadata


def cluster(unit: Cluster) -> cluster_v3.Cluster:
    """One cluster."""
    limits = unit.connections
    made = cluster_v3.Cluster(
        name=unit.name,
        connect_timeout=duration(limits.connect_timeout),
        circuit_breakers=_thresholds(limits),
        metadata=_metadata(unit),
    )
    if unit.stat_name:
        made.alt_stat_name = unit.stat_name
    if unit.buffer_limit is not None:
        made.per_connection_buffer_limit_bytes.CopyFrom(uint32(unit.buffer_limit))
    _discover(made, unit)
    balance(made, unit.balancing)
    if unit.outlier is not None:
        made.outlier_detection.CopyFrom(_outlier(unit.outlier))
        if unit.outlier.min_health_percent:
            made.common_lb_config.healthy_panic_threshold.value = unit.outlier.min_health_percent
    if unit.protocol is not UpstreamProtocol.TCP:
        made.typed_extension_protocol_options[_HTTP_OPTIONS].CopyFrom(pack(_http_options(unit)))
    if limits.keepalive is not None:
        keepalive = made.upstream_connection_options.tcp_keepalive
        keepalive.SetInParent()
        for field, value in (
            (keepalive.keepalive_probes, limits.keepalive.probes),
            (keepalive.keepalive_time, _seconds(limits.keepalive.time)),
            (keepalive.keepalive_interval, _seconds(limits.keepalive.interval)),
        ):
            if value is not None:
                field.value = value
    if unit.source_address:
        made.upstream_bind_config.source_address.CopyFrom(
            core_v3.SocketAddress(address=unit.source_address, port_value=0)
        )
    _protect(made, unit)
    return made


def _seconds(value: timedelta | None) -> int | None:
    return None if value is None else min(round(value / timedelta(seconds=1)), _NO_LIMIT)
