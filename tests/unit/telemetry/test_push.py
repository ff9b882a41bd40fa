"""Sums for collectors, byte by byte what OTLP's own messages would be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.support.otlp_metrics import MetricCollector

from weft.protos import otlp_common_v1, otlp_metrics_service_v1, otlp_metrics_v1
from weft.spiffe import SpiffeId
from weft.telemetry.limits import Limits, Losses
from weft.telemetry.push import encode
from weft.telemetry.push.bridge import is_named
from weft.telemetry.push.pages import of_page, started
from weft.telemetry.push.plan import Choice, Page, Plan
from weft.telemetry.push.sums import Sums

WEB = SpiffeId("cluster.local", "shop", "web")
NOW = 1_800_000_000_000_000_000
SECOND = 1_000_000_000
PLAN = Plan(choices=(Choice(collector="all", sides={"source": ("istio_request_bytes",)}),))


def _pairs(values: dict[str, str]) -> list[otlp_common_v1.KeyValue]:
    return [
        otlp_common_v1.KeyValue(key=key, value=otlp_common_v1.AnyValue(string_value=value))
        for key, value in values.items()
    ]


def _read(parts: list[tuple[bytes, int]]) -> MetricCollector:
    collector = MetricCollector()
    collector.gate.set()
    for body, points in parts:
        request = otlp_metrics_service_v1.ExportMetricsServiceRequest.FromString(body)
        metrics = [m for r in request.resource_metrics for s in r.scope_metrics for m in s.metrics]
        kinds = [getattr(metric, str(metric.WhichOneof("data"))) for metric in metrics]
        assert sum(len(kind.data_points) for kind in kinds) == points
        collector.take(body, {})
    return collector


@given(
    st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=300), max_size=5),
    st.integers(0, 1 << 62),
    st.lists(st.integers(0, 1 << 40), min_size=3, max_size=3),
)
def test_the_bytes_are_those_of_the_messages(labels: dict[str, str], value: int, counts: list[int]) -> None:
    cumulative = otlp_metrics_v1.AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    request = otlp_metrics_service_v1.ExportMetricsServiceRequest()
    part = request.resource_metrics.add()
    part.resource.attributes.extend(_pairs(labels))
    scope = part.scope_metrics.add()
    scope.scope.name = "weft"
    total = scope.metrics.add(name="a")
    total.sum.aggregation_temporality, total.sum.is_monotonic = cumulative, True
    point = total.sum.data_points.add(start_time_unix_nano=1, time_unix_nano=2, as_int=value)
    point.attributes.extend(_pairs(labels))
    spread = scope.metrics.add(name="b", unit="ms")
    spread.histogram.aggregation_temporality = cumulative
    each = spread.histogram.data_points.add(
        start_time_unix_nano=1, time_unix_nano=2, count=sum(counts), sum=0.5, bucket_counts=counts,
        explicit_bounds=[1.0, 5.0],
    )  # fmt: skip
    each.attributes.extend(_pairs(labels))
    level = scope.metrics.add(name="c")
    level.gauge.data_points.add(start_time_unix_nano=1, time_unix_nano=2, as_double=0.5)

    attributes = encode.of_points(labels.items())
    tall = encode.of_histograms(attributes)
    made = encode.of_resource(
        encode.resource(labels.items()),
        "weft",
        [
            encode.counter("a", [encode.number(attributes, 1, 2, value)]),
            encode.histograms(
                "b", "ms", [encode.histogram(tall, 1, 2, 0.5, counts, encode.bounds_of([1.0, 5.0]))]
            ),
            encode.gauge("c", [encode.number(b"", 1, 2, 0.5)]),
        ],
    )
    assert otlp_metrics_service_v1.ExportMetricsServiceRequest.FromString(made) == request


def _told(
    sums: Sums, *grown: tuple[dict[str, str], int], name: str = "istio_requests_total", at: int = NOW
) -> None:
    metric = otlp_metrics_v1.Metric(name=name)
    metric.sum.aggregation_temporality = otlp_metrics_v1.AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
    for labels, number in grown:
        point = metric.sum.data_points.add(
            start_time_unix_nano=at - 5 * SECOND, time_unix_nano=at, as_int=number
        )
        point.attributes.extend(_pairs(labels))
    sums.take(WEB, {"service.name": "web", "service.instance.id": "web-0"}, [metric], at)


def _sums(limits: Limits | None = None) -> Sums:
    sums = Sums(limits or Limits(), Losses())
    sums.plan = PLAN
    return sums


def test_growth_is_added_up_and_the_proxy_is_who_its_certificate_says() -> None:
    sums = _sums()
    labels = {
        "reporter": "source", "source_workload_namespace": "bank", "source_principal": "spiffe://else/ns/a/sa/b",
        "destination_principal": "", "response_code": "200", "said": "\x1b[31m",
    }  # fmt: skip
    _told(sums, (labels, 2))
    first = _read(list(sums.messages("all", NOW)))
    _told(sums, (labels, 3), at=NOW + 5 * SECOND)
    collector = _read(list(sums.messages("all", NOW + 5 * SECOND)))
    (one,), (two,) = first.points.values(), collector.points.values()
    assert (one[0].value, two[0].value) == (2, 5)
    assert one[0].began == two[0].began == NOW - 5 * SECOND
    said = collector.labels("istio_requests_total")
    assert said["source_workload_namespace"] == "shop"
    assert said["source_principal"] == str(WEB)
    assert said["destination_principal"] == "unknown"
    assert said["said"].isprintable()
    assert collector.resources() == [
        {"service.name": "web", "service.namespace": "shop", "service.instance.id": "web-0"}
    ]


def test_only_what_is_wanted_is_kept_and_told() -> None:
    sums = _sums()
    _told(sums, ({"reporter": "destination"}, 1), ({"reporter": "source"}, 1))
    _told(sums, ({"reporter": "source"}, 1), name="nobody_knows_total")
    assert len(sums) == 1
    assert list(sums.messages("another", NOW)) == []
    sums.forget(NOW)
    assert len(sums) == 1
    sums.plan = Plan()
    sums.forget(NOW)
    assert len(sums) == 0


def test_idle_series_and_silent_proxies_go() -> None:
    sums = _sums()
    _told(sums, ({"reporter": "source", "a": "1"}, 1))
    _told(sums, ({"reporter": "source", "a": "2"}, 1), at=NOW + 599 * SECOND)
    sums.forget(NOW + 601 * SECOND)
    assert len(sums) == 1
    sums.forget(NOW + 1_000 * SECOND)
    assert len(sums) == 0
    _told(sums, ({"reporter": "source", "a": "1"}, 4), at=NOW + 2_000 * SECOND)
    collector = _read(list(sums.messages("all", NOW + 2_000 * SECOND)))
    assert collector.by("istio_requests_total", "a") == {"1": 4}, "it began anew"


def test_what_there_is_no_room_for_is_one_series() -> None:
    sums = _sums(Limits(series=9, series_of_one=3))
    _told(sums, *(({"reporter": "source", "path": str(number)}, 2) for number in range(10)))
    _told(sums, *(({"reporter": "source", "path": str(number)}, 2) for number in range(10)))
    collector = _read(list(sums.messages("all", NOW)))
    assert collector.by("istio_requests_total", "otel.metric.overflow") == {"true": 28, "": 12}


def test_pages_in_prometheus_text() -> None:
    text = """# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.7e9
# TYPE a_total counter
a_total{pod="x",empty=""} 7
# TYPE b histogram
b_bucket{le="1"} 2
b_bucket{le="+Inf"} 5
b_sum 9
b_count 5
# TYPE c untyped
c NaN
"""
    page = Page((("service.name", "node"),), text)
    assert started(page) == 1_700_000_000 * SECOND
    collector = _read(list(of_page(page, started(page), NOW)))
    assert collector.by("a_total", "pod") == {"x": 7}
    (spread,) = (points[0] for (name, *_), points in collector.points.items() if name == "b")
    assert (spread.value, spread.total, spread.counts) == (5, 9.0, (2, 3))
    assert not collector.torn
    assert "c" not in collector.names()
    assert list(of_page(Page((), "no { page"), 0, NOW)) == []


def test_names_of_certificates() -> None:
    held = ["spiffe://cluster.local/ns/watch/sa/collector", "*.example.com"]
    assert is_named(held, [("exact", "a.example.com")])
    assert not is_named(held, [("exact", "a.b.example.com"), ("exact", "example.com")])
    assert is_named(held, [("prefix", "spiffe://cluster.local/ns/watch/sa/")])
    assert not is_named(held, [("exact", "spiffe://cluster.local/ns/watch/sa/collect")])
