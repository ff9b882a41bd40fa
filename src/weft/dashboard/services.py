"""Services: the list, and a page for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from weft.dashboard.causes import Evidence, causes, related
from weft.dashboard.decisions import denials
from weft.dashboard.edges import as_called, by_callers, callees, callers
from weft.dashboard.filters import WINDOWS, charted, window_of
from weft.dashboard.page import NotFoundError, Visit, together
from weft.dashboard.readers import ReadError
from weft.dashboard.usage import by_workload, usage

_SERVICES: Final = 3


async def services(visit: Visit) -> Mapping[str, Any]:
    """Every service: those of the configuration, and those that were called."""
    window = window_of(visit.query)
    objects, workloads, callers, series, spaces = await together(
        visit.get(_collection(visit.namespace)),
        visit.ask("workloads", window=window),
        visit.ask("stat", by="service", seen="source", window=window),
        visit.ask("series", metric="requests", by="service", since="1h"),
        namespaces(visit),
    )
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for one in objects["items"] if objects else ():
        metadata = one["metadata"]
        key = metadata.get("namespace", ""), metadata["name"]
        rows[key] = {"namespace": key[0], "name": key[1], "workloads": [], "inbound": None}
    seen = by_callers(callers["rows"]) if callers else {}
    for one in workloads["services"] if workloads else ():
        if one["name"]:
            rows[one["namespace"], one["name"]] = {
                "namespace": one["namespace"],
                "name": one["name"],
                "workloads": one["workloads"],
                "inbound": as_called(one["inbound"], seen.get(f"{one['namespace']}/{one['name']}")),
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
    window = window_of(visit.query)
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
    window, of = window_of(visit.query), f"service:{namespace}/{name}"
    asked = {"of": of, "window": window, "namespace": namespace}
    report, seen, versions, codes, routes, edges, known, findings, flows, changes = await together(
        visit.attempt(visit.readers.describe("service", namespace, name)),
        visit.ask("stat", by="protocol", seen="source", **asked),
        visit.ask("stat", by="version", **asked),
        visit.ask("stat", by="code", **asked),
        visit.ask("stat", by="route", **asked),
        visit.ask("edges", window=window, namespace=namespace),
        visit.ask("workloads", window=window, namespace=namespace),
        visit.attempt(visit.readers.findings()),
        denied_lately(visit, window, namespace),
        changes_lately(visit),
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
    calling = callers(edges, namespace, service=name) if edges else []
    called = callees(edges, namespace, behind) if edges else []
    hosts = set(report["hosts"]) if report else set()
    total = as_called(versions["total"] if versions else None, seen["total"] if seen else None)
    told = _evidence(
        visit, codes, findings, inbound=calling, outbound=called, total=total,
        reports=[report] if report else [],
        denied=denials([one for one in flows if one["service"] in hosts]),
    )  # fmt: skip
    return {
        "title": name,
        "name": name,
        "space": namespace,
        "of": of,
        "report": report or None,
        "total": total,
        "seen": (total or {}).get("seenBy", ""),
        "versions": versions["rows"] if versions else [],
        "causes": causes(told),
        "changes": related(changes, told),
        "callers": calling,
        "callees": called,
        "codes": codes["rows"] if codes else [],
        "routes": routes["rows"] if routes else [],
        "window": window,
        "windows": WINDOWS,
        "since": charted(window),
    }


async def workload(visit: Visit) -> Mapping[str, Any]:
    """One workload: what is asked of it, what it asks of others, and what its proxies run."""
    namespace, name = visit.path["namespace"], visit.path["name"]
    window, of = window_of(visit.query), f"workload:{namespace}/{name}"
    asked = {"of": of, "window": window, "namespace": namespace}
    report, inbound, outbound, codes, edges, used, findings, flows, changes = await together(
        visit.attempt(visit.readers.describe("workload", namespace, name)),
        visit.ask("stat", by="caller", **asked),
        visit.ask("stat", by="service", direction="outbound", **asked),
        visit.ask("stat", by="code", **asked),
        visit.ask("edges", window=window, namespace=namespace),
        usage(visit, namespace),
        visit.attempt(visit.readers.findings()),
        denied_lately(visit, window, namespace),
        changes_lately(visit),
    )
    heard = bool(inbound and inbound["rows"]) or bool(outbound and outbound["rows"])
    if not report and report.status == 404:
        if not heard:
            raise NotFoundError(f"There is no workload {name} in the namespace {namespace}.")
        visit.gaps[:] = [gap for gap in visit.gaps if gap != report]
    calling = callers(edges, namespace, workload=name) if edges else []
    called = callees(edges, namespace, {name}) if edges else []
    services = (report["services"] if report else ())[:_SERVICES]
    reports = await together(
        *(visit.attempt(visit.readers.describe("service", one["namespace"], one["name"])) for one in services)
    )
    known = {name, *(edge["destination"]["app"] for edge in calling)}
    # Endpoints of a service may be another workload's; its policies are in the report of its own.
    parts = [{**one, "endpoints": [], "policies": []} for one in reports if one]
    told = _evidence(
        visit, codes, findings, inbound=calling, outbound=called, total=inbound["total"] if inbound else None,
        reports=[*parts, *([report] if report else ())],
        denied=denials([one for one in flows if one["workload"] in known]),
    )  # fmt: skip
    return {
        "title": name,
        "name": name,
        "space": namespace,
        "of": of,
        "causes": causes(told),
        "changes": related(changes, told),
        "report": report or None,
        "total": inbound["total"] if inbound else None,
        "asks": outbound["total"] if outbound else None,
        "callers": calling,
        "callees": called,
        "codes": codes["rows"] if codes else [],
        "use": [one for one in used if name in {one["workload"], one["name"]}],
        "window": window,
        "windows": WINDOWS,
        "since": charted(window),
    }


def _evidence(visit: Visit, codes: Any, findings: Any, **more: Any) -> Evidence:
    """What is known of the thing that the page is about."""
    return Evidence(
        namespace=visit.path["namespace"],
        name=visit.path["name"],
        words=visit.readers.flags,
        codes=codes["rows"] if codes else [],
        findings=findings or [],
        **more,
    )


async def denied_lately(visit: Visit, window: str, namespace: str) -> list[Any]:
    """Flows of the window that a policy denied, or would in a dry run."""
    found = await visit.ask("flows", since=window, limit="500", decision="deny", namespace=namespace)
    return found["flows"] if found else []


async def changes_lately(visit: Visit) -> list[Any]:
    """What was changed within the hour; nothing for whoever may not know."""
    try:
        found = await visit.readers.get("/weft/v1/telemetry/changes", {"since": "1h", "limit": "200"})
    except ReadError:
        return []
    changes: list[Any] = found["changes"]
    return changes


async def namespaces(visit: Visit) -> list[str]:
    """Names to choose from: all that the caller may list."""
    found = await visit.get("/api/v1/namespaces")
    names = {str(one["metadata"]["name"]) for one in found["items"]} if found else set()
    return sorted(names | ({visit.namespace} if visit.namespace else set()))


def _collection(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/services" if namespace else "/api/v1/services"


def _sparks(series: Any) -> dict[str, list[float | None]]:
    return {one["key"]: one["values"] for one in series["series"]} if series else {}
