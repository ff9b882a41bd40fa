"""Metrics add up by the minute, over restarts and within bounds; a proxy speaks for itself only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from weft.protos import otlp_common_v1, otlp_metrics_service_v1, otlp_metrics_v1
from weft.spiffe import SpiffeId
from weft.telemetry.answers import QUESTIONS, BadQuestionError
from weft.telemetry.limits import Limits, Losses
from weft.telemetry.minutes import MINUTE_MS, Cell, Point, SeriesTable, grouped, honest
from weft.telemetry.store import Store

SENDER = SpiffeId("cluster.local", "shop", "cart")
NOW_MS = 30_000_000 * MINUTE_MS
_DELTA = otlp_metrics_v1.AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
_CUMULATIVE = otlp_metrics_v1.AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE


def _message(
    count: int, *, temporality: otlp_metrics_v1.AggregationTemporality.ValueType = _DELTA, **labels: str
) -> bytes:
    request = otlp_metrics_service_v1.ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add().scope_metrics.add().metrics
    attributes = [
        otlp_common_v1.KeyValue(key=key, value=otlp_common_v1.AnyValue(string_value=value))
        for key, value in {"reporter": "source", **labels}.items()
    ]
    counter = metrics.add(name="istio_requests_total")
    counter.sum.aggregation_temporality = temporality
    counter.sum.data_points.add(as_int=count, attributes=attributes)
    histogram = metrics.add(name="istio_request_duration_milliseconds")
    histogram.histogram.aggregation_temporality = temporality
    histogram.histogram.data_points.add(
        sum=2.5 * count, count=count, explicit_bounds=[1, 5], bucket_counts=[0, count, 0],
        attributes=attributes,
    )  # fmt: skip
    return request.SerializeToString()


async def _ask(store: Store, **parameters: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await QUESTIONS["minutes"](store, parameters))["series"]
    return found


async def test_a_minute_adds_up_over_a_restart(tmp_path: Path) -> None:
    now = [NOW_MS]
    for turn in range(3):
        store = Store(tmp_path / "t.db", Limits(), now_ms=lambda: now[0])
        store.take_metrics(_message(2), SENDER)
        store.take_metrics(_message(1), SENDER)
        (row,) = await _ask(store, name="istio_requests_total")
        assert row["points"] == [{"time": NOW_MS, "value": 3.0 * (turn + 1), "counts": []}]
        await store.close()
    now[0] += 5 * MINUTE_MS
    store = Store(tmp_path / "t.db", Limits(), now_ms=lambda: now[0])
    store.take_metrics(_message(4), SENDER)
    (row,) = await _ask(store, name="istio_request_duration_milliseconds", by="reporter")
    assert row == {
        "labels": {"reporter": "source"},
        "bounds": [1.0, 5.0],
        "points": [
            {"time": NOW_MS, "value": 22.5, "counts": [0, 9, 0]},
            {"time": NOW_MS + 5 * MINUTE_MS, "value": 10.0, "counts": [0, 4, 0]},
        ],
    }
    assert len((await _ask(store, name="istio_requests_total", since="2m"))[0]["points"]) == 1
    await store.close()


async def test_groups_and_conditions(tmp_path: Path) -> None:
    store = Store(tmp_path / "t.db", Limits(), now_ms=lambda: NOW_MS)
    for code, count in (("200", 5), ("503", 2)):
        for version in ("v1", "v2"):
            store.take_metrics(_message(count, response_code=code, destination_version=version), SENDER)
    rows = await _ask(store, name="istio_requests_total", by="response_code", where="destination_version=v2")
    assert [(row["labels"], row["points"][0]["value"]) for row in rows] == [
        ({"response_code": "200"}, 5.0),
        ({"response_code": "503"}, 2.0),
    ]
    (whole,) = await _ask(store, name="istio_requests_total")
    assert whole["points"][0]["value"] == 14.0
    with pytest.raises(BadQuestionError, match="which metric"):
        await _ask(store)
    await store.close()


async def test_what_is_no_delta_or_nothing_is_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path / "t.db", Limits(), now_ms=lambda: NOW_MS)
    store.take_metrics(_message(7, temporality=_CUMULATIVE), SENDER)
    store.take_metrics(_message(0), SENDER)
    assert await _ask(store, name="istio_requests_total") == []
    assert len(store.series) == 0
    await store.close()


def test_a_proxy_speaks_for_its_own_half_only() -> None:
    labels = dict(
        honest(
            {
                "reporter": "destination", "destination_workload_namespace": "bank",
                "destination_principal": "spiffe://cluster.local/ns/bank/sa/teller",
                "source_workload_namespace": "web", "source_principal": "unknown",
            },
            SENDER,
        )
    )  # fmt: skip
    assert labels["destination_workload_namespace"] == "shop"
    assert labels["destination_principal"] == str(SENDER)
    assert labels["source_workload_namespace"] == "web"
    mine = dict(honest({"source_workload_namespace": "bank", "source_principal": "unknown"}, SENDER))
    assert mine == {"source_workload_namespace": "shop", "source_principal": "unknown"}


def test_series_are_bounded_and_forgotten_when_idle() -> None:
    losses = Losses()
    table = SeriesTable(Limits(series=3), losses)
    for number in range(10):
        table.add(Point("m", (("n", str(number)),), 1.0), NOW_MS)
    assert (len(table), losses.series_left_out) == (3, 7)
    assert table.take(NOW_MS) == [], "the minute of now is not over"
    assert len(table.take(NOW_MS + 2 * MINUTE_MS)) == 3
    assert len(table) == 0


def test_other_bounds_add_their_sum_alone() -> None:
    cell = Cell()
    cell.add(1.0, (1.0,), (1, 0))
    cell.add(2.0, (2.0,), (1, 0))
    assert (cell.value, cell.bounds, cell.counts) == (3.0, (1.0,), [1, 0])


def test_no_rows_make_no_groups() -> None:
    assert grouped([], ("a",), {}) == []


def test_one_proxy_cannot_crowd_the_others_out() -> None:
    losses = Losses()
    table = SeriesTable(Limits(series_of_one=2), losses)
    for number in range(5):
        table.add(Point("m", (("n", str(number)),), 1.0), NOW_MS, "loud")
    table.add(Point("m", (("n", "other"),), 1.0), NOW_MS, "quiet")
    assert (len(table), losses.series_left_out) == (3, 3)
    table.take(NOW_MS + 2 * MINUTE_MS)
    table.add(Point("m", (("n", "new"),), 1.0), NOW_MS, "loud")
    assert len(table) == 1
