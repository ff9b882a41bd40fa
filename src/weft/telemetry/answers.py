"""Questions to the telemetry store, by name. Parameters are texts, as a URL's query has them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from weft.telemetry.charts import series
from weft.telemetry.golden import edges, stat, workloads
from weft.telemetry.otlp import describe
from weft.telemetry.store import Store
from weft.telemetry.taps import answer as answer_tap
from weft.telemetry.traces import search
from weft.telemetry.windows import BadQuestionError, Parameters
from weft.units import parse_duration

Answer = Callable[[Store, Parameters], Awaitable[dict[str, Any]]]

_LIMIT: Final = 1_000
_MOST: Final = 50_000


async def _health(store: Store, _: Parameters) -> dict[str, Any]:
    """What was received and lost since the process began, and what is kept."""
    size = await store.on_archive(lambda archive: archive.size())
    return {
        "received": store.received.to_dict(),
        "lost": store.losses.to_dict(),
        "flows": len(store.table),
        "series": len(store.series),
        "seriesMost": store.limits.series,
        "tellers": len(store.tellers),
        "diskBytes": size,
        "diskBytesMost": store.limits.disk_bytes,
        "pushedSeries": len(store.sums),
        "collectors": store.pusher.standings() if store.pusher is not None else [],
    }


async def _flows(store: Store, asked: Parameters) -> dict[str, Any]:
    """Flows, busiest first. ``since`` (duration), ``namespace``, ``workload``, ``decision``, ``limit``."""
    since = _since(store, asked)
    found = await store.flows(since)
    chosen = [
        flow
        for flow in found
        if asked.get("namespace", flow.key.namespace) == flow.key.namespace
        and asked.get("workload", flow.key.workload) == flow.key.workload
        and asked.get("decision", flow.key.decision) == flow.key.decision
    ]
    most = _number(asked, "limit", _MOST)
    return {"flows": [flow.to_dict() for flow in chosen[:most]], "total": len(chosen), "since": since}


async def _records(store: Store, asked: Parameters) -> dict[str, Any]:
    """Single requests, newest first. ``request`` (its id), ``namespace``, ``workload``, ``limit``."""
    import msgspec

    await store.flush()
    tests, values = [], []
    for name in ("request", "namespace", "workload"):
        if name in asked:
            tests.append(f"{name} = ?")
            values.append(asked[name])
    where = f"WHERE {' AND '.join(tests)}" if tests else ""
    query = f"SELECT body FROM record {where} ORDER BY id DESC LIMIT ?"  # noqa: S608 - our own names
    most = min(_number(asked, "limit", _LIMIT), _MOST)
    rows = await store.on_archive(lambda archive: archive.ask(query, (*values, most)))
    return {"records": [msgspec.json.decode(body) for (body,) in rows]}


async def _trace(store: Store, asked: Parameters) -> dict[str, Any]:
    """The spans of one trace (``id``, in hex), in the order of their beginning."""
    await store.flush()
    try:
        known = bytes.fromhex(asked.get("id", ""))
    except ValueError as error:
        raise BadQuestionError("id: a trace is 32 hex digits") from error
    query = "SELECT namespace, service, instance, body FROM span WHERE trace = ? ORDER BY start LIMIT ?"
    rows = await store.on_archive(lambda archive: archive.ask(query, (known, _LIMIT)))
    return {
        "trace": known.hex(),
        "spans": [
            {"namespace": namespace, "service": service, "instance": instance, **describe(body)}
            for namespace, service, instance, body in rows
        ],
    }


async def _traces(store: Store, asked: Parameters) -> dict[str, Any]:
    """Which traces there were: see ``traces.search``."""
    await store.flush()
    now = store.now_ms()
    try:
        found: dict[str, Any] = await store.on_archive(lambda archive: search(archive, asked, now))
    except ValueError as error:
        raise BadQuestionError(str(error)) from error
    return found


async def _tap(store: Store, asked: Parameters) -> dict[str, Any]:
    """Requests that somebody watches (``weft.control.tap``): see ``taps.answer``."""
    try:
        return await answer_tap(store.taps, asked)
    except ValueError as error:
        raise BadQuestionError(str(error)) from error


QUESTIONS: Final[Mapping[str, Answer]] = {
    "health": _health,
    "flows": _flows,
    "records": _records,
    "trace": _trace,
    "traces": _traces,
    "workloads": workloads,
    "stat": stat,
    "edges": edges,
    "series": series,
    "tap": _tap,
}

# Those that can be asked of one namespace, by whoever may look at it alone.
OF_NAMESPACE: Final = frozenset({"flows", "records", "workloads", "stat", "edges", "series"})


def _since(store: Store, asked: Parameters) -> int:
    """The beginning of the time asked for, in ms since the epoch; 0 for all of it."""
    text = asked.get("since")
    if not text:
        return 0
    try:
        age = parse_duration(text)
    except ValueError as error:
        raise BadQuestionError(f"since: {error}") from error
    if age <= timedelta(0):
        raise BadQuestionError(f"since: {text!r} is not in the past: write a duration, like '24h'")
    return max(1, store.now_ms() - int(age.total_seconds() * 1_000))


def _number(asked: Parameters, name: str, default: int) -> int:
    text = asked.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:9]) <= _MOST):
        raise BadQuestionError(f"{name}: {text[:20]!r} is not a number from 1 to {_MOST}")
    return int(text[:9])
