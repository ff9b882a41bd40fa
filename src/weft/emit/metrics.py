"""Istio's standard metrics, made by Envoy's stats access logger.

A proxy knows itself from its environment (``bootstrap.environment``), so that all proxies share the bytes;
it knows whom it calls from the metadata of clusters and endpoints, and who calls from the certificate.
A value that a request does not have (no endpoint was reached, no certificate) is the empty string: whoever
reads the series writes Istio's ``unknown`` there. Rules that did so here took a tenth of the throughput.
Source of names and labels: https://istio.io/latest/docs/reference/config/metrics/.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from weft.emit.scalars import uint32
from weft.protos import (
    accesslog_data_v3,
    accesslog_v3,
    stats_log_v3,
    type_v3,
)
from weft.protos.wire import pack

_UNKNOWN: Final = "unknown"
# Series beyond these are counted in server_stats_overflow_counter, not made.
_COUNTERS: Final = 5_000
_HISTOGRAMS: Final = 2_000

_GRPC: Final = "application/grpc"

_SELF: Final = {
    "workload": "%ENVIRONMENT(WEFT_WORKLOAD)%",
    "workload_namespace": "%ENVIRONMENT(WEFT_NAMESPACE)%",
    "app": "%ENVIRONMENT(WEFT_APP)%",
    "version": "%ENVIRONMENT(WEFT_VERSION)%",
    "cluster": "%ENVIRONMENT(WEFT_CLUSTER)%",
    "canonical_service": "%ENVIRONMENT(WEFT_CANONICAL_SERVICE)%",
    "canonical_revision": "%ENVIRONMENT(WEFT_CANONICAL_REVISION)%",
}
_PEER: Final = {
    "workload": "%METADATA(UPSTREAM_HOST:weft:workload)%",
    "workload_namespace": "%METADATA(UPSTREAM_HOST:weft:namespace)%",
    "app": "%METADATA(UPSTREAM_HOST:weft:app)%",
    "version": "%METADATA(UPSTREAM_HOST:weft:version)%",
    "cluster": _UNKNOWN,
    "canonical_service": "%METADATA(UPSTREAM_HOST:weft:canonical_name)%",
    "canonical_revision": "%METADATA(UPSTREAM_HOST:weft:canonical_revision)%",
}
_NOBODY: Final = dict.fromkeys(_PEER, _UNKNOWN)
_SERVICE: Final = {
    "destination_service": "%METADATA(CLUSTER:weft:service)%",
    "destination_service_name": "%METADATA(CLUSTER:weft:service_name)%",
    "destination_service_namespace": "%METADATA(CLUSTER:weft:service_namespace)%",
}


def _tag(name: str, value: str) -> stats_log_v3.Config.Tag:
    return stats_log_v3.Config.Tag(name=name, value_format=value)


def _tags(reporter: str, policy: str) -> list[stats_log_v3.Config.Tag]:
    """What HTTP and TCP have in common."""
    calling = reporter == "source"
    source, destination = (_SELF, _PEER) if calling else (_NOBODY, _SELF)
    principals = (
        ("%UPSTREAM_LOCAL_URI_SAN%", "%UPSTREAM_PEER_URI_SAN%")
        if calling
        else ("%DOWNSTREAM_PEER_URI_SAN%", "%DOWNSTREAM_LOCAL_URI_SAN%")
    )
    return [
        _tag("reporter", reporter),
        *(_tag(f"source_{key}", value) for key, value in source.items()),
        _tag("source_principal", principals[0]),
        *(_tag(f"destination_{key}", value) for key, value in destination.items()),
        _tag("destination_principal", principals[1]),
        *(_tag(key, value) for key, value in _SERVICE.items()),
        # Istio's rule: the caller's proxy does not judge how safe the connection is.
        _tag("connection_security_policy", _UNKNOWN if calling else policy),
        _tag("response_flags", "%RESPONSE_FLAGS%"),
    ]


def _stat(name: str, tags: list[stats_log_v3.Config.Tag]) -> stats_log_v3.Config.Stat:
    return stats_log_v3.Config.Stat(name=name, tags=tags)


def _count(name: str, tags: list[stats_log_v3.Config.Tag], value: str = "") -> stats_log_v3.Config.Counter:
    counter = stats_log_v3.Config.Counter(stat=_stat(name, tags))
    if value:
        counter.value_format = value
    else:
        counter.value_fixed.value = 1
    return counter


def _log(
    config: stats_log_v3.Config, when: accesslog_data_v3.AccessLogType.ValueType | None = None
) -> accesslog_v3.AccessLog:
    config.stats_scope.CopyFrom(
        type_v3.Scope(
            max_counters=uint32(_COUNTERS), max_histograms=uint32(_HISTOGRAMS), enable_eviction=True
        )
    )
    log = accesslog_v3.AccessLog(name="envoy.access_loggers.stats", typed_config=pack(config))
    if when is not None:
        log.filter.log_type_filter.types.append(when)
    return log


@cache
def http_metrics(reporter: str, policy: str) -> tuple[accesslog_v3.AccessLog, ...]:
    """Requests: how many, how long, how large.

    ``reporter`` is ``source`` or ``destination``, ``policy`` what the connection is known to be:
    ``mutual_tls`` or ``none``. One log for gRPC and one for the rest: Envoy tells them apart once a
    request, where a rule in each tag would cost 2 us each.
    """
    return tuple(_requests(reporter, policy, protocol) for protocol in ("http", "grpc"))


def _requests(reporter: str, policy: str, protocol: str) -> accesslog_v3.AccessLog:
    histogram = stats_log_v3.Config.Histogram
    tags = [
        *_tags(reporter, policy),
        _tag("request_protocol", protocol),
        _tag("response_code", "%RESPONSE_CODE%"),
    ]
    if protocol == "grpc":  # elsewhere Istio's label is empty, which for Prometheus is none
        tags.append(_tag("grpc_response_status", "%GRPC_STATUS_NUMBER%"))
    log = _log(
        stats_log_v3.Config(
            counters=[_count("istio_requests_total", tags)],
            histograms=[
                histogram(stat=_stat(name, tags), unit=unit, value_format=value)
                for name, unit, value in (
                    ("istio_request_duration_milliseconds", histogram.Unit.Milliseconds, "%DURATION%"),
                    ("istio_request_bytes", histogram.Unit.Bytes, "%BYTES_RECEIVED%"),
                    ("istio_response_bytes", histogram.Unit.Bytes, "%BYTES_SENT%"),
                )
            ],
        )
    )
    header = log.filter.header_filter.header
    header.name = "content-type"
    header.string_match.prefix = _GRPC
    header.treat_missing_header_as_empty = True
    header.invert_match = protocol != "grpc"
    return log


@cache
def tcp_metrics(reporter: str, policy: str) -> tuple[accesslog_v3.AccessLog, ...]:
    """Connections: opened once the service was reached; closed and bytes at the end."""
    tags = [*_tags(reporter, policy), _tag("request_protocol", "tcp")]
    opened = stats_log_v3.Config(counters=[_count("istio_tcp_connections_opened_total", tags)])
    closed = stats_log_v3.Config(
        counters=[
            _count("istio_tcp_connections_closed_total", tags),
            _count("istio_tcp_sent_bytes_total", tags, "%BYTES_SENT%"),
            _count("istio_tcp_received_bytes_total", tags, "%BYTES_RECEIVED%"),
        ]
    )
    kind = accesslog_data_v3.AccessLogType
    return (_log(opened, kind.TcpUpstreamConnected), _log(closed, kind.TcpConnectionEnd))
