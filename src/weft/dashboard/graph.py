"""Who calls whom, drawn: the page of the live service graph. static/graph.js lays it out and draws it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from weft.dashboard.filters import WINDOWS, window_of
from weft.dashboard.page import Visit, together

_SIGNALS: Final = ("requests", "rps", "errors", "success", "p95", "mtls", "opened", "connections")
_WHO: Final = ("namespace", "workload", "app", "version", "principal", "kind")
_WORKLOAD: Final = (
    "namespace", "workload", "app", "version", "kind", "principals", "services", "instances",
)  # fmt: skip


async def graph(visit: Visit) -> Mapping[str, Any]:
    """``edges`` for the table, ``drawing`` for the drawing."""
    window = window_of(visit.query)
    edges, workloads, everywhere = await together(
        visit.ask("edges", window=window),
        visit.ask("workloads", window=window),
        visit.get("/weft/v1/telemetry/workloads", {"window": "1m"}) if visit.namespace else _nothing(),
    )
    told = edges["edges"] if edges else []
    known = workloads["workloads"] if workloads else []
    named = [*known, *(everywhere["workloads"] if everywhere else [])]
    return {
        "edges": told,
        "drawing": json.dumps(_drawn(told, known, workloads["services"] if workloads else [])),
        "empty": not told and not known,
        "namespaces": sorted({one["namespace"] for one in named if one["namespace"]} | _chosen(visit)),
        "window": window,
        "windows": WINDOWS,
    }


async def _nothing() -> None:
    return None


def _chosen(visit: Visit) -> set[str]:
    return {visit.namespace} if visit.namespace else set()


def _drawn(
    edges: Iterable[Mapping[str, Any]],
    workloads: Iterable[Mapping[str, Any]],
    services: Iterable[Mapping[str, Any]],
) -> dict[str, Any]:
    """What the drawing needs of the answers, so that little is sent every few seconds."""
    return {
        "edges": [
            {
                **_some(edge, (*_SIGNALS, "service", "protocol", "secured")),
                "source": _some(edge["source"], _WHO),
                "destination": _some(edge["destination"], _WHO),
            }
            for edge in edges
        ],
        "workloads": [
            {**_some(one, _WORKLOAD), "inbound": _some(one["inbound"], _SIGNALS)} for one in workloads
        ],
        "services": [
            {**_some(one, ("name", "namespace")), "inbound": _some(one["inbound"], _SIGNALS)}
            for one in services
        ],
    }


def _some(told: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: told[name] for name in names}
