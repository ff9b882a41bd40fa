"""Metrics as proxies push them: Istio's series, as growth since the last time.

Of a series the half that is about the proxy itself is taken from its certificate: namespace and principal.
Which workload of that namespace it is, is its word, as is all that it says about the other end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from weft.protos import otlp_metrics_service_v1, otlp_metrics_v1
from weft.spiffe import SpiffeId
from weft.telemetry.histogram import rebucket
from weft.telemetry.otlp import harmless, read
from weft.telemetry.rows import CLOSED, OPENED, RECEIVED, REQUESTS, SENT, Row, durations, is_full, one
from weft.telemetry.series import OTHER, SeriesKey
from weft.telemetry.signals import UNSENT, went_nowhere

if TYPE_CHECKING:
    from weft.protos import otlp_common_v1

UPTIME: Final = "server.uptime"
"""A gauge that each message has, so that none is missed unnoticed; seconds."""
_BEATS: Final = frozenset(
    {"cluster.upstream_rq_total", "cluster.upstream_rq_pending_total", "cluster.upstream_cx_total"}
)
"""Of a proxy's way to us: one of them grows with each message that it sends, or tries to. A gauge does not
say since when it tells, so a message without them would hide those before it that were lost.
"""
_DURATION: Final = "istio_request_duration_milliseconds"
_COLUMNS: Final = {
    "istio_requests_total": REQUESTS,
    "istio_tcp_connections_opened_total": OPENED,
    "istio_tcp_connections_closed_total": CLOSED,
    "istio_tcp_sent_bytes_total": SENT,
    "istio_tcp_received_bytes_total": RECEIVED,
}
_LONGEST: Final = 253
MOST: Final = 1 << 40
"""More than any proxy counts in some seconds: what is beyond is a lie, and would spoil the sums."""
_SIDES: Final = {"destination": ("destination", "source"), "source": ("source", "destination")}
# The first message of a proxy bears no time when it began, but one of its monotonic clock.
_LONG_AGO_MS: Final = 1_000_000_000_000
_NS_A_MS: Final = 1_000_000

# What a point has beside its labels.
_VALUES: Final = {
    otlp_metrics_v1.NumberDataPoint: ("start_time_unix_nano", "time_unix_nano", "as_int", "as_double"),
    otlp_metrics_v1.HistogramDataPoint: (
        "start_time_unix_nano", "time_unix_nano", "count", "sum", "bucket_counts", "explicit_bounds",
    ),
}  # fmt: skip
_DIGEST_BYTES: Final = 16
_MOST_KEYS: Final = 32_768
_KEYS: Final[dict[tuple[bytes, SpiffeId, str], SeriesKey]] = {}

Labels = tuple[tuple[str, str], ...]
Besides = Callable[[Mapping[str, str], "Iterable[otlp_metrics_v1.Metric]"], None]
"""Takes what a proxy says of itself, and all its metrics."""


@dataclass(slots=True)
class Told:
    """One message. ``since_ms`` to ``time_ms`` is what it covers by the proxy's clock; 0 if unknown.

    ``workload``, ``instance`` and ``kind`` (``workload``, ``gateway``) are the proxy's word; ``uptime_s``: of
    its process, None in a message without. ``rows``: what grew, by series. ``unusable``: points left out.
    """

    identity: SpiffeId
    kind: str = "workload"
    workload: str = ""
    instance: str = ""
    since_ms: int = 0
    time_ms: int = 0
    uptime_s: int | None = None
    points: int = 0
    unusable: int = 0
    rows: dict[SeriesKey, Row] = field(default_factory=dict)


@lru_cache(maxsize=65_536)
def _word(text: str) -> str:
    """A label's value: empty for nothing and for what nobody knows."""
    made = harmless(text[:_LONGEST])
    # No name of a workload's may look like the one for all others.
    return "" if made in {"unknown", "-", OTHER} else made


def labels_of(attributes: Iterable[otlp_common_v1.KeyValue]) -> Labels:
    """As they were said: whoever shows them makes them harmless."""
    return tuple((each.key, each.value.string_value) for each in attributes)


def series_key(labels: Labels, identity: SpiffeId, kind: str) -> SeriesKey:
    """The series that such labels belong to, told by the bearer of ``identity``."""
    said = {key: _word(value) for key, value in labels}
    get: Callable[[str, str], str] = said.get
    side, peer = _SIDES["destination" if get("reporter", "") == "destination" else "source"]
    policy = get("connection_security_policy", "")
    # The caller's proxy does not judge connections; it knows whom it met.
    mutual = policy == "mutual_tls" if side == "destination" else bool(get("destination_principal", ""))
    flags = get("response_flags", "")
    unsent = side == "source" and not mutual and went_nowhere(flags)
    return SeriesKey(
        side=side,
        kind=kind,
        namespace=identity.namespace,
        workload=get(f"{side}_workload", ""),
        app=get(f"{side}_canonical_service", "") or get(f"{side}_app", ""),
        version=get(f"{side}_version", ""),
        principal=str(identity),
        peer_namespace=get(f"{peer}_workload_namespace", ""),
        peer_workload=get(f"{peer}_workload", ""),
        peer_app=get(f"{peer}_canonical_service", "") or get(f"{peer}_app", ""),
        peer_version=get(f"{peer}_version", ""),
        peer_principal=get(f"{peer}_principal", ""),
        service=get("destination_service", ""),
        service_name=get("destination_service_name", ""),
        service_namespace=get("destination_service_namespace", ""),
        protocol=get("request_protocol", "") or "http",
        secured="mtls" if mutual else UNSENT if unsent else "none",
        code=get("response_code", ""),
        grpc=get("grpc_response_status", ""),
        flags=flags,
    )


def read_metrics(message: bytes, identity: SpiffeId, besides: Besides | None = None) -> Told:
    """What an ``ExportMetricsServiceRequest`` tells. ``besides``: who else looks at it.

    Raises:
        google.protobuf.message.DecodeError: the bytes are no such message.
    """
    request = read(otlp_metrics_service_v1.ExportMetricsServiceRequest, message)
    told = Told(identity)
    for resource in request.resource_metrics:
        said = dict(labels_of(resource.resource.attributes))
        told.instance = _word(said.get("service.instance.id", "")) or told.instance
        told.workload = _word(said.get("weft.workload", "")) or told.workload
        told.kind = "gateway" if said.get("weft.kind") == "router" else "workload"
        for scope in resource.scope_metrics:
            if besides is not None:
                besides(said, scope.metrics)
            for metric in scope.metrics:
                _take(told, metric)  # which leaves nothing of them but their labels
    return told


def _take(told: Told, metric: otlp_metrics_v1.Metric) -> None:
    name = metric.name
    delta = otlp_metrics_v1.AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
    if name == UPTIME:
        for point in metric.gauge.data_points:
            told.uptime_s = max(0, int(point.as_int))
            _span(told, point.start_time_unix_nano, point.time_unix_nano)
    elif (column := _COLUMNS.get(name)) is not None and metric.sum.aggregation_temporality == delta:
        for point in metric.sum.data_points:
            told.points += 1
            _span(told, point.start_time_unix_nano, point.time_unix_nano)
            if 0 <= point.as_int <= MOST:
                _count(told, point, one(column, point.as_int))
            else:
                told.unusable += 1
    elif name == _DURATION and metric.histogram.aggregation_temporality == delta:
        for each in metric.histogram.data_points:
            told.points += 1
            _span(told, each.start_time_unix_nano, each.time_unix_nano)
            if not _durations(told, each):
                told.unusable += 1
    elif name in _BEATS:
        for point in metric.sum.data_points:
            _span(told, point.start_time_unix_nano, point.time_unix_nano)
    elif name in _COLUMNS or name == _DURATION:
        told.unusable += 1


def _durations(told: Told, point: otlp_metrics_v1.HistogramDataPoint) -> bool:
    """Add a histogram; False for one that is none."""
    microseconds = point.sum * 1_000
    # NaN is in no range.
    if not 0 <= microseconds <= MOST * 1_000 or any(count > MOST for count in point.bucket_counts):
        return False
    try:
        counts: Sequence[int] = rebucket(point.explicit_bounds, point.bucket_counts)
    except ValueError:
        return False
    _count(told, point, durations(round(microseconds), counts))
    return True


def _count(told: Told, point: Any, row: Row) -> None:
    key = _key(told, point)
    grown = told.rows.get(key, 0) + row
    if is_full(grown):
        told.unusable += 1
    else:
        told.rows[key] = grown


def _key(told: Told, point: Any) -> SeriesKey:
    """The series of a point, whose values go: to look at each of its labels costs five times as much as to
    recognise them all by a digest.
    """
    for name in _VALUES[type(point)]:
        point.ClearField(name)
    mark = blake2b(point.SerializeToString(), digest_size=_DIGEST_BYTES).digest(), told.identity, told.kind
    known = _KEYS.get(mark)
    if known is None:
        if len(_KEYS) >= _MOST_KEYS:
            _KEYS.clear()
        known = _KEYS[mark] = series_key(labels_of(point.attributes), told.identity, told.kind)
    return known


def _span(told: Told, began: int, ended: int) -> None:
    since_ms, time_ms = began // _NS_A_MS, ended // _NS_A_MS
    told.time_ms = max(told.time_ms, time_ms)
    if since_ms > _LONG_AGO_MS:
        told.since_ms = max(told.since_ms, since_ms)
