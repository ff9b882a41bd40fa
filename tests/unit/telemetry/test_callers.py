"""A caller that its certificate names is that workload, whether it tells of itself or not."""

from __future__ import annotations

from pathlib import Path

from tests.unit.telemetry.test_metrics import (
    REVIEWS,
    WEB,
    Clock,
    _ask,
    _requests,
    _store,
    at_destination,
    at_source,
    clock,
    message,
)

from weft.telemetry.store import Store

__all__ = ["clock"]


def _heard(workload: str) -> dict[str, str]:
    """Labels of a call to reviews whose caller's certificate names a workload."""
    return {
        **at_destination(),
        "source_workload": workload,
        "source_workload_namespace": "front",
        "source_canonical_service": "web",
        "source_version": "v1",
    }


async def _edges(store: Store) -> dict[str, tuple[int, list[str], bool]]:
    found = (await _ask(store, "edges", window="30m"))["edges"]
    return {
        edge["source"]["workload"]: (edge["requests"], edge["toldBy"], edge["source"]["sure"])
        for edge in found
    }


async def test_two_workloads_of_one_account_are_two_callers(tmp_path: Path, clock: Clock) -> None:
    store = _store(tmp_path, clock)
    store.take_metrics(message((_heard("web"), 10), (_heard("jobs"), 3)), REVIEWS)
    asked = {"of": "workload:shop/reviews-v1", "by": "caller"}
    assert await _requests(store, **asked) == {"front/web": 10, "front/jobs": 3}
    assert await _edges(store) == {"web": (10, ["destination"], False), "jobs": (3, ["destination"], False)}
    rows = (await _ask(store, "stat", window="30m", **asked))["rows"]
    assert [(row["source"]["principal"], row["source"]["app"]) for row in rows] == [(str(WEB), "web")] * 2


async def test_what_one_of_them_tells_itself_confirms_its_own_calls_only(
    tmp_path: Path,
    clock: Clock,
) -> None:
    store = _store(tmp_path, clock)
    store.take_metrics(message((at_source(), 10)), WEB)
    store.take_metrics(message((_heard("web"), 10), (_heard("jobs"), 3)), REVIEWS)
    assert await _edges(store) == {
        "web": (10, ["source", "destination"], True),
        "jobs": (3, ["destination"], False),
    }
    rows = await _requests(store, of="workload:shop/reviews-v1", by="caller")
    assert rows == {"front/web": 10, "front/jobs": 3}


async def test_without_the_name_of_a_workload_it_is_the_principal(tmp_path: Path, clock: Clock) -> None:
    store = _store(tmp_path, clock)
    store.take_metrics(message((at_destination(), 4)), REVIEWS)
    assert await _requests(store, of="workload:shop/reviews-v1", by="caller") == {str(WEB): 4}
    store.take_metrics(message((at_source(), 4)), WEB)
    assert await _edges(store) == {"web": (4, ["source", "destination"], True)}
