"""What each proxy runs: confirmed, on its way or refused, and since when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from weft.dashboard.page import Gap, NotFoundError, Visit, together
from weft.dashboard.services import namespaces

TYPES: Final = ("lds", "rds", "cds", "eds")
SECTIONS: Final = {
    "listener": "Listeners",
    "route": "Routes",
    "cluster": "Clusters",
    "endpoint": "Endpoints",
    "secret": "Certificates",
}
_CLASSES: Final = {"SYNCED": "good", "STALE": "fair", "NACK": "bad"}


async def proxies(visit: Visit) -> Mapping[str, Any]:
    """All of them."""
    found, state, spaces = await together(
        visit.get("/weft/v1/proxies"), visit.get("/weft/v1/convergence/0"), namespaces(visit)
    )
    rows = [
        row
        for row in (found["proxies"] if found else ())
        if not visit.namespace or row["namespace"] == visit.namespace
    ]
    rows.sort(key=lambda row: (row["namespace"], row["name"]))
    return {
        "rows": rows,
        "types": TYPES,
        "classes": _CLASSES,
        "state": state or None,
        "spaces": spaces,
        "latest": max((row["revision"] or 0 for row in rows), default=0),
    }


async def proxy(visit: Visit) -> Mapping[str, Any]:
    """One of them, and a part of its configuration when one is chosen."""
    namespace, name = visit.path["namespace"], visit.path["name"]
    found = await visit.get(f"/weft/v1/proxies/{namespace}/{name}")
    if isinstance(found, Gap) and found.status == 404:
        raise NotFoundError(f"No proxy {name} of the namespace {namespace} is connected.")
    section = visit.query.get("section", "")
    table = None
    if section in SECTIONS:
        table = await visit.attempt(visit.readers.proxy_table(f"{namespace}/{name}", section)) or None
    return {
        "title": name,
        "name": name,
        "space": namespace,
        "row": found or None,
        "classes": _CLASSES,
        "sections": SECTIONS,
        "section": section if section in SECTIONS else "",
        "table": table,
    }
