"""Istio's standard metrics, made by Envoy's stats access logger.

A proxy knows itself from its environment (``bootstrap.environment``), so that all proxies share the bytes;
it knows whom it calls from the metadata of clusters and endpoints, and who calls from the certificate.
Source of names and labels: https://istio.io/latest/docs/reference/config/metrics/.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from weft.emit.scalars import uint32
from weft.protos import (
    accesslog_data_v3,
    accesslog_v3,
    stats_inputs_v3,
    stats_log_v3,
    transform_stat_v3,
    type_v3,
    xds_core_v3,
    xds_matcher_v3,
)
from weft.protos.wire import pack

_UNKNOWN: Final = "unknown"
_MISSING: Final = ("", "-")
# Series beyond these are counted in server_stats_overflow_counter, not made.
_COUNTERS: Final = 5_000
_HISTOGRAMS: Final = 2_000

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


def _become(value: str) -> xds_matcher_v3.Matcher.OnMatch:
    update = transform_stat_v3.TransformStat.UpdateTag(new_tag_value=value)
    action = pack(transform_stat_v3.TransformStat(update_tag=update))
    return xds_matcher_v3.Matcher.OnMatch(
        action=xds_core_v3.TypedExtensionConfig(name="update_tag", typed_config=action)
    )


def _tree() -> xds_matcher_v3.Matcher:
    made = xds_matcher_v3.Matcher()
    made.matcher_tree.input.name = "tag"
    made.matcher_tree.input.typed_config.CopyFrom(pack(stats_inputs_v3.StatTagValueInput()))
    return made


@cache
def _unless_missing(missing: str, otherwise: str = "") -> xds_matcher_v3.Matcher:
    """An absent value becomes ``missing``; any other stays, or becomes ``otherwise``."""
    made = _tree()
    for value in _MISSING:
        made.matcher_tree.exact_match_map.map[value].CopyFrom(_become(missing))
    if otherwise:
        made.on_no_match.CopyFrom(_become(otherwise))
    return made


@cache
def _grpc_or_http() -> xds_matcher_v3.Matcher:
    made = _tree()
    made.matcher_tree.prefix_match_map.map["application/grpc"].CopyFrom(_become("grpc"))
    made.on_no_match.CopyFrom(_become("http"))
    return made


def _tag(name: str, value: str, rules: xds_matcher_v3.Matcher | None = None) -> stats_log_v3.Config.Tag:
    return stats_log_v3.Config.Tag(name=name, value_format=value, rules=rules)


def _known(name: str, value: str) -> stats_log_v3.Config.Tag:
    """A tag that reads ``unknown`` where there is no value, as Istio's does."""
    return _tag(name, value, _unless_missing(_UNKNOWN) if value.startswith("%") else None)


def _tags(reporter: str) -> list[stats_log_v3.Config.Tag]:
    """What HTTP and TCP have in common."""
    calling = reporter == "source"
    source, destination = (_SELF, _PEER) if calling else (_NOBODY, _SELF)
    principals = (
        ("%UPSTREAM_LOCAL_URI_SAN%", "%UPSTREAM_PEER_URI_SAN%")
        if calling
        else ("%DOWNSTREAM_PEER_URI_SAN%", "%DOWNSTREAM_LOCAL_URI_SAN%")
    )
    # Istio's rule: the caller's proxy does not judge how safe the connection is.
    policy = (
        _tag("connection_security_policy", _UNKNOWN)
        if calling
        else _tag(
            "connection_security_policy",
            "%DOWNSTREAM_PEER_URI_SAN%",
            _unless_missing("none", otherwise="mutual_tls"),
        )
    )
    return [
        _tag("reporter", reporter),
        *(_known(f"source_{key}", value) for key, value in source.items()),
        _known("source_principal", principals[0]),
        *(_known(f"destination_{key}", value) for key, value in destination.items()),
        _known("destination_principal", principals[1]),
        *(_known(key, value) for key, value in _SERVICE.items()),
        policy,
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
def http_metrics(reporter: str) -> accesslog_v3.AccessLog:
    """Requests: how many, how long, how large. ``reporter`` is ``source`` or ``destination``."""
    histogram = stats_log_v3.Config.Histogram
    tags = [
        *_tags(reporter),
        _tag("request_protocol", "%REQ(CONTENT-TYPE)%", _grpc_or_http()),
        _tag("response_code", "%RESPONSE_CODE%"),
        _tag("grpc_response_status", "%GRPC_STATUS_NUMBER%"),
    ]
    return _log(
        stats_log_v3.Config(
            counters=[_count("istio_requests_total", tags)],
            histograms=[
                histogram(
                    stat=_stat("istio_request_duration_milliseconds", tags),
                    unit=histogram.Unit.Milliseconds,
                    value_format="%DURATION%",
                ),
                histogram(
                    stat=_stat("istio_request_bytes", tags),
                    unit=histogram.Unit.Bytes,
                    value_format="%BYTES_RECEIVED%",
                ),
                histogram(
                    stat=_stat("istio_response_bytes", tags),
                    unit=histogram.Unit.Bytes,
                    value_format="%BYTES_SENT%",
                ),
            ],
        )
    )


@cache
def tcp_metrics(reporter: str) -> tuple[accesslog_v3.AccessLog, ...]:
    """Connections: opened once the service was reached; closed and bytes at the end."""
    tags = [*_tags(reporter), _tag("request_protocol", "tcp")]
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
