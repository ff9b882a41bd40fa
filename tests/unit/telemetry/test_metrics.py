"""What proxies push is taken in for what it is: each for itself, nothing twice, and what lacks is counted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weft.protos import otlp_common_v1, otlp_metrics_service_v1, otlp_metrics_v1
from weft.spiffe import SpiffeId
from weft.telemetry.answers import OF_NAMESPACE, QUESTIONS
from weft.telemetry.histogram import BOUNDS, BUCKETS
from weft.telemetry.intake import Intake
from weft.telemetry.limits import Limits
from weft.telemetry.otlp import harmless
from weft.telemetry.series import SLOT_MS
from weft.telemetry.store import Store
from weft.telemetry.windows import BadQuestionError

REVIEWS, WEB = SpiffeId("cluster.local", "shop", "reviews"), SpiffeId("cluster.local", "front", "web")
GATEWAY = SpiffeId("cluster.local", "edge", "gate")
NOW_MS = 1_800_000_000_000
HOST = "reviews.shop.svc.cluster.local"
DELTA = otlp_metrics_v1.AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
CUMULATIVE = otlp_metrics_v1.AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
_SERVICE = {
    "destination_service": HOST, "destination_service_name": "reviews",
    "destination_service_namespace": "shop",
}  # fmt: skip


def _pairs(values: dict[str, str]) -> list[otlp_common_v1.KeyValue]:
    return [
        otlp_common_v1.KeyValue(key=key, value=otlp_common_v1.AnyValue(string_value=value))
        for key, value in values.items()
    ]


def at_destination(version: str = "v1", caller: SpiffeId | None = WEB, **more: str) -> dict[str, str]:
    """Labels of a call to reviews, as its own sidecar says them."""
    return {
        "reporter": "destination", "destination_workload": f"reviews-{version}",
        "destination_workload_namespace": "shop", "destination_canonical_service": "reviews",
        "destination_version": version, "source_workload": "unknown",
        "source_principal": str(caller) if caller else "", **_SERVICE,
        "connection_security_policy": "mutual_tls" if caller else "none",
        "request_protocol": "http", "response_code": "200", "response_flags": "-", **more,
    }  # fmt: skip


def at_source(
    version: str = "v1", workload: str = "web", *, mutual: bool = True, **more: str
) -> dict[str, str]:
    """Labels of a call to reviews, as its caller's sidecar says them."""
    return {
        "reporter": "source", "source_workload": workload, "source_workload_namespace": "front",
        "destination_workload": f"reviews-{version}" if version else "unknown",
        "destination_workload_namespace": "shop" if version else "unknown",
        "destination_version": version, "destination_canonical_service": "reviews" if version else "unknown",
        "destination_principal": str(REVIEWS) if mutual and version else "", **_SERVICE,
        "connection_security_policy": "unknown", "request_protocol": "http", "response_code": "200", **more,
    }  # fmt: skip


def message(
    *told: tuple[dict[str, str], int],
    name: str = "istio_requests_total",
    bucket: int | None = None,
    temporality: otlp_metrics_v1.AggregationTemporality.ValueType = DELTA,
    since_ms: int = 0,
    time_ms: int = 0,
    resource: dict[str, str] | None = None,
) -> bytes:
    """Counters of these labels; with ``bucket`` also as many durations in that one."""
    request = otlp_metrics_service_v1.ExportMetricsServiceRequest()
    part = request.resource_metrics.add()
    part.resource.attributes.extend(
        _pairs({"service.instance.id": "one", "weft.workload": "reviews-v1", **(resource or {})})
    )
    metrics = part.scope_metrics.add().metrics
    times = {"start_time_unix_nano": since_ms * 1_000_000, "time_unix_nano": time_ms * 1_000_000}
    metrics.add(name="server.uptime").gauge.data_points.add(as_int=7, **times)
    for labels, count in told:
        counter = metrics.add(name=name)
        counter.sum.aggregation_temporality = temporality
        counter.sum.data_points.add(as_int=count, attributes=_pairs(labels))
        if bucket is not None:
            histogram = metrics.add(name="istio_request_duration_milliseconds")
            histogram.histogram.aggregation_temporality = temporality
            counts = [0] * BUCKETS
            counts[bucket] = max(0, count)
            histogram.histogram.data_points.add(
                sum=2.0 * count, count=max(0, count), explicit_bounds=BOUNDS, bucket_counts=counts,
                attributes=_pairs(labels),
            )  # fmt: skip
    return request.SerializeToString()


class Clock:
    """ms since the epoch; stands still unless it is set."""

    def __init__(self) -> None:
        self.now = NOW_MS

    def __call__(self) -> int:
        return self.now


def _store(path: Path, clock: Clock, **limits: Any) -> Store:
    return Store(path / "telemetry" / "t.db", Limits(**limits), now_ms=clock)


async def _ask(store: Store, question: str, **parameters: str) -> dict[str, Any]:
    return await QUESTIONS[question](store, parameters)


async def _requests(store: Store, **parameters: str) -> dict[str, int]:
    rows = (await _ask(store, "stat", **{"window": "30m", **parameters}))["rows"]
    return {row["key"]: row["requests"] for row in rows}


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_each_call_counts_once_and_as_its_server_saw_it(tmp_path: Path, clock: Clock) -> None:
    store = _store(tmp_path, clock)
    store.take_metrics(
        message(
            (at_source(), 10),
            (at_source(response_code="504"), 2),
            (at_source("", response_flags="FI", response_code="418"), 3),
        ),
        WEB,
    )
    assert await _requests(store, by="code") == {"200": 10, "418": 3, "504": 2}, "while nobody else tells"
    store.take_metrics(message((at_destination(), 10), (at_destination(response_code="0"), 2)), REVIEWS)
    assert await _requests(store, by="code") == {"200": 10, "418": 3, "0": 2}
    assert await _requests(store, by="code", direction="outbound") == {"200": 10, "418": 3, "504": 2}
    assert await _requests(store, by="workload") == {"shop/reviews-v1": 12, "": 3}
    assert await _requests(store, by="service") == {"shop/reviews": 15}
    assert await _requests(store, of="shop/reviews", by="version") == {"v1": 12, "": 3}
    assert await _requests(store, of="workload:shop/reviews-v1", by="caller") == {str(WEB): 12}
    answer = await _ask(store, "workloads")
    assert answer["total"]["requests"] == 15
    (service,) = answer["services"]
    assert (service["name"], service["workloads"], service["inbound"]["requests"]) == (
        "reviews",
        ["reviews-v1"],
        15,
    )
    found = {row["workload"]: row for row in answer["workloads"]}
    assert (found["reviews-v1"]["inbound"]["requests"], found["web"]["outbound"]["requests"]) == (12, 15)
    assert found["reviews-v1"]["seenBy"] == "destination"
    await store.close()


async def test_a_proxy_speaks_for_itself_only(tmp_path: Path, clock: Clock) -> None:
    store = _store(tmp_path, clock)
    liar = at_destination() | {
        "destination_workload_namespace": "bank",
        "destination_principal": "spiffe://x/ns/bank/sa/t",
    }
    store.take_metrics(message((liar, 5)), REVIEWS)
    liar = at_source() | {"source_workload_namespace": "bank", "source_principal": "spiffe://x/ns/bank/sa/t"}
    store.take_metrics(message((liar, 7)), WEB)
    edges = (await _ask(store, "edges"))["edges"]
    assert {(edge["source"]["namespace"], edge["destination"]["namespace"]) for edge in edges} == {
        ("front", "shop")
    }
    (edge,) = edges
    assert (edge["source"]["principal"], edge["source"]["sure"], edge["toldBy"]) == (
        str(WEB), True, ["source", "destination"],
    )  # fmt: skip
    assert (edge["requests"], edge["seenBy"], edge["secured"]) == (7, "source", True)
    await store.close()


async def test_a_service_that_rests_is_a_service(tmp_path: Path, clock: Clock) -> None:
    store = _store(tmp_path, clock)
    store.take_metrics(message((at_destination(), 9)), REVIEWS)
    clock.now += 300_000
    (found,) = (await _ask(store, "workloads", window="1m"))["services"]
    assert (found["name"], found["inbound"]["requests"], found["inbound"]["success"]) == ("reviews", 0, None)
    await store.close()


async def test_what_was_never_sent_is_no_plain_text(tmp_path: Path, clock: Clock) -> None:
    store = _store(tmp_path, clock)
    aborted = at_source("", response_flags="FI", response_code="503")
    store.take_metrics(message((at_source(), 9), (aborted, 3)), WEB)
    store.take_metrics(message((at_destination(), 9)), REVIEWS)
    answer = await _ask(store, "workloads")
    assert answer["total"]["mtls"] == answer["services"][0]["inbound"]["mtls"] == 1.0
    found = {bool(edge["destination"]["workload"]): edge for edge in (await _ask(store, "edges"))["edges"]}
    assert (found[True]["mtls"], found[True]["secured"]) == (1.0, True)
    assert (found[False]["mtls"], found[False]["errors"]) == (None, 3)
    await store.close()


async def test_what_failed_and_why_as_callers_saw_it(tmp_path: Path, clock: Clock) -> None:
    store = _store(tmp_path, clock)
    broken = at_source(mutual=False, response_flags="UC", response_code="503")
    store.take_metrics(message((at_source(), 10), (broken, 7), (at_source(response_code="404"), 2)), WEB)
    store.take_metrics(message((at_destination(), 10), (at_destination(response_code="404"), 2)), REVIEWS)
    (edge,) = (await _ask(store, "edges"))["edges"]
    assert edge["failures"] == [
        {"code": "503", "grpc": "", "flags": "UC", "requests": 7, "failed": True},
        {"code": "404", "grpc": "", "flags": "", "requests": 2, "failed": False},
    ]
    assert await _requests(store, by="code") == {"200": 10, "404": 2}, "what came"
    assert await _requests(store, by="code", seen="source") == {"200": 10, "404": 2, "503": 7}
    (row,) = (await _ask(store, "stat", by="service", seen="source"))["rows"]
    assert (row["key"], row["requests"], row["errors"]) == ("shop/reviews", 19, 7)
    clock.now += 30_000
    answer = await _ask(store, "series", metric="errors", of="shop/reviews", seen="source", since="10m")
    assert sum(filter(None, answer["series"][0]["values"])) > 0
    await store.close()


async def test_callers_that_tell_nothing_are_edges_too(tmp_path: Path, clock: Clock) -> None:
    store = _store(tmp_path, clock)
    store.take_metrics(message((at_destination(), 4), (at_destination(caller=None), 6)), REVIEWS)
    edges = {edge["source"]["kind"]: edge for edge in (await _ask(store, "edges"))["edges"]}
    assert set(edges) == {"workload", "outside"}
    assert (edges["workload"]["source"]["principal"], edges["workload"]["source"]["sure"]) == (
        str(WEB),
        False,
    )
    assert (edges["outside"]["requests"], edges["outside"]["secured"]) == (6, False)
    # Once the caller tells of its plaintext itself, it is no stranger's.
    store.take_metrics(message((at_source(mutual=False), 6)), WEB)
    edges = {edge["source"]["kind"]: edge for edge in (await _ask(store, "edges"))["edges"]}
    assert set(edges) == {"workload"}
    await store.close()


async def test_what_a_gateway_passes_on_is_what_comes_to_it(tmp_path: Path, clock: Clock) -> None:
    store = _store(tmp_path, clock)
    said = at_source() | {"source_workload": "gate", "source_workload_namespace": "edge"}
    store.take_metrics(message((said, 9), resource={"weft.kind": "router", "weft.workload": "gate"}), GATEWAY)
    assert await _requests(store, of="edge/gate") == {"shop/reviews-v1": 9}
    found = {row["workload"]: row for row in (await _ask(store, "workloads"))["workloads"]}
    assert (found["gate"]["kind"], found["gate"]["inbound"]["requests"], found["gate"]["instances"]) == (
        "gateway",
        9,
        1,
    )
    assert found["reviews-v1"]["seenBy"] == "source"
    await store.close()


async def test_everything_is_there_after_a_restart_and_once(tmp_path: Path, clock: Clock) -> None:
    for turn in range(1, 4):
        store = _store(tmp_path, clock)
        store.take_metrics(message((at_destination(), 5), bucket=3), REVIEWS)
        assert await _requests(store) == {"shop/reviews-v1": 5 * turn}
        for window in ("3h", "48h", "480h"):
            assert await _requests(store, window=window) == {"shop/reviews-v1": 5 * turn}, window
        await store.close()
        clock.now += 17_000
    store = _store(tmp_path, clock)
    (series,) = (await _ask(store, "series", metric="latency", of="shop/reviews", since="3h"))["series"]
    assert sum(counts[3] for counts in series["counts"]) == 15
    (series,) = (await _ask(store, "series", since="3h"))["series"]
    assert sum(series["values"]) > 0, "the whole mesh is kept too"
    await store.close()


async def test_charts_say_the_same_as_windows(tmp_path: Path, clock: Clock) -> None:
    store = _store(tmp_path, clock)
    for turn in range(60):
        store.take_metrics(
            message((at_destination(), turn), (at_destination("v2", response_code="500"), 1), bucket=4),
            REVIEWS,
        )
        clock.now += SLOT_MS
    for parameters in ({}, {"of": "shop/reviews"}, {"namespace": "shop"}):
        answer = await _ask(store, "series", since="20m", step="20s", **parameters)
        (series,) = answer["series"]
        assert round(sum(series["values"]) * 20) == sum(range(60)) + 60, parameters
    answer = await _ask(
        store, "series", metric="success", by="version", of="shop/reviews", since="20m", step="1h"
    )
    assert {each["key"]: each["values"][-1] for each in answer["series"]} == {"v1": 1.0, "v2": 0.0}
    answer = await _ask(store, "series", metric="p95", since="10m", step="10m", of="shop/reviews")
    low, high = BOUNDS[3], BOUNDS[4]
    assert all(value is None or low <= value <= high for value in answer["series"][0]["values"])
    await store.close()


async def test_connections_are_open_as_long_as_their_proxy_lives(tmp_path: Path, clock: Clock) -> None:
    store = _store(tmp_path, clock)
    tcp = at_destination(request_protocol="tcp", response_code="")
    store.take_metrics(message((tcp, 3), name="istio_tcp_connections_opened_total"), REVIEWS)
    store.take_metrics(message((tcp, 1), name="istio_tcp_connections_closed_total"), REVIEWS)

    async def connections() -> int:
        (row,) = (await _ask(store, "stat", of="shop/reviews-v1", window="30m"))["rows"]
        return int(row["connections"])

    assert await connections() == 2
    await store.close()
    store = _store(tmp_path, clock)
    assert await connections() == 2
    clock.now += 120_000
    assert await connections() == 0, "its proxy has said nothing for two minutes"
    await store.close()


async def test_messages_that_never_came_are_counted(tmp_path: Path, clock: Clock) -> None:
    store = _store(tmp_path, clock)
    store.take_metrics(message(time_ms=NOW_MS + 5_000), REVIEWS)
    for start, end in ((5, 10), (10, 15)):
        store.take_metrics(message(since_ms=NOW_MS + start * 1_000, time_ms=NOW_MS + end * 1_000), REVIEWS)
    assert store.losses.metric_gaps == 0
    clock.now += SLOT_MS
    await store.flush_metrics()
    await store.close()
    store = _store(tmp_path, clock)
    store.take_metrics(message(since_ms=NOW_MS + 35_000, time_ms=NOW_MS + 40_000), REVIEWS)
    assert (store.losses.metric_gaps, store.losses.metric_gap_ms) == (1, 20_000)
    # A proxy that was started anew: nobody knows since when its first message counts.
    store.take_metrics(message(since_ms=1_795_293, time_ms=NOW_MS + 90_000), REVIEWS)
    assert store.losses.metric_gaps == 1
    await store.close()


async def test_what_was_told_and_not_yet_written_is_known_to_be_lost(tmp_path: Path, clock: Clock) -> None:
    store = _store(tmp_path, clock)
    store.take_metrics(message((at_destination(), 5), time_ms=NOW_MS + 5_000), REVIEWS)
    clock.now += SLOT_MS
    later = message((at_destination(), 2), since_ms=NOW_MS + 5_000, time_ms=NOW_MS + 10_000)
    store.take_metrics(later, REVIEWS)
    await store.flush_metrics()
    # As after a crash: the second is nowhere but in the memory of the one that goes.
    again = _store(tmp_path, clock)
    assert await _requests(again) == {"shop/reviews-v1": 5}
    again.take_metrics(message(since_ms=NOW_MS + 10_000, time_ms=NOW_MS + 15_000), REVIEWS)
    assert (again.losses.metric_gaps, again.losses.metric_gap_ms) == (1, 5_000)
    # One that nobody remembers has told before: how much is unknown.
    again.take_metrics(message(since_ms=NOW_MS + 10_000, time_ms=NOW_MS + 15_000), WEB)
    assert (again.losses.metric_gaps, again.losses.metric_gap_ms) == (2, 5_000)
    for one in (again, store):
        await one.close()


async def test_a_clock_that_is_set_back_loses_no_counts(tmp_path: Path, clock: Clock) -> None:
    store = _store(tmp_path, clock)
    store.take_metrics(message((at_destination(), 5)), REVIEWS)
    clock.now -= 7_200_000
    store.take_metrics(message((at_destination(), 2)), REVIEWS)
    assert (await _ask(store, "health"))["lost"]["clock_steps"] == 1
    clock.now += 7_200_000 + SLOT_MS
    assert await _requests(store, window="3h") == {"shop/reviews-v1": 7}
    await store.close()


@pytest.mark.parametrize(("value", "temporality"), [(-1, DELTA), (1 << 41, DELTA), (7, CUMULATIVE)])
async def test_what_cannot_be_counted_is_not(
    tmp_path: Path, clock: Clock, value: int, temporality: otlp_metrics_v1.AggregationTemporality.ValueType
) -> None:
    store = _store(tmp_path, clock)
    store.take_metrics(message((at_destination(), value), temporality=temporality), REVIEWS)
    assert await _requests(store) == {}
    assert store.losses.points_unusable == 1
    await store.close()


async def test_a_histogram_that_is_none_costs_itself_alone(tmp_path: Path, clock: Clock) -> None:
    request = otlp_metrics_service_v1.ExportMetricsServiceRequest.FromString(message((at_destination(), 5)))
    metrics = request.resource_metrics[0].scope_metrics[0].metrics
    for bad in (
        {"sum": float("nan")},
        {"sum": float("inf")},
        {"sum": -1.0},
        {"bucket_counts": [1 << 60, 0]},
        {},
    ):
        histogram = metrics.add(name="istio_request_duration_milliseconds").histogram
        histogram.aggregation_temporality = DELTA
        values: dict[str, Any] = {"explicit_bounds": [1.0], "bucket_counts": [1, 0], "sum": 1.0, **bad}
        if not bad:
            values["bucket_counts"] = [1]
        histogram.data_points.add(attributes=_pairs(at_destination()), **values)
    store = _store(tmp_path, clock)
    store.take_metrics(request.SerializeToString(), REVIEWS)
    assert await _requests(store) == {"shop/reviews-v1": 5}
    assert store.losses.points_unusable == 5
    await store.close()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from([*at_source(), "weft.workload"]), st.text(max_size=300), max_size=12),
    st.integers(-(1 << 62), 1 << 62),
)
def test_garbage_breaks_no_answer(tmp_path: Path, labels: dict[str, str], value: int) -> None:
    async def run() -> None:
        store = Store(tmp_path / "garbage" / "t.db", Limits(series=50), now_ms=lambda: NOW_MS)
        told = at_source() | labels
        store.take_metrics(message((told, value), bucket=1), WEB)
        for question in ("workloads", "edges", "stat"):
            for window in ("1m", "3h"):
                answer = await _ask(store, question, window=window)
                assert all(each == harmless(each) for each in _texts(answer)), answer
        await store.close()

    asyncio.run(run())


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


async def _emptied(intake: Intake) -> None:
    async with asyncio.timeout(60):
        while intake.held_bytes:  # noqa: ASYNC110 - the queue has no reason to tell of its end
            await asyncio.sleep(0)


async def test_a_flood_is_bounded_and_counted_and_over_afterwards(tmp_path: Path, clock: Clock) -> None:
    store = _store(tmp_path, clock, series=200, series_of_one=100, tellers=50, queue_bytes=600_000)
    intake = Intake(store.limits.queue_bytes, store.losses)
    taken = sum(
        intake.offer(
            store.take_metrics,
            message(
                *((at_source(f"v{turn}", f"w{turn}-{number}"), 1) for number in range(20)),
                resource={"service.instance.id": f"i{turn}"},
            ),
            WEB,
        )
        for turn in range(100)
    )
    assert 0 < taken < 100
    assert store.losses.refused_messages == 100 - taken
    running = asyncio.create_task(intake.run())
    await _emptied(intake)
    assert len(store.series) <= 221
    assert len(store.tellers) <= 50
    assert sum((await _requests(store, direction="outbound")).values()) == 20 * taken, "only names are lost"
    assert store.losses.series_overflow > 0
    assert intake.offer(store.take_metrics, message((at_destination(), 3)), REVIEWS)
    await _emptied(intake)
    assert (await _requests(store, of="workload:shop/reviews-v1"))["shop/reviews-v1"] == 3
    running.cancel()
    await store.close()


async def test_names_that_come_and_go_do_not_fill_the_disk(tmp_path: Path, clock: Clock) -> None:
    store = _store(tmp_path, clock, series=20)
    for turn in range(10):
        told = ((at_source(f"v{turn}-{number}"), 1) for number in range(15))
        store.take_metrics(message(*told), WEB)
        clock.now += 3_700_000
        await store.flush_metrics(now=True)
        store.series.trim()
        await store.on_archive(lambda archive: archive.trim(clock.now))
    kept = await store.on_archive(lambda archive: archive.rollups.keys())
    assert 15 < len(kept) <= 60
    answer = await _ask(store, "edges", window="48h")
    newest = {edge["destination"]["version"] for edge in answer["edges"]}
    assert "v9-0" in newest
    assert "v0-0" not in newest
    await store.close()


@pytest.mark.parametrize(
    ("question", "parameters", "says"),
    [
        ("stat", {"by": "colour"}, "by"),
        ("stat", {"of": "reviews"}, "NAMESPACE/NAME"),
        ("stat", {"of": "pod:shop/reviews"}, "NAMESPACE/NAME"),
        ("stat", {"direction": "up"}, "inbound"),
        ("stat", {"window": "5"}, "window"),
        ("stat", {"window": "1s"}, "between"),
        ("edges", {"window": "721h"}, "between"),
        ("stat", {"by": "path", "direction": "outbound"}, "inbound"),
        ("series", {"metric": "sum"}, "metric"),
        ("series", {"since": "720h", "step": "10s"}, "points"),
        ("series", {"by": "path"}, "by"),
    ],
)
async def test_bad_questions_say_what_to_write(
    tmp_path: Path, clock: Clock, question: str, parameters: dict[str, str], says: str
) -> None:
    store = _store(tmp_path, clock)
    with pytest.raises(BadQuestionError, match=says):
        await _ask(store, question, **parameters)
    await store.close()


async def test_one_namespace_sees_its_own(tmp_path: Path, clock: Clock) -> None:
    store = _store(tmp_path, clock)
    store.take_metrics(message((at_source(), 7), resource={"weft.workload": "web"}), WEB)
    store.take_metrics(message((at_destination(), 7)), REVIEWS)
    for question in ("workloads", "stat", "edges", "series"):
        assert question in OF_NAMESPACE
        answer = await _ask(store, question, namespace="other")
        assert "shop" not in str(answer).replace("shopping", ""), question
        assert "web" not in str(answer), question
    assert len((await _ask(store, "edges", namespace="front"))["edges"]) == 1
    assert [row["workload"] for row in (await _ask(store, "workloads", namespace="front"))["workloads"]] == [
        "web"
    ]
    await store.close()


async def test_the_questions_of_a_page_are_about_the_same_window(tmp_path: Path, clock: Clock) -> None:
    store = Store(tmp_path / "telemetry" / "t.db", Limits(), now_ms=clock, kept_s=600)
    store.take_metrics(message((at_destination(), 5)), REVIEWS)
    first, both = await asyncio.gather(*(_ask(store, question) for question in ("workloads", "edges")))
    assert (first["total"]["requests"], both["edges"][0]["requests"]) == (5, 5)
    store.take_metrics(message((at_destination(), 2)), REVIEWS)
    assert (await _ask(store, "workloads"))["total"]["requests"] == 5
    assert (await _ask(store, "workloads", window="5m"))["total"]["requests"] == 7
    store.windows.forget()
    assert (await _ask(store, "workloads"))["total"]["requests"] == 7
    await store.close()
