"""By route and by path: estimated from the sampled records of requests, since metrics know neither."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
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
_ROUTE: Final = "route"
_ROUTER: Final = "router"
_GATEWAYS: Final = '"kind":"router"'
_ANSWERED: Final = "via_upstream"

Record = Mapping[str, Any]


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
    query = (
        "SELECT body FROM record WHERE time >= ? AND (? = '' OR namespace = ? OR instr(body, ?))"
        " ORDER BY id DESC LIMIT ?"
    )
    values = (since, namespace, namespace, _GATEWAYS, _MOST_RECORDS)
    rows = await store.on_archive(lambda archive: archive.ask(query, values))
    records = [msgspec.json.decode(body, type=dict[str, Any]) for (body,) in rows]
    oldest = min((int(record["time"]) for record in records), default=now_ms)
    found: dict[str, tuple[Signals, list[int]]] = {}
    total = Signals()
    for record in _once([one for one in records if _HTTP in one], chosen, by):
        signals, kept = found.setdefault(_name(store, record, by, whole=not chosen.name), (Signals(), [0]))
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


def _once(records: Sequence[Record], chosen: Selection, by: str) -> list[Record]:
    """Those that are asked about, none for the same request twice: gateways tell of it, and who is called.

    Routes have names where a choice is made, at the gateway; paths are what the called workload was asked.
    A gateway in another namespace is believed to call a service when the service's own proxies saw it.
    """
    wanted = [one for one in records if _wanted(one, chosen)]
    if by != _ROUTE:
        return wanted if chosen.name else [one for one in wanted if not _is_passed_on(one)]
    seen = {_account(str(one.get("source", ""))) for one in wanted}
    told = [
        one for one in records if one["kind"] == _ROUTER and _teller(one) in seen and _is_for(one, chosen)
    ]
    gateways = {_teller(one) for one in told}
    at_home = [one for one in wanted if one["kind"] != _ROUTER or _teller(one) not in gateways]
    return [*told, *(one for one in at_home if _account(str(one.get("source", ""))) not in gateways)]


def _is_passed_on(record: Record) -> bool:
    return record["kind"] == _ROUTER and record.get("details") == _ANSWERED


def _is_for(record: Record, chosen: Selection) -> bool:
    """Whether a gateway tells of a call to what is asked about."""
    if chosen.kind == "workload" or not chosen.name:
        return not chosen.name and chosen.namespace in {"", record["namespace"]}
    return str(record.get("service", "")).startswith(f"{chosen.name}.{chosen.of_namespace}.svc.")


def _teller(record: Record) -> str:
    return f"{record['namespace']}/sa/{record['account']}"


def _account(principal: str) -> str:
    """``NAMESPACE/sa/ACCOUNT`` of an identity."""
    return principal.rpartition("/ns/")[2]


def _wanted(record: Record, chosen: Selection) -> bool:
    home = chosen.of_namespace or chosen.namespace
    if (home and record["namespace"] != home) or chosen.namespace not in {"", record["namespace"]}:
        return False
    if not chosen.name:
        return True
    host = f"{chosen.name}.{chosen.of_namespace}.svc."
    if chosen.kind != "workload" and str(record.get("service", "")).startswith(host):
        return True
    names = {record["workload"], record["instance"], record.get("own_workload", "")}
    return chosen.kind != "service" and chosen.name in names


def _name(store: Store, record: Record, by: str, *, whole: bool) -> str:
    """``whole``: of all services, whose routes may have the same name."""
    if by == _ROUTE:
        route, service = str(record.get("route", "")), str(record.get("service", ""))
        name, _, rest = service.partition(".")
        home = rest.partition(".svc.")[0] if ".svc." in rest else ""
        return f"{home}/{name} {route}".rstrip() if whole and home else route
    good = outcome(str(record.get("code", "")), "") == "ok" and record["decision"] == "allow"
    path = store.table.template(
        record["namespace"], record["workload"], str(record.get("path", "")), good=good
    )
    return f"{record['method']} {path}"


def _row(record: Record) -> tuple[SeriesKey, Row]:
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
