"""Which traces a search finds: by time, duration, failure, and by whom they went through."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from weft.protos import otlp_trace_v1
from weft.telemetry.archive import Archive
from weft.telemetry.limits import Limits
from weft.telemetry.otlp import Span
from weft.telemetry.traces import search

NOW = 1_800_000_000_000
HOUR = 3_600_000


def span(number: int, start_ms: int, took_ms: float, instance: str, *, failed: bool = False) -> Span:
    body = otlp_trace_v1.Span(trace_id=number.to_bytes(16), span_id=bytes(8), name=f"to {instance}")
    service = instance.partition("-")[0]
    return Span(
        number.to_bytes(16), start_ms * 1000, round(took_ms * 1000), service, instance, "shop", failed,
        body.SerializeToString(),
    )  # fmt: skip


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    made = Archive(tmp_path / "telemetry.db", Limits())
    told = [
        span(1, NOW - 30_000, 20, "front-v1-0"),
        span(1, NOW - 29_990, 8, "orders-v2-11"),
        span(2, NOW - 20_000, 400, "orders-v1-0", failed=True),
        span(3, NOW - 10_000, 90, "front-v1-0"),
        span(4, NOW - 2 * HOUR, 5, "front-v1-0"),
    ]
    made.write((), (), [("shop/somebody", one) for one in told], ())
    yield made
    made.close()


def found(archive: Archive, **asked: str) -> list[int]:
    names = {"begin": "from", "end": "to"}
    answer = search(archive, {names.get(key, key): value for key, value in asked.items()}, NOW)
    return [int(one["trace"], 16) for one in answer["traces"]]


def test_the_last_hour_newest_first(archive: Archive) -> None:
    assert found(archive) == [3, 2, 1]
    assert found(archive, sort="slowest") == [2, 3, 1]
    assert found(archive, since="3h") == [3, 2, 1, 4]


def test_a_moment_that_a_chart_showed(archive: Archive) -> None:
    assert found(archive, begin=str(NOW - 25_000), end=str(NOW - 15_000)) == [2]
    assert found(archive, begin=str(NOW - 2 * HOUR), end=str(NOW - 2 * HOUR)) == [4]
    whole = search(archive, {"from": str(NOW - 30_000), "to": str(NOW - 29_995)}, NOW)
    assert [one["spans"] for one in whole["traces"]] == [2], "spans that began later belong to it"


def test_a_duration(archive: Archive) -> None:
    assert found(archive, slow="90ms", most="100ms") == [3]
    assert found(archive, most="90ms") == [3, 1]
    assert found(archive, errors="true") == [2]


@pytest.mark.parametrize(
    ("name", "those"),
    [
        ("orders", [2, 1]), ("shop/orders", [2, 1]), ("bank/orders", []), ("shop/orders-v2", [1]),
        ("orders-v1", [2]), ("orders-v1-0", [2]), ("order", []), ("orders-", []),
    ],
)  # fmt: skip
def test_service_workload_and_replica(archive: Archive, name: str, those: list[int]) -> None:
    assert found(archive, service=name) == those


@pytest.mark.parametrize("asked", [{"from": "yesterday"}, {"to": "-1"}, {"most": "9"}, {"from": "1" * 20}])
def test_what_cannot_be_read_is_said(archive: Archive, asked: dict[str, str]) -> None:
    (name,) = asked
    with pytest.raises(ValueError, match=f"^{name}: "):
        search(archive, asked, NOW)
