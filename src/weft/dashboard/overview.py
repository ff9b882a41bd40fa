"""Is the mesh well, what departs from the hour before, and what changed?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from weft.dashboard import figures
from weft.dashboard.certificates import ending
from weft.dashboard.departures import departures
from weft.dashboard.page import Visit, together
from weft.dashboard.services import namespaces

_WORST: Final = ("NACK", "STALE")
_BUSIEST: Final = 6


async def overview(visit: Visit) -> Mapping[str, Any]:
    """The first page."""
    workloads, recent, hour, changes, authority, state, proxies, findings, spaces = await together(
        visit.ask("workloads"),
        visit.ask("stat", by="service", window="5m"),
        visit.ask("stat", by="service", window="1h"),
        visit.get("/weft/v1/telemetry/changes", {"since": "1h", "limit": "100"}),
        visit.get("/weft/v1/ca"),
        visit.get("/weft/v1/convergence/0"),
        visit.get("/weft/v1/proxies"),
        visit.attempt(visit.readers.findings()),
        namespaces(visit),
    )
    rows = [row for row in proxies["proxies"] if visit.namespace in {"", row["namespace"]}] if proxies else []
    concerns = [
        *(_departed(recent, hour) if recent and hour else ()),
        *(_proxies(rows)),
        *(_certificates(authority) if authority else ()),
        *(_findings(findings) if findings else ()),
    ]
    concerns.sort(key=lambda one: one["level"] != "bad")
    return {
        "total": workloads["total"] if workloads else None,
        "services": sorted(workloads["services"], key=_busy)[:_BUSIEST] if workloads else [],
        "counts": {
            "services": len(workloads["services"]) if workloads else None,
            "workloads": len(workloads["workloads"]) if workloads else None,
            "proxies": len(rows) if proxies else None,
        },
        "concerns": concerns,
        "changes": changes["changes"] if changes else None,
        "state": state or None,
        "spaces": spaces,
    }


def _busy(row: Mapping[str, Any]) -> tuple[float, str]:
    return -(row["inbound"]["rps"] or 0), row["name"]


def _concern(level: str, what: str, detail: str, href: str, time_ms: object = None) -> dict[str, Any]:
    return {"level": level, "what": what, "detail": detail, "href": href, "time": time_ms}


def _departed(recent: Mapping[str, Any], hour: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for one in departures(recent["rows"], hour["rows"]):
        show = figures.share if one.what == "success" else figures.milliseconds
        what = f"{one.name}: {'more requests fail' if one.what == 'success' else 'slower than before'}"
        before = f", {show(one.before)} in the hour before" if one.before is not None else ""
        word = "success" if one.what == "success" else "p95"
        yield _concern(
            "bad" if one.what == "success" else "fair",
            what,
            f"{word} {show(one.now)} in the last 5 minutes{before}",
            figures.link("services", one.namespace, one.name),
        )


def _proxies(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        for kind, status in row["types"].items():
            if status["status"] in _WORST:
                refused = status["status"] == "NACK"
                yield _concern(
                    "bad" if refused else "fair",
                    f"{row['name']} {'refuses' if refused else 'has not yet confirmed'} its {kind.upper()}",
                    status["error"] or "sent, and not acknowledged so far",
                    figures.link("proxies", row["namespace"], row["name"]),
                    (status["sentAt"] or 0) * 1000 or None,
                )


def _certificates(authority: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    now = time.time() * 1000
    for one in ending(authority, now):
        over = (figures.instant(one["notAfter"]) or 0) < now
        yield _concern(
            "bad" if over else "fair",
            f"the certificate of {one['part']} {'is over' if over else 'ends within the hour'}",
            f"on the node {one['node']}",
            "/security",
            one["notAfter"],
        )
    for warning in authority["warnings"]:
        yield _concern("fair", "the authority", str(warning), "/security")
    for node in authority["nodes"]:
        if not node["connected"]:
            yield _concern("fair", f"the node {node['name']} is not connected", "", "/security")


def _findings(findings: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    errors = [one for one in findings if one["level"] == "Error"]
    for one in errors[:_BUSIEST]:
        yield _concern("bad", one["origin"] or one["code"], one["message"], "/configuration")
    if len(findings) > len(errors[:_BUSIEST]):
        more = len(findings) - len(errors[:_BUSIEST])
        what = f"{more} {'finding' if more == 1 else 'findings'} about the configuration"
        yield _concern("fair", what, "", "/configuration")
