"""Is the mesh well, what departs from the hour before, and what changed?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from weft.dashboard.certificates import newest
from weft.dashboard.concerns import of_certificates, of_denials, of_departures, of_findings, of_proxies
from weft.dashboard.departures import Departure, departures, worst
from weft.dashboard.edges import as_called, by_callers
from weft.dashboard.filters import WINDOWS, charted, window_of
from weft.dashboard.onset import onset
from weft.dashboard.page import Visit, together
from weft.dashboard.readers import ReadError
from weft.dashboard.services import denied_lately, namespaces

_BUSIEST: Final = 6
_DATED: Final = 3
_LATELY: Final = "2m"
_PART: Final = 2 / 60
# Whoever waits for the page does not wait for what the nodes use: its first update has it.
_WAITED_S, _PATIENCE_S = 0.15, 3.0
_UNKNOWN: Final = dict.fromkeys(("cpu", "memory", "proxyCpu", "proxyMemory"))


async def overview(visit: Visit) -> Mapping[str, Any]:
    """The first page."""
    window = window_of(visit.query)
    departed_own, departed_callers, changes, flows, findings, used, *others = await together(
        _departed(visit),
        _departed(visit, seen="source"),
        _changes(visit),
        denied_lately(visit, _LATELY, visit.namespace),
        visit.attempt(visit.readers.findings()),
        _used(visit),
        visit.ask("workloads", window=window),
        visit.ask("stat", by="protocol", window=window),
        visit.ask("stat", by="service", seen="source", window=window),
        visit.get("/weft/v1/ca"),
        visit.get("/weft/v1/ca/certificates"),
        visit.get("/weft/v1/convergence/0"),
        visit.get("/weft/v1/proxies"),
        namespaces(visit),
    )
    known, signals, seen, authority, issued, state, proxies, spaces = others
    rows = [row for row in proxies["proxies"] if visit.namespace in {"", row["namespace"]}] if proxies else []
    departed = worst(departed_own, departed_callers)
    begun = await together(*(_begun(visit, one) for one in departed[:_DATED]))
    concerns = [
        *of_departures(departed, begun, changes or ()),
        *of_denials(flows),
        *of_proxies(rows),
        *(of_certificates(authority) if authority else ()),
        *(of_findings(findings) if findings else ()),
    ]
    concerns.sort(key=lambda one: one["level"] != "bad")
    identities = newest(issued["certificates"], time.time() * 1000) if issued else None
    return {
        "total": signals["total"] if signals else None,
        "services": _busiest(known["services"], by_callers(seen["rows"]) if seen else {}) if known else [],
        "counts": {
            "services": len(known["services"]) if known else None,
            "workloads": len(known["workloads"]) if known else None,
            "proxies": len(rows) if proxies else None,
        },
        "used": _sums(used["usage"]) if used else _UNKNOWN,
        "concerns": concerns,
        "revisions": by_revision(changes) if changes is not None else None,
        "state": state or None,
        "authority": authority or None,
        "identities": identities,
        "findings": len(findings) if isinstance(findings, list) else None,
        "spaces": spaces,
        "window": window,
        "windows": WINDOWS,
        "since": charted(window),
    }


async def _departed(visit: Visit, **more: str) -> tuple[Departure, ...]:
    recent, hour = await together(
        visit.ask("stat", by="service", window=_LATELY, **more),
        visit.ask("stat", by="service", window="1h", **more),
    )
    return departures(recent["rows"], hour["rows"], _PART) if recent and hour else ()


async def _changes(visit: Visit) -> list[Any] | None:
    """None for whoever may not know them."""
    found = await visit.get("/weft/v1/telemetry/changes", {"since": "1h", "limit": "200"})
    return found["changes"] if found else None


async def _begun(visit: Visit, one: Departure) -> float | None:
    """When failures began, in ms; None for what else departs, or when it is longer ago than an hour."""
    if one.what != "success" or not one.namespace:
        return None
    answer = await visit.ask(
        "series", metric="errors", of=f"service:{one.namespace}/{one.name}", since="1h", seen="source",
        namespace="",
    )  # fmt: skip
    return onset(answer["times"], answer["series"][0]["values"]) if answer and answer["series"] else None


async def _used(visit: Visit) -> Any:
    """What workloads use; None where that takes too long or may not be known."""
    asked = {"namespace": visit.namespace} if visit.namespace else {}
    with suppress(TimeoutError, ReadError):
        async with asyncio.timeout(_WAITED_S if visit.waited else _PATIENCE_S):
            return await visit.readers.get("/weft/v1/usage", asked)
    return None


def _sums(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """CPU and memory of all applications and sidecars, and of the sidecars alone."""
    found = {"cpu": 0.0, "memory": 0.0, "proxyCpu": 0.0, "proxyMemory": 0.0}
    for row in rows:
        for part in ("application", "proxy"):
            for figure in ("cpu", "memory"):
                value = (row[part] or {}).get(figure) or 0
                found[figure] += value
                if part == "proxy":
                    found[f"proxy{figure.capitalize()}"] += value
    return found


def by_revision(changes: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Changes that were made at once as one: ``changes`` of the same revision, by whom and when."""
    found: dict[tuple[Any, Any, Any], dict[str, Any]] = {}
    for one in changes:
        key = one["revision"] or one["time"], one["who"], one["verb"]
        about = {name: one[name] for name in ("time", "who", "verb", "revision")}
        found.setdefault(key, {**about, "changes": []})["changes"].append(one)
    return list(found.values())


def _busiest(
    services: Iterable[Mapping[str, Any]], seen: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    first = sorted(services, key=_busy)[:_BUSIEST]
    return [
        {**one, "inbound": as_called(one["inbound"], seen.get(f"{one['namespace']}/{one['name']}"))}
        for one in first
    ]


def _busy(row: Mapping[str, Any]) -> tuple[float, str]:
    return -(row["inbound"]["rps"] or 0), row["name"]
