"""Messages are taken in, kept over a restart within their bounds, and answered about."""

from __future__ import annotations

import asyncio
import stat
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from weft.protos import otlp_common_v1, otlp_logs_service_v1, otlp_trace_service_v1
from weft.protos.octets import repaired
from weft.spiffe import SpiffeId
from weft.telemetry import otlp
from weft.telemetry.answers import QUESTIONS
from weft.telemetry.archive import Archive
from weft.telemetry.inquiry import TelemetryError, ask, serve_inquiries
from weft.telemetry.intake import Intake
from weft.telemetry.limits import MEBIBYTE, Limits, Losses, Room
from weft.telemetry.shares import TraceShare, level
from weft.telemetry.store import Store

SENDER = SpiffeId("cluster.local", "default", "reviews")
NODE = "sidecar~10.0.0.1~reviews-0.default~default.svc.cluster.local"
NOW_MS = 1_800_000_000_000


def _logs(count: int = 1, **fields: str) -> bytes:
    request = otlp_logs_service_v1.ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    for key, value in (("node_name", NODE), ("cluster_name", "reviews.default")):
        resource.resource.attributes.append(_pair(key, value))
    scope = resource.scope_logs.add()
    for _ in range(count):
        record = scope.log_records.add(time_unix_nano=NOW_MS * 1_000_000, trace_id=b"t" * 16)
        said = {"method": "GET", "path": "/a", "code": "200", "port": "9080", "request_id": "r1", **fields}
        record.attributes.extend(_pair(key, value) for key, value in said.items())
    return request.SerializeToString()


def _pair(key: str, value: str) -> otlp_common_v1.KeyValue:
    return otlp_common_v1.KeyValue(key=key, value=otlp_common_v1.AnyValue(string_value=value))


def _spans(*traces: bytes, size: int = 0) -> bytes:
    request = otlp_trace_service_v1.ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for trace in traces:
        span = scope.spans.add(trace_id=trace, span_id=b"s" * 8, name="GET", start_time_unix_nano=1_000_000)
        if size:
            span.attributes.append(_pair("x", "x" * size))
    return request.SerializeToString()


def _store(path: Path, **limits: Any) -> Store:
    return Store(path / "telemetry" / "t.db", Limits(**limits), now_ms=lambda: NOW_MS)


async def _ask(store: Store, question: str, **parameters: str) -> dict[str, Any]:
    return await QUESTIONS[question](store, parameters)


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.take_logs(_logs(3), SENDER)
    store.take_traces(_spans(b"a" * 16), SENDER)
    await store.close()
    again = _store(tmp_path)
    again.take_logs(_logs(2), SENDER)
    (flow,) = (await _ask(again, "flows", since="1h"))["flows"]
    assert (flow["count"], flow["workload"], flow["instance"], flow["account"]) == (
        5, "reviews", "reviews-0", "reviews",
    )  # fmt: skip
    assert len((await _ask(again, "records", request="r1"))["records"]) == 5
    (span,) = (await _ask(again, "trace", id=(b"a" * 16).hex()))["spans"]
    assert (span["name"], span["namespace"]) == ("GET", "default")
    await again.close()


async def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.take_logs(_logs(), SENDER)
    await store.flush()
    directory = tmp_path / "telemetry"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()} == {0o600}
    await store.close()


async def test_a_file_that_is_no_database_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "telemetry").mkdir()
    (tmp_path / "telemetry" / "t.db").write_bytes(b"rubbish" * 1000)
    store = _store(tmp_path)
    store.take_logs(_logs(), SENDER)
    assert (await _ask(store, "flows"))["total"] == 1
    await store.close()


async def test_counts_are_of_the_time_asked_about(tmp_path: Path) -> None:
    now = [NOW_MS - 10 * 3_600_000]
    store = Store(tmp_path / "t.db", Limits(), now_ms=lambda: now[0])
    store.take_logs(_logs(4), SENDER)  # told with a time in the future: it is now
    now[0] = NOW_MS
    store.take_logs(_logs(1), SENDER)
    (flow,) = (await _ask(store, "flows", since="2h"))["flows"]
    assert flow["count"] == 1
    (flow,) = (await _ask(store, "flows"))["flows"]
    assert flow["count"] == 5
    await store.close()


async def test_the_disk_is_bounded(tmp_path: Path) -> None:
    most = 2 * 1024 * 1024
    store = _store(tmp_path, disk_bytes=most, spans_per_second=1_000_000, span_age=timedelta(days=40_000))
    for number in range(30):
        store.take_traces(_spans(*(b"%08d%08d" % (number, at) for at in range(50)), size=4_000), SENDER)
        await store.flush()
    health = await _ask(store, "health")
    assert health["received"]["spans"] == 1_500
    assert health["diskBytes"] <= most
    assert (tmp_path / "telemetry" / "t.db").stat().st_size <= most
    newest = (await _ask(store, "trace", id=(b"%08d%08d" % (29, 49)).hex()))["spans"]
    assert len(newest) == 1, "the oldest go"
    store.take_logs(_logs(), SENDER)
    assert (await _ask(store, "flows"))["total"] == 1
    await store.close()


async def test_less_room_than_before_makes_the_file_smaller(tmp_path: Path) -> None:
    many = {"spans_per_second": 1_000_000, "span_age": timedelta(days=40_000)}
    store = _store(tmp_path, **many)
    for number in range(10):
        store.take_traces(_spans(*(b"%08d%08d" % (number, at) for at in range(50)), size=4_000), SENDER)
    await store.close()
    file, most = tmp_path / "telemetry" / "t.db", 1024 * 1024
    assert file.stat().st_size > most
    store = _store(tmp_path, disk_bytes=most, **many)
    assert file.stat().st_size <= most
    newest = (await _ask(store, "trace", id=(b"%08d%08d" % (9, 49)).hex()))["spans"]
    assert len(newest) == 1, "the oldest go"
    store.take_traces(_spans(b"a" * 16), SENDER)
    await store.close()
    assert file.stat().st_size <= most


def test_bounds_go_with_the_room_that_is_granted() -> None:
    assert Room().limits() == Limits()
    wide = Room(disk=512 * MEBIBYTE, memory=256 * MEBIBYTE, age=timedelta(hours=24)).limits()
    assert (wide.disk_bytes, wide.spans, wide.record_age) == (512 * MEBIBYTE, 400_000, timedelta(hours=24))
    assert (wide.series, wide.notes, wide.queue_bytes) == (5_000, 100_000, 8 * MEBIBYTE)
    wrong: tuple[dict[str, Any], ...] = (
        {"disk": 1},
        {"memory": MEBIBYTE},
        {"age": timedelta(0)},
        {"age": timedelta(days=31)},
    )
    for little in wrong:
        with pytest.raises(ValueError, match=r"less than|not between"):
            Room(**little)


async def test_the_identity_is_the_certificates(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.take_logs(_logs(node="x", namespace="kube-system", account="admin"), SENDER)
    (flow,) = (await _ask(store, "flows"))["flows"]
    assert (flow["namespace"], flow["account"]) == ("default", "reviews")
    await store.close()


async def test_bad_questions_are_refused(tmp_path: Path) -> None:
    store = _store(tmp_path)
    path = tmp_path / "s.sock"
    async with serve_inquiries(path, store):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (await ask(path, "flows", {}))["flows"] == []
        for question, parameters, status in (
            ("nothing", {}, 404),
            ("flows", {"since": "soon"}, 400),
            ("flows", {"since": "-1h"}, 400),
            ("flows", {"limit": "many"}, 400),
            ("trace", {"id": "zz"}, 400),
        ):
            with pytest.raises(TelemetryError) as refused:
                await ask(path, question, parameters)
            assert refused.value.status == status
    with pytest.raises(TelemetryError) as gone:
        await ask(path, "flows", {})
    assert gone.value.status == 503
    await store.close()


async def test_what_does_not_fit_into_the_queue_is_counted() -> None:
    losses, taken, done = Losses(), list[bytes](), asyncio.Event()
    intake = Intake(40_000, losses)

    def handle(message: bytes, _: SpiffeId) -> None:
        if message == b"bad":
            raise DecodeError
        taken.append(message)
        if len(taken) == 2:
            done.set()

    assert intake.offer(handle, b"x" * 5_000, SENDER)
    assert not intake.offer(handle, b"x" * 5_000, SENDER), "a quarter for each"
    assert intake.offer(handle, b"bad", SENDER)
    assert intake.offer(handle, b"y", SENDER)
    running = asyncio.create_task(intake.run())
    async with asyncio.timeout(10):
        await done.wait()
    running.cancel()
    assert (losses.refused_messages, losses.refused_bytes, losses.unreadable) == (1, 5_000, 1)
    assert intake.held_bytes == 0


def test_whole_traces_are_left_out_when_there_are_too_many() -> None:
    now = [0.0]
    share = TraceShare(100, lambda: now[0])
    traces = [bytes(12) + (number * 0x01010101 % 2**32).to_bytes(4) for number in range(256)]
    for second in range(3):
        now[0] = float(second)
        kept = [trace for trace in traces for _ in range(4) if share.take(trace, "a")]
    assert 50 < len(kept) < 150, "about a tenth of 1,024 spans a second"
    assert all(kept.count(trace) == 4 for trace in kept)


def test_who_sends_little_loses_nothing_to_who_sends_much() -> None:
    assert level([5, 50, 500], 100) == 47
    assert level([5, 50], 100) == 50
    assert level([], 100) == 100
    now = [0.0]
    share = TraceShare(100, lambda: now[0])
    for second in range(3):
        now[0] = float(second)
        loud = sum(share.take(bytes(12) + (n * 0x00FEDCBB % 2**32).to_bytes(4), "loud") for n in range(1_000))
        assert all(share.take(bytes(12) + b"\xff\xff\xff\xff", "quiet") for _ in range(20))
    assert 40 < loud < 120, "about 80"


async def test_messages_are_read_by_turns() -> None:
    other, taken, done = SpiffeId("cluster.local", "default", "other"), list[bytes](), asyncio.Event()

    def handle(message: bytes, _: SpiffeId) -> None:
        taken.append(message)
        if len(taken) == 4:
            done.set()

    intake = Intake(100_000, Losses())
    for message, sender in ((b"1", SENDER), (b"2", SENDER), (b"3", SENDER), (b"4", other)):
        assert intake.offer(handle, message, sender)
    running = asyncio.create_task(intake.run())
    async with asyncio.timeout(10):
        await done.wait()
    running.cancel()
    assert taken == [b"1", b"4", b"2", b"3"]


def _by_owner(table: str, archive: Archive) -> list[Any]:
    return archive.ask(f"SELECT owner, count(*) FROM {table} GROUP BY owner")


async def test_who_floods_pushes_out_its_own_records_and_spans_only(tmp_path: Path) -> None:
    other = SpiffeId("cluster.local", "default", "other")
    store = _store(tmp_path, records=100, spans=100, spans_per_second=400)
    for sender, count in ((other, 20), (SENDER, 5_000), (other, 1)):
        store.take_logs(_logs(count), sender)
        store.take_traces(_spans(*(number.to_bytes(16) for number in range(count))), sender)
        await store.flush()
        await store.on_archive(lambda archive: archive.trim(1_000))
    for table in ("record", "span"):
        rows = await store.on_archive(partial(_by_owner, table))
        assert dict(rows) == {str(SENDER): 79, str(other): 21}
    assert await store.on_archive(lambda archive: archive.drop_oldest())
    rows = await store.on_archive(
        lambda archive: archive.ask("SELECT count(*) FROM record WHERE owner = ?", (str(other),))
    )
    assert rows == [(21,)]
    await store.close()


def test_queries_are_not_kept() -> None:
    request = otlp_trace_service_v1.ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(trace_id=b"t" * 16)
    told = {
        "http.url": "http://web/users/7?token=secret#part",
        "url.path": "/users/7",
        "url.query": "token=secret",
        "note": "what? this",
    }
    span.attributes.extend(_pair(key, value) for key, value in told.items())
    (kept,) = otlp.spans(request.SerializeToString(), SENDER, lambda _: True)
    assert b"secret" not in kept.body
    attributes = otlp.describe(kept.body)["attributes"]
    assert attributes == {"http.url": "http://web/users/7", "url.path": "/users/7", "note": "what? this"}


def test_texts_that_are_none_lose_only_themselves() -> None:
    body = _logs(2, user="PLACEHOLDER")
    broken = body.replace(b"PLACEHOLDER", b"\xff\xfe\x1b[31m\xc2\x9bXY")
    with pytest.raises(DecodeError):
        otlp_logs_service_v1.ExportLogsServiceRequest.FromString(broken)
    first, second = otlp.reports(broken, SENDER, NOW_MS)
    assert first.fields["user"] == second.fields["user"] == "\ufffd\ufffd\ufffd[31m\ufffdXY"
    assert (first.fields["path"], first.trace) == ("/a", "74" * 16)


@given(st.binary(max_size=300))
def test_rubbish_is_refused_and_nothing_else(body: bytes) -> None:
    try:
        found = otlp.reports(body, SENDER, NOW_MS)
    except DecodeError:
        return
    assert all(text.isprintable() for one in found for text in one.fields.values())


def test_repairing_keeps_what_is_well() -> None:
    body = _logs(3)
    name = "opentelemetry.proto.collector.logs.v1.ExportLogsServiceRequest"
    kind = otlp_logs_service_v1.ExportLogsServiceRequest
    assert kind.FromString(repaired(body, name)) == kind.FromString(body)
    assert repaired(_spans(b"\xff" * 16), name.replace("Logs", "Trace").replace("logs", "trace")), "ids stay"
