"""By route and by path: estimated from the sampled records of requests, since metrics know neither."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from weft.telemetry.histogram import BOUNDS
from weft.telemetry.rows import DURATION_US, FIRST_BUCKET, REQUESTS, WIDTH, Row, pack
from weft.telemetry.selection import OUTBOUND, Selection
from weft.telemetry.series import SeriesKey
from weft.telemetry.signals import Signals, outcome
from weft.telemetry.store import Store
from weft.telemetry.windows import BadQuestionError

_MOST_RECORDS: Final = 20_000
_WHOLE: Final = 1_000_000
_HTTP: Final = "method"


def _number(text: object) -> int:
    return (
        int(text) if isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) < 12 else 0
    )


async def estimate(store: Store, chosen: Selection, by: str, length_ms: int) -> dict[str, Any]:
    """Rows by route or by path of what the called workload told about; outbound there are no records.

    Raises:
        BadQuestionError: it is asked about what a workload calls.
    """
    if chosen.direction == OUTBOUND:
        raise BadQuestionError(
            f"by={by} is known of calls to a workload only: ask for inbound, or leave out by"
        )
    await store.flush()
    now_ms = store.now_ms()
    since = now_ms - length_ms
    namespace = chosen.of_namespace or chosen.namespace
    query = "SELECT body FROM record WHERE time >= ? AND (? = '' OR namespace = ?) ORDER BY id DESC LIMIT ?"
    values = (since, namespace, namespace, _MOST_RECORDS)
    rows = await store.on_archive(lambda archive: archive.ask(query, values))
    found: dict[str, tuple[Signals, list[int]]] = {}
    total = Signals()
    oldest = now_ms
    for (body,) in rows:
        record = msgspec.json.decode(body, type=dict[str, Any])
        oldest = min(oldest, int(record["time"]))
        if _HTTP not in record or not _wanted(record, chosen):
            continue
        signals, kept = found.setdefault(_name(store, record, by), (Signals(), [0]))
        key, row = _row(record)
        signals.count(key, row, last=int(record["time"]))
        total.count(key, row)
        kept[0] += 1
    # With more records than are looked at, the window is shorter.
    begin = oldest if len(rows) == _MOST_RECORDS else since
    window_ms = now_ms - begin
    return {
        "from": begin,
        "to": now_ms,
        "window": window_ms,
        "sampled": True,
        "rows": [
            {"key": name, "kept": kept[0], "seenBy": "destination", **signals.to_dict(window_ms)}
            for name, (signals, kept) in sorted(found.items(), key=lambda item: (-item[1][0].calls, item[0]))
        ],
        "total": total.to_dict(window_ms),
    }


def _wanted(record: Mapping[str, Any], chosen: Selection) -> bool:
    if chosen.namespace and record["namespace"] != chosen.namespace:
        return False
    if not chosen.name:
        return True
    host = f"{chosen.name}.{chosen.of_namespace}.svc."
    if chosen.kind != "workload" and str(record.get("service", "")).startswith(host):
        return True
    names = {record["workload"], record["instance"], record.get("own_workload", "")}
    return chosen.kind != "service" and chosen.name in names


def _name(store: Store, record: Mapping[str, Any], by: str) -> str:
    if by == "route":
        return str(record.get("route", ""))
    good = outcome(str(record.get("code", "")), "") == "ok" and record["decision"] == "allow"
    path = store.table.template(
        record["namespace"], record["workload"], str(record.get("path", "")), good=good
    )
    return f"{record['method']} {path}"


def _row(record: Mapping[str, Any]) -> tuple[SeriesKey, Row]:
    """A record as that many requests as it stands for."""
    code, grpc = str(record.get("code", "")), str(record.get("grpc", ""))
    key = SeriesKey(
        "destination", "workload", "", "", "", "", "",
        secured="mtls" if record.get("source") else "none", code=code, grpc=grpc,
    )  # fmt: skip
    share = min(_WHOLE, _number(record.get("share"))) or _WHOLE
    always = outcome(code, grpc) != "ok" or record["decision"] == "deny"
    weight = 1 if always else round(_WHOLE / share)
    duration = _number(record.get("duration"))
    row = [0] * WIDTH
    row[REQUESTS], row[DURATION_US] = weight, weight * duration * 1_000
    row[FIRST_BUCKET + bisect_left(BOUNDS, duration)] = weight
    return key, pack(row)
