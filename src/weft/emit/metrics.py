"""Istio's standard metrics, made by Envoy's stats access logger.

A proxy knows itself from its environment (``bootstrap.environment``), so that all proxies share the bytes;
it knows whom it calls from the metadata of clusters and endpoints, and who calls from the certificate, taken
apart once a connection (``emit.caller``). A value that a request does not have (no endpoint was reached, no
certificate) is the empty string: whoever reads the series writes Istio's ``unknown`` there. Rules that did so
here took a tenth of the throughput.
Source of names and labels: https://istio.io/latest/docs/reference/config/metrics/.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from weft.card import caller
from weft.emit.scalars import uint32
from weft.ir.telemetry import Metrics
from weft.names import GRPC_MESSAGES
from weft.protos import (
    accesslog_data_v3,
    accesslog_v3,
    stats_log_v3,
    type_v3,
)
from weft.protos.wire import pack

_UNKNOWN: Final = "unknown"
MUTUAL: Final = "mutual_tls"
# Series beyond these are counted in server_stats_overflow_counter, not made.
_COUNTERS: Final = 5_000
_HISTOGRAMS: Final = 2_000

_GRPC: Final = "application/grpc"
# Sizes are those on the wire, with headers, as Istio's: a GET has some, too.
_HISTOGRAMS_OF: Final = (
    ("istio_request_duration_milliseconds", "Milliseconds", "%DURATION%"),
    ("istio_request_bytes", "Bytes", "%DOWNSTREAM_WIRE_BYTES_RECEIVED%"),
    ("istio_response_bytes", "Bytes", "%DOWNSTREAM_WIRE_BYTES_SENT%"),
)

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
    "cluster": "%METADATA(UPSTREAM_HOST:weft:cluster)%",
    "canonical_service": "%METADATA(UPSTREAM_HOST:weft:canonical_name)%",
    "canonical_revision": "%METADATA(UPSTREAM_HOST:weft:canonical_revision)%",
}
_CALLER: Final = {field: caller(field) for field in _PEER}
_NOBODY: Final = dict.fromkeys(_PEER, _UNKNOWN)
_SERVICE: Final = {
    "destination_service": "%METADATA(CLUSTER:weft:service)%",
    "destination_service_name": "%METADATA(CLUSTER:weft:service_name)%",
    "destination_service_namespace": "%METADATA(CLUSTER:weft:service_namespace)%",
}


_UNCHANGED: Final = Metrics()


def _tag(name: str, value: str) -> stats_log_v3.Config.Tag:
    return stats_log_v3.Config.Tag(name=name, value_format=value)


def _tags(reporter: str, policy: str) -> list[stats_log_v3.Config.Tag]:
    """What HTTP and TCP have in common."""
    calling = reporter == "source"
    known = _CALLER if policy == MUTUAL else _NOBODY
    source, destination = (_SELF, _PEER) if calling else (known, _SELF)
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


def _changed(
    name: str, tags: list[stats_log_v3.Config.Tag], metrics: Metrics
) -> list[stats_log_v3.Config.Tag] | None:
    """The tags of a metric; None when it shall not be made."""
    for change in metrics.changes:
        if change.metric != name:
            continue
        if change.disabled:
            return None
        said = dict(change.tags)
        known = {tag.name for tag in tags}
        kept = [
            tag if tag.name not in said else _tag(tag.name, value)
            for tag in tags
            if (value := said.get(tag.name, "")) is not None
        ]
        added = [_tag(key, value) for key, value in change.tags if key not in known and value is not None]
        return [*kept, *added]
    return tags


def _counts(
    tags: list[stats_log_v3.Config.Tag], metrics: Metrics, *wanted: tuple[str, str]
) -> list[stats_log_v3.Config.Counter]:
    """Counters by name and what is added each time; one if that is empty."""
    made = []
    for name, value in wanted:
        if (own := _changed(name, tags, metrics)) is None:
            continue
        counter = stats_log_v3.Config.Counter(stat=stats_log_v3.Config.Stat(name=name, tags=own))
        if value:
            counter.value_format = value
        else:
            counter.value_fixed.value = 1
        made.append(counter)
    return made


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
def http_metrics(
    reporter: str, policy: str, metrics: Metrics = _UNCHANGED, *, grpc: bool = False
) -> tuple[accesslog_v3.AccessLog, ...]:
    """Requests: how many, how long, how large.

    ``reporter`` is ``source`` or ``destination``, ``policy`` what the connection is known to be:
    ``mutual_tls`` or ``none``. One log for gRPC and one for the rest: Envoy tells them apart once a
    request, where a rule in each tag would cost 2 us each. ``grpc``: messages are counted
    (``filters.grpc_messages``), and a log of their own tells of them.
    """
    made = [_requests(reporter, policy, protocol, metrics) for protocol in ("http", "grpc")]
    if grpc:
        made.append(_messages(reporter, policy, metrics))
    return tuple(log for log in made if log is not None)


def _request_tags(reporter: str, policy: str, protocol: str) -> list[stats_log_v3.Config.Tag]:
    tags = [
        *_tags(reporter, policy),
        _tag("request_protocol", protocol),
        _tag("response_code", "%RESPONSE_CODE%"),
    ]
    if protocol == "grpc":  # elsewhere Istio's label is empty, which for Prometheus is none
        tags.append(_tag("grpc_response_status", "%GRPC_STATUS_NUMBER%"))
    return tags


def _messages(reporter: str, policy: str, metrics: Metrics) -> accesslog_v3.AccessLog | None:
    """Messages of gRPC, of what had any: Envoy complains aloud of a number that is not there."""
    wanted = (
        (f"istio_{way}_messages_total", f"%DYNAMIC_METADATA({GRPC_MESSAGES}:messages:{way})%")
        for way in ("request", "response")
    )
    counters = _counts(_request_tags(reporter, policy, "grpc"), metrics, *wanted)
    if not counters:
        return None
    log = _log(stats_log_v3.Config(counters=counters))
    test = log.filter.metadata_filter
    test.matcher.filter = GRPC_MESSAGES
    test.matcher.path.add(key="messages")
    test.matcher.value.present_match = True
    test.match_if_key_not_found.value = False
    return log


def _requests(reporter: str, policy: str, protocol: str, metrics: Metrics) -> accesslog_v3.AccessLog | None:
    histogram = stats_log_v3.Config.Histogram
    tags = _request_tags(reporter, policy, protocol)
    config = stats_log_v3.Config(
        counters=_counts(tags, metrics, ("istio_requests_total", "")),
        histograms=[
            histogram(
                stat=stats_log_v3.Config.Stat(name=name, tags=own),
                unit=histogram.Unit.Value(unit),
                value_format=value,
            )
            for name, unit, value in _HISTOGRAMS_OF
            if (own := _changed(name, tags, metrics)) is not None
        ],
    )
    if not config.counters and not config.histograms:
        return None
    log = _log(config)
    header = log.filter.header_filter.header
    header.name = "content-type"
    header.string_match.prefix = _GRPC
    header.treat_missing_header_as_empty = True
    header.invert_match = protocol != "grpc"
    return log


@cache
def tcp_metrics(
    reporter: str, policy: str, metrics: Metrics = _UNCHANGED
) -> tuple[accesslog_v3.AccessLog, ...]:
    """Connections: opened once the service was reached; closed and bytes at the end."""
    tags = [*_tags(reporter, policy), _tag("request_protocol", "tcp")]
    kind = accesslog_data_v3.AccessLogType
    opened = _counts(tags, metrics, ("istio_tcp_connections_opened_total", ""))
    closed = _counts(
        tags,
        metrics,
        ("istio_tcp_connections_closed_total", ""),
        ("istio_tcp_sent_bytes_total", "%BYTES_SENT%"),
        ("istio_tcp_received_bytes_total", "%BYTES_RECEIVED%"),
    )
    return tuple(
        _log(stats_log_v3.Config(counters=counters), when)
        for counters, when in ((opened, kind.TcpUpstreamConnected), (closed, kind.TcpConnectionEnd))
        if counters
    )
