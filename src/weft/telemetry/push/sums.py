"""What proxies counted since each was first heard of: their growth added up, kept for as long as they tell.

A series is what it is in OTLP: a proxy, and the labels that Istio's metrics share. Of a series the half that
is about the proxy itself is taken from its certificate. Where a sum begins is told with it, so that whoever
reads it knows a sum that began anew from one that went on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import add
from typing import TYPE_CHECKING, Final

from weft.spiffe import SpiffeId
from weft.telemetry.limits import Limits, Losses
from weft.telemetry.metrics import MOST, Labels, labels_of
from weft.telemetry.otlp import harmless
from weft.telemetry.push import encode
from weft.telemetry.push.plan import Choice, Plan

if TYPE_CHECKING:
    from weft.protos import otlp_metrics_v1 as metrics_v1

SCOPE: Final = "weft"
_COUNTERS: Final = frozenset(
    {
        "istio_requests_total",
        "istio_request_messages_total",
        "istio_response_messages_total",
        "istio_tcp_connections_opened_total",
        "istio_tcp_connections_closed_total",
        "istio_tcp_sent_bytes_total",
        "istio_tcp_received_bytes_total",
    }
)
_HISTOGRAMS: Final = {
    "istio_request_duration_milliseconds": "ms",
    "istio_request_bytes": "By",
    "istio_response_bytes": "By",
}
_UNKNOWN: Final = "unknown"  # Istio's word
_OVERFLOW: Final = "otel.metric.overflow"
"""OpenTelemetry's word for the series that takes in what there was no room for (its SDK's specification)."""
_LONGEST: Final = 253
_MOST_ATTRIBUTES: Final = 64
_MOST_BOUNDS: Final = 64
_MOST_GAUGES: Final = 32
_POINTS: Final = 1_000
# As long as Envoy keeps an idle series, and Prometheus the last value of one that is gone.
_IDLE_NS: Final = 600_000_000_000
_SILENT_NS: Final = 300_000_000_000
_LONG_AGO_NS: Final = 1_000_000_000_000_000_000
_DELTA: Final = 1

Metrics = Iterable["metrics_v1.Metric"]


@dataclass(slots=True)
class Spread:
    """A histogram since ``began`` (ns): its sum, and counts by ``bounds``."""

    began: int
    known: tuple[float, ...]
    bounds: bytes
    counts: list[int]
    total: float = 0.0


@dataclass(slots=True)
class Group:
    """All metrics with the same labels. ``sums``: where one began (ns), and it; ``last``: grew then (ns)."""

    side: str
    attributes: bytes
    last: int
    tall: bytes = b""
    sums: dict[str, list[int]] = field(default_factory=dict)
    spreads: dict[str, Spread] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sums) + len(self.spreads)


@dataclass(slots=True)
class Proxy:
    """One that tells. ``heard``: when last (ns); ``gauges``: of itself, as it named them."""

    identity: SpiffeId
    name: str
    resource: tuple[tuple[str, str], ...]
    heard: int = 0
    groups: dict[Labels, Group] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)

    def named(self, service: str) -> bytes:
        """What it is, for a collector where it is called so; empty: by its own word."""
        said = dict(self.resource)
        if service:
            said["service.name"] = service
        return encode.resource(said.items())


class Sums:
    """Of all proxies that some collector is to be told of."""

    def __init__(self, limits: Limits, losses: Losses) -> None:
        self.plan = Plan()
        self._limits = limits
        self._losses = losses
        self._proxies: dict[tuple[str, str], Proxy] = {}
        self._groups = 0
        self._of_one: dict[str, int] = {}

    def __len__(self) -> int:
        return self._groups

    # In

    def take(self, identity: SpiffeId, said: Mapping[str, str], metrics: Metrics, now_ns: int) -> None:
        """What a proxy tells of itself (``said``) and of its traffic."""
        name = harmless(said.get("service.instance.id", ""))[:_LONGEST]
        choices = self.plan.of(identity.namespace, name)
        if not choices:
            return
        proxy = self._proxy(identity, name, said)
        if proxy is None:
            return
        proxy.heard = now_ns
        sides = frozenset(side for choice in choices for side in choice.sides)
        for metric in metrics:
            if metric.name in _COUNTERS:
                if metric.sum.aggregation_temporality == _DELTA:
                    self._count(proxy, metric, sides, now_ns)
            elif metric.name in _HISTOGRAMS:
                if metric.histogram.aggregation_temporality == _DELTA:
                    self._spread(proxy, metric, sides, now_ns)
            elif not metric.name.startswith("istio_") and metric.WhichOneof("data") == "gauge":
                for point in metric.gauge.data_points:
                    if metric.name in proxy.gauges or len(proxy.gauges) < _MOST_GAUGES:
                        proxy.gauges[sys.intern(metric.name)] = float(point.as_int or point.as_double)

    def _proxy(self, identity: SpiffeId, name: str, said: Mapping[str, str]) -> Proxy | None:
        who = str(identity), name
        proxy = self._proxies.get(who)
        resource = _resource(identity, said)
        if proxy is None:
            if len(self._proxies) >= self._limits.tellers:
                self._losses.push_overflow += 1
                return None
            proxy = self._proxies[who] = Proxy(identity, name, resource)
        proxy.resource = resource
        return proxy

    def _count(self, proxy: Proxy, metric: metrics_v1.Metric, sides: frozenset[str], now_ns: int) -> None:
        for point in metric.sum.data_points:
            if not 0 <= point.as_int <= MOST:
                continue
            group = self._group(proxy, labels_of(point.attributes), sides, now_ns)
            if group is None:
                continue
            known = group.sums.get(metric.name)
            if known is None:
                group.sums[metric.name] = [_began(point.start_time_unix_nano, now_ns), point.as_int]
            else:
                known[1] += point.as_int

    def _spread(self, proxy: Proxy, metric: metrics_v1.Metric, sides: frozenset[str], now_ns: int) -> None:
        for point in metric.histogram.data_points:
            bounds, counts = tuple(point.explicit_bounds), point.bucket_counts
            usable = len(counts) == len(bounds) + 1 <= _MOST_BOUNDS and all(count <= MOST for count in counts)
            # NaN is in no range.
            if not usable or not 0 <= point.sum <= MOST * MOST:
                continue
            group = self._group(proxy, labels_of(point.attributes), sides, now_ns)
            if group is None:
                continue
            spread = group.spreads.get(metric.name)
            if spread is None or spread.known != bounds:
                began = _began(point.start_time_unix_nano, now_ns)
                spread = Spread(began, bounds, encode.bounds_of(bounds), [0] * len(counts))
                group.spreads[metric.name] = spread
            spread.counts = list(map(add, spread.counts, counts))
            spread.total += point.sum

    def _group(self, proxy: Proxy, labels: Labels, sides: frozenset[str], now_ns: int) -> Group | None:
        """The series of these labels; None for a side that no collector wants."""
        group = proxy.groups.get(labels)
        if group is None:
            side = dict(labels).get("reporter", "")
            if side and side not in sides:
                return None
            owner = str(proxy.identity)
            full = self._groups >= self._limits.series
            if full or self._of_one.get(owner, 0) >= self._limits.series_of_one:
                self._losses.push_overflow += 1
                labels = (("reporter", side), (_OVERFLOW, "true")) if side else ((_OVERFLOW, "true"),)
                group = proxy.groups.get(labels)
                if group is not None:
                    group.last = now_ns
                    return group
            kept = tuple((sys.intern(key), sys.intern(value)) for key, value in labels)
            attributes = encode.of_points(_attributes(kept, side, proxy.identity))
            group = proxy.groups[kept] = Group(sys.intern(side), attributes, now_ns)
            self._groups += 1
            self._of_one[owner] = self._of_one.get(owner, 0) + 1
        group.last = now_ns
        return group

    def forget(self, now_ns: int) -> None:
        """Let go of proxies that tell nothing any more, of series that are idle, and of what nobody wants."""
        for who, proxy in list(self._proxies.items()):
            choices = self.plan.of(proxy.identity.namespace, proxy.name)
            if not choices or proxy.heard < now_ns - _SILENT_NS:
                self._drop(proxy, list(proxy.groups))
                del self._proxies[who]
                continue
            wanted = {side for choice in choices for side in choice.sides}
            self._drop(
                proxy,
                [
                    labels
                    for labels, group in proxy.groups.items()
                    if group.last < now_ns - _IDLE_NS or (group.side and group.side not in wanted)
                ],
            )

    def _drop(self, proxy: Proxy, gone: Sequence[Labels]) -> None:
        for labels in gone:
            del proxy.groups[labels]
        self._groups -= len(gone)
        owner = str(proxy.identity)
        left = self._of_one.get(owner, 0) - len(gone)
        if left > 0:
            self._of_one[owner] = left
        else:
            self._of_one.pop(owner, None)

    # Out

    def messages(self, collector: str, now_ns: int) -> Iterator[tuple[bytes, int]]:
        """What a collector is to be told now, in parts of a megabyte: ``resource_metrics``, and points."""
        pending: list[bytes] = []
        waiting = 0
        for proxy in list(self._proxies.values()):
            for choice in self.plan.of(proxy.identity.namespace, proxy.name):
                if choice.collector != collector:
                    continue
                about = proxy.named(choice.service)
                for metrics, points in _parts(_metrics(proxy, choice, now_ns)):
                    pending.append(encode.of_resource(about, SCOPE, metrics))
                    waiting += points
                    if waiting >= _POINTS:
                        yield b"".join(pending), waiting
                        pending, waiting = [], 0
        if pending:
            yield b"".join(pending), waiting

    def points(self, collector: str) -> int:
        """How many points that would be."""
        return sum(
            len(proxy.gauges) + sum(len(group) for group in proxy.groups.values())
            for proxy in self._proxies.values()
            if any(one.collector == collector for one in self.plan.of(proxy.identity.namespace, proxy.name))
        )


def _began(said_ns: int, now_ns: int) -> int:
    """When a sum began: the first message of a proxy bears a time of its monotonic clock."""
    return said_ns if _LONG_AGO_NS < said_ns <= now_ns else now_ns


def _resource(identity: SpiffeId, said: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    kept = list(said.items())[:_MOST_ATTRIBUTES]
    made = {harmless(key)[:_LONGEST]: harmless(value)[:_LONGEST] for key, value in kept}
    return tuple({**made, "service.namespace": identity.namespace}.items())


def _attributes(labels: Labels, side: str, identity: SpiffeId) -> Iterator[tuple[str, str]]:
    own = {f"{side}_workload_namespace": identity.namespace, f"{side}_principal": str(identity)}
    for key, said in labels:
        value = harmless(said[:_LONGEST]) or _UNKNOWN
        yield harmless(key)[:_LONGEST], own.get(key, value) if value != _UNKNOWN else value


def _metrics(proxy: Proxy, choice: Choice, now_ns: int) -> Iterator[tuple[bytes, int]]:
    """Each metric, in parts of so many points."""
    chosen = [
        (group, frozenset(choice.sides.get(group.side, ())))
        for group in proxy.groups.values()
        if not group.side or group.side in choice.sides
    ]
    names = {name for group, _ in chosen for name in group.sums}
    for name in sorted(names):
        points = [
            encode.number(group.attributes, known[0], now_ns, known[1])
            for group, without in chosen
            if name not in without and (known := group.sums.get(name)) is not None
        ]
        for part in _cut(points):
            yield encode.counter(name, part), len(part)
    for name, unit in _HISTOGRAMS.items():
        points = [
            _spread_point(group, spread, now_ns)
            for group, without in chosen
            if name not in without and (spread := group.spreads.get(name)) is not None
        ]
        for part in _cut(points):
            yield encode.histograms(name, unit, part), len(part)
    for name, value in sorted(proxy.gauges.items()):
        shown = f"envoy_{harmless(name)[:_LONGEST].replace('.', '_')}"
        yield encode.gauge(shown, [encode.number(b"", now_ns, now_ns, value)]), 1


def _spread_point(group: Group, spread: Spread, now_ns: int) -> bytes:
    group.tall = group.tall or encode.of_histograms(group.attributes)
    return encode.histogram(group.tall, spread.began, now_ns, spread.total, spread.counts, spread.bounds)


def _cut(points: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(points), _POINTS):
        yield points[start : start + _POINTS]


def _parts(metrics: Iterable[tuple[bytes, int]]) -> Iterator[tuple[list[bytes], int]]:
    """Metrics together until there are enough points."""
    pending: list[bytes] = []
    waiting = 0
    for made, points in metrics:
        pending.append(made)
        waiting += points
        if waiting >= _POINTS:
            yield pending, waiting
            pending, waiting = [], 0
    if pending:
        yield pending, waiting
