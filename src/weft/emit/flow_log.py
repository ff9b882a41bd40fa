"""What a proxy that enforces policies tells of each request or connection: records for ``weft.telemetry``.

One record holds what a policy may ask about, what was decided, and how it went. Who reports comes from the
proxy's certificate and from the labels that Envoy itself puts on a batch, so that proxies share these bytes.
Queries never leave the proxy: no policy looks at them, and they hold secrets.

The same records once more, marked, are what somebody watches live (``weft tap``): none until the share of
them is raised in the proxy's runtime. They are apart so that no count is moved by somebody's looking.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import Final

from weft.card import REMEMBERED
from weft.emit.scalars import duration, fraction, uint32
from weft.ir.listener import Direction
from weft.ir.telemetry import Telemetry
from weft.names import DRY_RUN_ALLOW, DRY_RUN_DENY, TAP_MARK, TAP_SHARE
from weft.protos import accesslog_data_v3, accesslog_v3, core_v3, otel_log_v3, otlp_common_v1
from weft.protos.wire import pack

FLOW_LOG: Final = "weft.flows"

_TIMEOUT: Final = timedelta(seconds=2)
_FLUSH: Final = timedelta(seconds=1)
_BATCH_BYTES: Final = 32 * 1024
_EVERYTHING: Final = 1_000_000
# No text is longer, whatever a client sends.
_LONGEST: Final = 1024
_ERROR: Final = 400
_GRPC: Final = "application/grpc"


def _decisions(layer: str) -> dict[str, str]:
    """What RBAC decided, and what policies that are tried out would have.

    Of connections Envoy names no policy that lets them pass.
    """
    keys = {"policy": "enforced_effective_policy_id"}
    for name, prefix in (("allow", DRY_RUN_ALLOW), ("deny", DRY_RUN_DENY)):
        keys[f"dry_run_{name}"] = f"{prefix}shadow_engine_result"
        keys[f"dry_run_{name}_policy"] = f"{prefix}shadow_effective_policy_id"
    return {name: f"%DYNAMIC_METADATA(envoy.filters.{layer}.rbac:{key})%" for name, key in keys.items()}


_COMMON: Final = {
    "source": "%DOWNSTREAM_PEER_URI_SAN%",
    "revision": "%ENVIRONMENT(WEFT_CANONICAL_REVISION)%",
    "service": "%METADATA(CLUSTER:weft:service)%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%",
    "port": "%DOWNSTREAM_LOCAL_PORT%",
    "source_ip": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    "remote_ip": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "sni": "%REQUESTED_SERVER_NAME%",
    "tls": "%DOWNSTREAM_TLS_VERSION%",
    "flags": "%RESPONSE_FLAGS%",
    "duration": "%DURATION%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
}
_HTTP: Final = {
    "method": "%REQ(:METHOD):64%",
    "host": f"%REQ(:AUTHORITY):{_LONGEST}%",
    "code": "%RESPONSE_CODE%",
    "grpc": "%GRPC_STATUS_NUMBER%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "protocol": "%PROTOCOL%",
    "route": "%ROUTE_NAME%",
    "request_id": "%REQ(X-REQUEST-ID):64%",
    **_decisions("http"),
}
_TCP: Final = {
    "details": "%CONNECTION_TERMINATION_DETAILS%",
    **_decisions("network"),
}
# Who calls a workload stands in its certificate (``weft.card``); of who calls a gateway nothing does.
_CALLER: Final = {"caller": f"%FILTER_STATE({REMEMBERED}:PLAIN)%"}
# The path as policies saw it. Only a gateway changes paths, and there the original one is Envoy's own
# word: at the edge it takes away what a client says of it.
_PATHS: Final = {Direction.INBOUND: "PATH", Direction.GATEWAY: "ORIG_OR_PATH"}


def http_flows(telemetry: Telemetry, direction: Direction) -> list[accesslog_v3.AccessLog]:
    """One record at the end of a request: of errors and denials always, of others by share."""
    if telemetry.flows_cluster is None or direction not in _PATHS:
        return []
    cluster = telemetry.flows_cluster
    return [_http(cluster, telemetry.flow_share, direction), _http_tap(cluster, direction)]


def tcp_flows(telemetry: Telemetry, direction: Direction) -> list[accesslog_v3.AccessLog]:
    """The same at the end of a connection."""
    if telemetry.flows_cluster is None or direction not in _PATHS:
        return []
    cluster = telemetry.flows_cluster
    return [_tcp(cluster, telemetry.flow_share, direction), _tcp_tap(cluster, direction)]


@cache
def _http(cluster: str, share: int, direction: Direction) -> accesslog_v3.AccessLog:
    log = _log(cluster, share, _http_fields(direction))
    if share < _EVERYTHING:
        kept = log.filter.or_filter.filters
        failed = kept.add().status_code_filter.comparison
        failed.op = accesslog_v3.ComparisonFilter.Op.GE
        failed.value.default_value = _ERROR
        failed.value.runtime_key = "weft.flows.error"
        kept.add().response_flag_filter.SetInParent()
        refused = kept.add().and_filter.filters
        kind = refused.add().header_filter.header
        kind.name = "content-type"
        kind.string_match.prefix = _GRPC
        status = refused.add().grpc_status_filter
        status.statuses.append(accesslog_v3.GrpcStatusFilter.Status.OK)
        status.exclude = True
        _by_share(kept.add(), share)
    return log


@cache
def _http_tap(cluster: str, direction: Direction) -> accesslog_v3.AccessLog:
    log = _log(cluster, _EVERYTHING, {**_http_fields(direction), TAP_MARK: "1"})
    _by_share(log.filter, 0, TAP_SHARE)
    return log


@cache
def _tcp_tap(cluster: str, direction: Direction) -> accesslog_v3.AccessLog:
    log = _log(cluster, _EVERYTHING, {**_tcp_fields(direction), TAP_MARK: "1"})
    both = log.filter.and_filter.filters
    both.add().log_type_filter.types.append(accesslog_data_v3.AccessLogType.TcpConnectionEnd)
    _by_share(both.add(), 0, TAP_SHARE)
    return log


def _http_fields(direction: Direction) -> dict[str, str]:
    return {**_who(direction), **_HTTP, "path": f"%PATH(NQ:{_PATHS[direction]}):{_LONGEST}%"}


def _tcp_fields(direction: Direction) -> dict[str, str]:
    return {**_who(direction), **_TCP}


def _who(direction: Direction) -> dict[str, str]:
    return {**_COMMON, **_CALLER} if direction is Direction.INBOUND else _COMMON


@cache
def _tcp(cluster: str, share: int, direction: Direction) -> accesslog_v3.AccessLog:
    log = _log(cluster, share, _tcp_fields(direction))
    ended = accesslog_v3.LogTypeFilter(types=[accesslog_data_v3.AccessLogType.TcpConnectionEnd])
    if share >= _EVERYTHING:
        log.filter.log_type_filter.CopyFrom(ended)
        return log
    both = log.filter.and_filter.filters
    both.add().log_type_filter.CopyFrom(ended)
    kept = both.add().or_filter.filters
    kept.add().response_flag_filter.SetInParent()
    _by_share(kept.add(), share)
    return log


def _by_share(made: accesslog_v3.AccessLogFilter, share: int, key: str = "weft.flows.share") -> None:
    """Each by a throw of its own: request ids are the clients' to choose."""
    made.runtime_filter.runtime_key = key
    made.runtime_filter.percent_sampled.CopyFrom(fraction(share))
    made.runtime_filter.use_independent_randomness = True


def _log(cluster: str, share: int, fields: dict[str, str]) -> accesslog_v3.AccessLog:
    collector = core_v3.GrpcService(timeout=duration(_TIMEOUT))
    collector.envoy_grpc.cluster_name = cluster
    values = {"share": str(share), **fields}
    config = otel_log_v3.OpenTelemetryAccessLogConfig(
        grpc_service=collector,
        log_name=FLOW_LOG,
        buffer_flush_interval=duration(_FLUSH),
        buffer_size_bytes=uint32(_BATCH_BYTES),
        attributes=otlp_common_v1.KeyValueList(
            values=[
                otlp_common_v1.KeyValue(key=key, value=otlp_common_v1.AnyValue(string_value=value))
                for key, value in values.items()
            ]
        ),
    )
    return accesslog_v3.AccessLog(name="envoy.access_loggers.open_telemetry", typed_config=pack(config))
