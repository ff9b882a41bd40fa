"""What a proxy tells about the traffic it handles: access log, metrics, traces."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from weft.emit.flow_log import http_flows, tcp_flows
from weft.emit.metrics import http_metrics, tcp_metrics
from weft.emit.scalars import boolean, duration, fraction
from weft.ir.listener import Direction
from weft.ir.proxy import Telemetry
from weft.names import CONSULTATION, DRY_RUN_ALLOW, DRY_RUN_DENY
from weft.protos import (
    accesslog_data_v3,
    accesslog_v3,
    core_v3,
    file_log_v3,
    hcm_v3,
    otel_samplers_v3,
    resource_detectors_v3,
    trace_v3,
    type_v3,
    uuid_v3,
    well_known,
)
from weft.protos.wire import pack

_EVERY_TRACE: Final = 100.0
_EXPORT_TIMEOUT: Final = timedelta(seconds=1)

# Istio's default JSON fields, then ours: who was at the other end, and what ties logs to traces.
_FIELDS: Final = {
    "start_time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
    "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
    "user_agent": "%REQ(USER-AGENT)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "authority": "%REQ(:AUTHORITY)%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
    "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
    "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "requested_server_name": "%REQUESTED_SERVER_NAME%",
    "route_name": "%ROUTE_NAME%",
    "downstream_peer_principal": "%DOWNSTREAM_PEER_URI_SAN%",
    "downstream_local_principal": "%DOWNSTREAM_LOCAL_URI_SAN%",
    "downstream_tls_version": "%DOWNSTREAM_TLS_VERSION%",
    "downstream_tls_group": "%DOWNSTREAM_TLS_GROUP%",
    "upstream_peer_principal": "%UPSTREAM_PEER_URI_SAN%",
    "upstream_local_principal": "%UPSTREAM_LOCAL_URI_SAN%",
    "upstream_tls_version": "%UPSTREAM_TLS_VERSION%",
    "upstream_tls_group": "%UPSTREAM_TLS_GROUP%",
    "upstream_request_attempt_count": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "traceparent": "%REQ(TRACEPARENT)%",
}
# Which policy let it pass or refused it; of those that are tried out, what they would have done.
_DECISIONS: Final = {
    "authz_result": "enforced_engine_result",
    "authz_policy": "enforced_effective_policy_id",
    "consulted_policy": f"{CONSULTATION}shadow_effective_policy_id",
    "dry_run_allow_result": f"{DRY_RUN_ALLOW}shadow_engine_result",
    "dry_run_allow_policy": f"{DRY_RUN_ALLOW}shadow_effective_policy_id",
    "dry_run_deny_result": f"{DRY_RUN_DENY}shadow_engine_result",
    "dry_run_deny_policy": f"{DRY_RUN_DENY}shadow_effective_policy_id",
}
_REPORTER: Final = {
    Direction.INBOUND: "destination",
    Direction.OUTBOUND: "source",
    Direction.GATEWAY: "source",
}


def _file_log(path: str, direction: Direction, decider: str = "") -> accesslog_v3.AccessLog:
    """``decider``: the filter that leaves behind what policies came to; empty where there are none."""
    line = well_known.Struct()
    line.fields["reporter"].string_value = _REPORTER[direction]
    for key, value in _FIELDS.items():
        line.fields[key].string_value = value
    if direction is Direction.INBOUND:
        # Nothing is rewritten on the way in: an original path would be what the caller says it was.
        line.fields["path"].string_value = "%REQ(:PATH)%"
    for key, value in _DECISIONS.items() if decider else ():
        line.fields[key].string_value = f"%DYNAMIC_METADATA({decider}:{value})%"
    config = file_log_v3.FileAccessLog(
        path=path, log_format=core_v3.SubstitutionFormatString(json_format=line)
    )
    return accesslog_v3.AccessLog(name="envoy.access_loggers.file", typed_config=pack(config))


def _policy(mutual: bool) -> str:
    return "mutual_tls" if mutual else "none"


def http_logs(
    telemetry: Telemetry, direction: Direction, *, mutual: bool = False, decider: str = ""
) -> list[accesslog_v3.AccessLog]:
    """What is written at the end of each request. ``mutual``: the caller showed a certificate."""
    logs = [_file_log(telemetry.access_log, direction, decider)] if telemetry.access_log else []
    if telemetry.metrics:
        logs.extend(http_metrics(_REPORTER[direction], _policy(mutual)))
    return [*logs, *http_flows(telemetry, direction)]


def tcp_logs(
    telemetry: Telemetry, direction: Direction, *, mutual: bool = False, decider: str = ""
) -> list[accesslog_v3.AccessLog]:
    """What is written about a connection: a line at its end, metrics also once it is connected."""
    logs = []
    if telemetry.access_log:
        log = _file_log(telemetry.access_log, direction, decider)
        log.filter.log_type_filter.types.append(accesslog_data_v3.AccessLogType.TcpConnectionEnd)
        logs.append(log)
    if telemetry.metrics:
        logs.extend(tcp_metrics(_REPORTER[direction], _policy(mutual)))
    return [*logs, *tcp_flows(telemetry, direction)]


def refused_log(telemetry: Telemetry, direction: Direction) -> list[accesslog_v3.AccessLog]:
    """Connections that no filter chain takes (flag NR) are seen by the listener alone."""
    if not telemetry.access_log:
        return []
    log = _file_log(telemetry.access_log, direction)
    log.filter.response_flag_filter.flags.append("NR")
    return [log]


def tracing(telemetry: Telemetry) -> hcm_v3.HttpConnectionManager.Tracing | None:
    """OpenTelemetry. A parent's decision holds; ``sampling`` decides where there is none.

    Everything passes Envoy's own sampling, since it would drop or forge parents. Who the proxy is comes
    from its environment (``OTEL_RESOURCE_ATTRIBUTES``), so that proxies share the bytes.
    """
    if telemetry.tracing_cluster is None:
        return None
    ratio = otel_samplers_v3.TraceIdRatioBasedSamplerConfig(sampling_percentage=fraction(telemetry.sampling))
    sampler = otel_samplers_v3.ParentBasedSamplerConfig(
        wrapped_sampler=core_v3.TypedExtensionConfig(
            name="envoy.tracers.opentelemetry.samplers.trace_id_ratio_based", typed_config=pack(ratio)
        )
    )
    collector = core_v3.GrpcService(timeout=duration(_EXPORT_TIMEOUT))
    collector.envoy_grpc.cluster_name = telemetry.tracing_cluster
    config = trace_v3.OpenTelemetryConfig(
        grpc_service=collector,
        sampler=core_v3.TypedExtensionConfig(
            name="envoy.tracers.opentelemetry.samplers.parent_based", typed_config=pack(sampler)
        ),
        resource_detectors=[
            core_v3.TypedExtensionConfig(
                name="envoy.tracers.opentelemetry.resource_detectors.environment",
                typed_config=pack(resource_detectors_v3.EnvironmentResourceDetectorConfig()),
            )
        ],
    )
    everything = type_v3.Percent(value=_EVERY_TRACE)
    return hcm_v3.HttpConnectionManager.Tracing(
        random_sampling=everything,
        overall_sampling=everything,
        spawn_upstream_span=boolean(False),
        provider=trace_v3.Tracing.Http(name="envoy.tracers.opentelemetry", typed_config=pack(config)),
    )


def request_ids(telemetry: Telemetry) -> hcm_v3.RequestIDExtension | None:
    """Request ids as they came, whatever their form.

    Envoy's default writes its own sampling decision into them, and traces no request whose id is no UUID.
    """
    if telemetry.tracing_cluster is None:
        return None
    apart = uuid_v3.UuidRequestIdConfig(
        pack_trace_reason=boolean(False), use_request_id_for_trace_sampling=boolean(False)
    )
    return hcm_v3.RequestIDExtension(typed_config=pack(apart))
