"""The control plane's own series, under the names that Istio's dashboards ask for.

Istio's counters lack the ``_total`` that prometheus-client puts behind every counter, so they are collected
here without a type.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

_SECONDS: Final = (0.01, 0.1, 0.5, 1, 3, 5, 10, 20, 30)
_BYTES: Final = (1, 10_000, 1_000_000, 4_000_000, 10_000_000, 40_000_000)


class Counter(Collector):
    """A counter with so many labels. Without one it is 0 from the start."""

    def __init__(self, name: str, help_: str, registry: CollectorRegistry, *labels: str) -> None:
        self._name, self._help, self._labels = name, help_, labels
        self._values: dict[tuple[str, ...], int] = {} if labels else {(): 0}
        registry.register(self)

    def add(self, *values: str, count: int = 1) -> None:
        """Count, under a value for each label."""
        self._values[values] = self._values.get(values, 0) + count

    def value(self, *values: str) -> int:
        """The count so far."""
        return self._values.get(values, 0)

    def collect(self) -> Iterator[Metric]:
        """As prometheus-client asks for it."""
        metric = Metric(self._name, self._help, "unknown")
        for values, count in self._values.items():
            metric.add_sample(self._name, dict(zip(self._labels, values, strict=True)), count)
        yield metric


class Metrics:
    """All of them, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.proxies = Gauge("pilot_xds", "Proxies connected by xDS.", ["version"], registry=registry)
        self.pushes = Counter("pilot_xds_pushes", "Responses sent.", registry, "type")
        self.push_time = Histogram(
            "pilot_xds_push_time",
            "Seconds from sending a response to its acknowledgement.",
            ["type"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.config_size = Histogram(
            "pilot_xds_config_size_bytes",
            "Size of responses.",
            ["type"],
            buckets=_BYTES,
            registry=registry,
        )
        self.convergence_time = Histogram(
            "pilot_proxy_convergence_time",
            "Seconds from a change to its acknowledgement by a proxy.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.triggers = Counter("pilot_push_triggers", "Why something was computed anew.", registry, "type")
        self.rejects = Counter("pilot_total_xds_rejects", "Responses that proxies refused.", registry, "type")
        self.errors = Counter(
            "pilot_total_xds_internal_errors", "Proxies that could not be compiled.", registry
        )
        self.keys_fetched = Counter(
            "pilot_jwks_resolver_network_fetch_success_total", "Keys of issuers that were fetched.", registry
        )
        self.keys_missed = Counter(
            "pilot_jwks_resolver_network_fetch_fail_total", "Keys that could not be fetched.", registry
        )
        self.spans = Counter("weft_spans_received_total", "Spans that proxies sent.", registry)
        self.records = Counter("weft_flow_records_received_total", "Requests that proxies told of.", registry)
        self.points = Counter(
            "weft_metric_points_received_total", "Points of metrics that proxies sent.", registry
        )
        self.telemetry_series = Gauge(
            "weft_telemetry_series", "Series that the telemetry process holds.", registry=registry
        )
        self.telemetry_disk = Gauge(
            "weft_telemetry_disk_bytes", "Size of what it keeps on disk.", registry=registry
        )
        self.telemetry_lost = Counter(
            "weft_telemetry_lost_total", "What the telemetry process did not keep.", registry, "reason"
        )
        self.telemetry_restarts = Counter(
            "weft_telemetry_restarts_total", "Times that the telemetry process was started again.", registry
        )
        self.push_up = Gauge(
            "weft_metrics_push_up", "Whether a collector takes metrics.", ["provider"], registry=registry
        )
        self.pushed_points = Counter(
            "weft_metrics_pushed_points_total", "Points that a collector took.", registry, "provider"
        )
        self.push_failures = Counter(
            "weft_metrics_push_failures_total", "Pushes that a collector did not take.", registry, "provider"
        )
        # Without Istio's labels: the first refusal of a kind would be no growth to rate() otherwise.
        self.validated = Counter("galley_validation_passed", "Resources accepted.", registry)
        self.invalid = Counter("galley_validation_failed", "Resources refused.", registry)
        self.issued = Counter(
            "citadel_server_success_cert_issuance_count", "Certificates signed for nodes.", registry
        )
        # Istio tells what a service's endpoints are made of from all other configuration.
        about = ("type", "event")
        self.configured = Counter(
            "pilot_k8s_cfg_events", "Resources that came, changed and went.", registry, *about
        )
        self.registered = Counter(
            "pilot_k8s_reg_events", "Services and workloads that came, changed and went.", registry, *about
        )

    def judged(self, well: bool) -> None:
        """A resource was looked at by the API, and found well or not."""
        (self.validated if well else self.invalid).add()

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
