"""Services: the list, and a page for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from weft.dashboard.edges import callees, callers
from weft.dashboard.page import NotFoundError, Visit, together
from weft.dashboard.usage import by_workload, usage

WINDOWS: Final = ("1m", "5m", "1h", "6h")


def window_of(visit: Visit) -> str:
    """The window that was chosen."""
    chosen = visit.query.get("window", WINDOWS[0])
    return chosen if chosen in WINDOWS else WINDOWS[0]


async def services(visit: Visit) -> Mapping[str, Any]:
    """Every service: those of the configuration, and those that were called."""
    window = window_of(visit)
    objects, workloads, series, spaces = await together(
        visit.get(_collection(visit.namespace)),
        visit.ask("workloads", window=window),
        visit.ask("series", metric="requests", by="service", since="1h"),
        namespaces(visit),
    )
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for one in objects["items"] if objects else ():
        metadata = one["metadata"]
        key = metadata.get("namespace", ""), metadata["name"]
        rows[key] = {"namespace": key[0], "name": key[1], "workloads": [], "inbound": None}
    for one in workloads["services"] if workloads else ():
        if one["name"]:
            rows[one["namespace"], one["name"]] = {
                "namespace": one["namespace"],
                "name": one["name"],
                "workloads": one["workloads"],
                "inbound": one["inbound"],
            }
    return {
        "rows": [rows[key] for key in sorted(rows)],
        "sparks": _sparks(series),
        "window": window,
        "windows": WINDOWS,
        "spaces": spaces,
    }


async def workloads(visit: Visit) -> Mapping[str, Any]:
    """Every workload that told something, with what it does and what is asked of it."""
    window = window_of(visit)
    found, series, spaces, used = await together(
        visit.ask("workloads", window=window),
        visit.ask("series", metric="requests", by="workload", since="1h"),
        namespaces(visit),
        usage(visit, visit.namespace),
    )
    rows = sorted(found["workloads"] if found else (), key=lambda one: (one["namespace"], one["workload"]))
    return {
        "rows": rows,
        "sparks": _sparks(series),
        "use": by_workload(used),
        "window": window,
        "windows": WINDOWS,
        "spaces": spaces,
    }


async def service(visit: Visit) -> Mapping[str, Any]:
    """One service: how it does, for whom, and what applies to it."""
    namespace, name = visit.path["namespace"], visit.path["name"]
    window, of = window_of(visit), f"service:{namespace}/{name}"
    asked = {"of": of, "window": window, "namespace": namespace}
    report, versions, codes, routes, edges, known = await together(
        visit.attempt(visit.readers.describe("service", namespace, name)),
        visit.ask("stat", by="version", **asked),
        visit.ask("stat", by="code", **asked),
        visit.ask("stat", by="route", **asked),
        visit.ask("edges", window=window, namespace=namespace),
        visit.ask("workloads", window=window, namespace=namespace),
    )
    own = (
        [one for one in known["services"] if (one["namespace"], one["name"]) == (namespace, name)]
        if known
        else []
    )
    if not report and report.status == 404:
        if not own:
            raise NotFoundError(f"There is no service {name} in the namespace {namespace}.")
        visit.gaps[:] = [gap for gap in visit.gaps if gap != report]
    behind = set(own[0]["workloads"]) if own else set()
    return {
        "title": name,
        "name": name,
        "space": namespace,
        "of": of,
        "report": report or None,
        "total": versions["total"] if versions else None,
        "versions": versions["rows"] if versions else [],
        "callers": callers(edges, namespace, service=name) if edges else [],
        "callees": callees(edges, namespace, behind) if edges else [],
        "codes": codes["rows"] if codes else [],
        "routes": routes["rows"] if routes else [],
        "window": window,
        "windows": WINDOWS,
    }


async def workload(visit: Visit) -> Mapping[str, Any]:
    """One workload: what is asked of it, what it asks of others, and what its proxies run."""
    namespace, name = visit.path["namespace"], visit.path["name"]
    window, of = window_of(visit), f"workload:{namespace}/{name}"
    asked = {"of": of, "window": window, "namespace": namespace}
    report, inbound, outbound, codes, edges, used = await together(
        visit.attempt(visit.readers.describe("workload", namespace, name)),
        visit.ask("stat", by="caller", **asked),
        visit.ask("stat", by="service", direction="outbound", **asked),
        visit.ask("stat", by="code", **asked),
        visit.ask("edges", window=window, namespace=namespace),
        usage(visit, namespace),
    )
    told = bool(inbound and inbound["rows"]) or bool(outbound and outbound["rows"])
    if not report and report.status == 404:
        if not told:
            raise NotFoundError(f"There is no workload {name} in the namespace {namespace}.")
        visit.gaps[:] = [gap for gap in visit.gaps if gap != report]
    return {
        "title": name,
        "name": name,
        "space": namespace,
        "of": of,
        "report": report or None,
        "total": inbound["total"] if inbound else None,
        "asks": outbound["total"] if outbound else None,
        "callers": callers(edges, namespace, workload=name) if edges else [],
        "callees": callees(edges, namespace, {name}) if edges else [],
        "codes": codes["rows"] if codes else [],
        "use": [one for one in used if name in {one["workload"], one["name"]}],
        "window": window,
        "windows": WINDOWS,
    }


async def namespaces(visit: Visit) -> list[str]:
    """Names to choose from: all that the caller may list."""
    found = await visit.get("/api/v1/namespaces")
    names = {str(one["metadata"]["name"]) for one in found["items"]} if found else set()
    return sorted(names | ({visit.namespace} if visit.namespace else set()))


def _collection(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/services" if namespace else "/api/v1/services"


def _sparks(series: Any) -> dict[str, list[float | None]]:
    return {one["key"]: one["values"] for one in series["series"]} if series else {}
