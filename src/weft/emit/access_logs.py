"""Access logs: lines in a file, OTLP records, Envoy's access log service; and which requests they tell of."""

from __future__ import annotations

import json
import re
from typing import Final

from weft.card import caller
from weft.ir.listener import Direction
from weft.ir.telemetry import AccessLog, FileLog, GrpcLog, OtlpLog
from weft.names import CONSULTATION, DRY_RUN_ALLOW, DRY_RUN_DENY
from weft.protos import (
    accesslog_v3,
    cel_filter_v3,
    core_v3,
    file_log_v3,
    formatter_req_without_query_v3,
    grpc_log_v3,
    otel_log_v3,
    otlp_common_v1,
    well_known,
)
from weft.protos.wire import from_dict, pack

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
# A status that there is not is 0 for Envoy's filter and false for an expression: alike for these.
_STATUS: Final = re.compile(r"\s*response\.code\s*(>=|>|==)\s*([1-9]\d{0,3})\s*")
_COMPARED: Final = {
    "==": accesslog_v3.ComparisonFilter.Op.EQ,
    ">=": accesslog_v3.ComparisonFilter.Op.GE,
}
REPORTER: Final = {
    Direction.INBOUND: "destination",
    Direction.OUTBOUND: "source",
    Direction.GATEWAY: "source",
}
"""Istio's word for which side tells of a request."""


def access_log(unit: AccessLog, direction: Direction, decider: str = "") -> accesslog_v3.AccessLog:
    """One log. ``decider``: the filter that leaves behind what policies came to; empty where none does."""
    match unit.to:
        case FileLog() as file:
            made = _file(file, direction, decider)
        case OtlpLog() as records:
            made = _otlp(records)
        case GrpcLog() as entries:
            made = _grpc(entries)
    if unit.only:
        made.filter.CopyFrom(_only(unit.only))
    return made


def _only(expression: str) -> accesslog_v3.AccessLogFilter:
    """Lets pass what a CEL expression is true of."""
    made = accesslog_v3.AccessLogFilter()
    if (status := _STATUS.fullmatch(expression)) is not None:
        # Envoy's own filter says the same and costs nothing, where an expression costs each request 13 us.
        comparison = made.status_code_filter.comparison
        comparison.op = _COMPARED["==" if status[1] == "==" else ">="]
        comparison.value.default_value = int(status[2]) + (status[1] == ">")
        comparison.value.runtime_key = "weft.log.status"
        return made
    config = cel_filter_v3.ExpressionFilter(expression=expression)
    # Without these, text cannot be joined, searched or made of numbers: as Istio's Envoy can.
    config.cel_config.enable_string_conversion = True
    config.cel_config.enable_string_concat = True
    config.cel_config.enable_string_functions = True
    made.extension_filter.name = "envoy.access_loggers.extension_filters.cel"
    made.extension_filter.typed_config.CopyFrom(pack(config))
    return made


def narrowed(log: accesslog_v3.AccessLog, further: accesslog_v3.AccessLogFilter) -> accesslog_v3.AccessLog:
    """The log, of what also passes another filter."""
    if not log.HasField("filter"):
        log.filter.CopyFrom(further)
        return log
    both = accesslog_v3.AccessLogFilter(and_filter=accesslog_v3.AndFilter(filters=[further, log.filter]))
    log.filter.CopyFrom(both)
    return log


def _file(unit: FileLog, direction: Direction, decider: str) -> accesslog_v3.AccessLog:
    line = core_v3.SubstitutionFormatString(omit_empty_values=unit.omit_empty)
    if unit.text:
        line.text_format_source.inline_string = unit.text
    elif unit.fields:
        fields = from_dict(json.loads(unit.fields), "google.protobuf.Struct")
        assert isinstance(fields, well_known.Struct)
        line.json_format.CopyFrom(fields)
    else:
        line.json_format.CopyFrom(_own_fields(direction, decider))
    line.formatters.extend(_formatters(unit.text or unit.fields))
    config = file_log_v3.FileAccessLog(path=unit.path, log_format=line)
    return accesslog_v3.AccessLog(name="envoy.access_loggers.file", typed_config=pack(config))


def _own_fields(direction: Direction, decider: str) -> well_known.Struct:
    line = well_known.Struct()
    line.fields["reporter"].string_value = REPORTER[direction]
    for key, value in _FIELDS.items():
        line.fields[key].string_value = value
    if direction is Direction.INBOUND:
        # Nothing is rewritten on the way in: an original path would be what the caller says it was.
        line.fields["path"].string_value = "%REQ(:PATH)%"
        line.fields["downstream_peer_workload"].string_value = caller("workload")
    for key, value in _DECISIONS.items() if decider else ():
        line.fields[key].string_value = f"%DYNAMIC_METADATA({decider}:{value})%"
    return line


def _formatters(text: str) -> list[core_v3.TypedExtensionConfig]:
    """The only command that is not built into Envoy."""
    if "%REQ_WITHOUT_QUERY" not in text:
        return []
    config = formatter_req_without_query_v3.ReqWithoutQuery()
    return [core_v3.TypedExtensionConfig(name="envoy.formatter.req_without_query", typed_config=pack(config))]


def _collector(cluster: str, authority: str) -> core_v3.GrpcService:
    service = core_v3.GrpcService()
    service.envoy_grpc.cluster_name = cluster
    service.envoy_grpc.authority = authority
    return service


def _otlp(unit: OtlpLog) -> accesslog_v3.AccessLog:
    labels = [
        otlp_common_v1.KeyValue(key=key, value=otlp_common_v1.AnyValue(string_value=value))
        for key, value in unit.labels
    ]
    config = otel_log_v3.OpenTelemetryAccessLogConfig(
        grpc_service=_collector(unit.cluster, unit.authority),
        log_name=unit.name,
        disable_builtin_labels=True,
        body=otlp_common_v1.AnyValue(string_value=unit.text),
        attributes=otlp_common_v1.KeyValueList(values=labels) if labels else None,
        formatters=_formatters(unit.text + "".join(value for _, value in unit.labels)),
    )
    return accesslog_v3.AccessLog(name="envoy.access_loggers.open_telemetry", typed_config=pack(config))


def _grpc(unit: GrpcLog) -> accesslog_v3.AccessLog:
    common = grpc_log_v3.CommonGrpcAccessLogConfig(
        log_name=unit.name,
        grpc_service=_collector(unit.cluster, unit.authority),
        transport_api_version=core_v3.ApiVersion.V3,
        filter_state_objects_to_log=unit.filter_state,
    )
    if unit.streams:
        streams = grpc_log_v3.TcpGrpcAccessLogConfig(common_config=common)
        return accesslog_v3.AccessLog(name="envoy.access_loggers.tcp_grpc", typed_config=pack(streams))
    requests = grpc_log_v3.HttpGrpcAccessLogConfig(
        common_config=common,
        additional_request_headers_to_log=unit.request_headers,
        additional_response_headers_to_log=unit.response_headers,
        additional_response_trailers_to_log=unit.response_trailers,
    )
    return accesslog_v3.AccessLog(name="envoy.access_loggers.http_grpc", typed_config=pack(requests))
