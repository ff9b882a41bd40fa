"""Traces: which there were, and what became of one request on its way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from weft.dashboard.figures import link
from weft.dashboard.page import NotFoundError, Visit, together
from weft.units import parse_duration

SINCE: Final = {"5m": "Last 5 minutes", "15m": "Last 15 minutes", "1h": "Last hour", "6h": "Last 6 hours"}
ORDERS: Final = {"newest": "Newest first", "slowest": "Slowest first"}
_SINCE: Final = "1h"
_ID_HEX: Final = 32
_HUES: Final = 6
_NAMED: Final = 4
_NOBODY: Final[Mapping[str, Any]] = {"workloads": []}
_OFF: Final = frozenset({"", "0", "false"})
_REQUEST_ID: Final = "guid:x-request-id"
# Said elsewhere in the row, or of no use to anybody.
_KNOWN: Final = frozenset({"http.url", "http.method", "http.status_code", "response_flags", "component"})


async def traces(visit: Visit) -> Mapping[str, Any]:
    """The form, and the traces that fit: of a time before now, or of a moment that a chart showed."""
    query = visit.query
    since = query.get("since") or query.get("window", "")
    order = query.get("sort", "")
    chosen = {
        "since": since if since in SINCE else _SINCE,
        "sort": order if order in ORDERS else "newest",
        "errors": query.get("errors", "") not in _OFF,
        "moment": _moment(query),
    }
    flaw, asked = _asked(query, chosen)
    known, found, one = await together(
        visit.get("/weft/v1/telemetry/workloads", {"window": "1h"}),
        visit.get("/weft/v1/telemetry/traces", asked) if not flaw else _none(),
        _by_id(visit),
    )
    rows = found["traces"] if found else []
    return {
        **chosen,
        "flaw": flaw,
        "rows": rows,
        "one": one,
        "most": max((row["duration"] for row in rows), default=0) or 1,
        "named": _NAMED,
        "services": sorted(
            {f"{one['namespace']}/{one['app'] or one['workload']}" for one in (known or _NOBODY)["workloads"]}
        ),
        "sinces": SINCE,
        "orders": ORDERS,
        "elsewhere": {name: query[name] for name in ("from", "to") if chosen["moment"]},
    }


def _asked(query: Mapping[str, str], chosen: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """What is wrong with the form, and the question that it makes."""
    asked = {"sort": chosen["sort"], "limit": "100"}
    if chosen["moment"]:
        asked |= {"from": query["from"], "to": query["to"]}
    else:
        asked["since"] = chosen["since"]
    if chosen["errors"]:
        asked["errors"] = "true"
    if name := query.get("service", "").strip():
        asked["service"] = name
    for field, parameter in (("min", "slow"), ("max", "most")):
        if text := query.get(field, "").strip():
            try:
                parse_duration(text)
            except ValueError as error:
                return str(error), {}
            asked[parameter] = text
    return "", asked


def _moment(query: Mapping[str, str]) -> tuple[int, int] | None:
    """The time between ``from`` and ``to``, in ms since the epoch."""
    first, last = query.get("from", ""), query.get("to", "")
    if not all(text.isascii() and text.isdecimal() and len(text) < 15 for text in (first, last)):
        return None
    return int(first), int(last)


async def _none() -> None:
    return None


async def _by_id(visit: Visit) -> Mapping[str, Any] | None:
    """The trace whose id was typed: ``found`` says whether there is one."""
    name = visit.query.get("id", "").strip().lower()
    if not name:
        return None
    if not _is_id(name):
        return {"id": name, "found": False, "why": f"A trace is {_ID_HEX} hex digits."}
    answer = await visit.attempt(visit.readers.trace(name))
    return {"id": name, "found": bool(answer and answer["rows"]), "why": "No span of it was kept."}


def _is_id(text: str) -> bool:
    return len(text) == _ID_HEX and all(letter in "0123456789abcdef" for letter in text)


async def trace(visit: Visit) -> Mapping[str, Any]:
    """One trace: its spans below each other, and what proxies wrote down of its requests.

    Raises:
        NotFoundError: nothing is known of it.
    """
    name = visit.path["id"].lower()
    if not _is_id(name):
        raise NotFoundError(f"A trace is {_ID_HEX} hex digits.")
    found = await visit.attempt(visit.readers.trace(name))
    if found and not found["rows"]:
        raise NotFoundError("Nothing is known of this trace: it was not sampled, or is too old.")
    rows = found["rows"] if found else []
    begins = min((row["startUs"] for row in rows), default=0)
    length = max((row["offset"] + row["duration"] for row in rows), default=0) or 1
    requests = list(dict.fromkeys(filter(None, (row["attributes"].get(_REQUEST_ID, "") for row in rows))))
    records = await _records(visit, requests[:3])
    names = list(dict.fromkeys(f"{row['namespace']}/{row['service']}" for row in rows))
    return {
        "id": name,
        "rows": [_shown(row, length, names, depth) for row, depth in zip(rows, _ends(rows), strict=True)],
        "root": rows[0] if rows else None,
        "began": begins // 1000,
        "length": length,
        "failed": sum(1 for row in rows if row["failed"]),
        "services": names,
        "ticks": [length * step / 4 for step in range(5)],
        "requests": requests,
        "records": records,
    }


async def _records(visit: Visit, requests: Sequence[str]) -> list[Mapping[str, Any]]:
    """What the proxies that enforce policies wrote down of these requests, in the order of time."""
    found: list[Mapping[str, Any]] = []
    for request in requests:
        answer = await visit.get("/weft/v1/telemetry/records", {"request": request})
        found += answer["records"] if answer else []
    return sorted(found, key=lambda record: record.get("time", 0))


def _ends(rows: Sequence[Mapping[str, Any]]) -> list[bool]:
    """For each row, whether others are below it."""
    following = [*rows[1:], {"depth": -1}]
    return [below["depth"] > row["depth"] for row, below in zip(rows, following, strict=True)]


def _shown(row: Mapping[str, Any], length: float, names: Sequence[str], parent: bool) -> dict[str, Any]:
    """A row as the template has it; ``x`` and ``width`` in thousandths of the whole."""
    said = row["attributes"]
    name = f"{row['namespace']}/{row['service']}"
    width = max(3.0, 1000 * row["duration"] / length)
    role = _role(row)
    return {
        **row,
        "name": name,
        "role": role,
        "parent": parent,
        "hue": 1 + names.index(name) % _HUES,
        "x": round(min(1000 - width, 1000 * row["offset"] / length), 1),
        "width": round(width, 1),
        "explain": _explain(row, role),
        "url": _url(said),
        "tags": sorted((key, value) for key, value in said.items() if key not in _KNOWN),
    }


def _role(row: Mapping[str, Any]) -> str:
    """Who told of it: a proxy as ``gateway``, ``inbound`` or ``outbound``; empty for an application."""
    said = row["attributes"]
    if said.get("component") != "proxy":
        return ""
    if said.get("node_id", "").startswith("router~"):
        return "gateway"
    return (
        "inbound"
        if said.get("upstream_cluster", "").startswith("inbound|") or row["kind"] == "server"
        else "outbound"
    )


def _url(said: Mapping[str, str]) -> str:
    """Without its query, which may hold secrets."""
    return said.get("http.url", "").partition("?")[0].partition("#")[0]


def _explain(row: Mapping[str, Any], role: str) -> str:
    """Where to ask what became of such a request; empty for what no proxy told."""
    said = row["attributes"]
    url = _url(said)
    if not role or not url:
        return ""
    parts = urlsplit(url)
    address = f"{parts.scheme or 'http'}://{parts.netloc}{parts.path or '/'}"
    return link(
        "explain",
        role="workload" if role == "outbound" else role,
        **{"from": f"{row['namespace']}/{row['instance'] or row['service']}"},
        method=said.get("http.method", ""),
        url=address,
        principal=said.get("weft.source", "") if role == "inbound" else "",
    )
