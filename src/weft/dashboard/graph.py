"""Who calls whom, drawn: the page of the live service graph. static/graph.js lays it out and draws it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from weft.dashboard.filters import WINDOWS, window_of
from weft.dashboard.page import Visit, together

_SIGNALS: Final = ("requests", "rps", "errors", "success", "p95", "mtls", "opened", "connections")
_ROWS: Final = 300
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
        # Busiest first, as telemetry has them.
        "edges": told[:_ROWS],
        "left_out": max(0, len(told) - _ROWS),
        "drawing": json.dumps(
            _drawn(told, known, workloads["services"] if workloads else []), separators=(",", ":")
        ),
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
    """What the drawing needs of the answers, so that little is sent every few seconds.

    Ends of edges, and what they call, are said once: an edge has their places in ``whos`` and ``called``.
    """
    whos, called = _Once(), _Once()
    return {
        "edges": [
            {
                **_some(edge, (*_SIGNALS, "protocol", "secured")),
                "source": whos.place(_some(edge["source"], _WHO)),
                "destination": whos.place(_some(edge["destination"], _WHO)),
                "service": called.place(edge["service"]),
            }
            for edge in edges
        ],
        "whos": whos.said,
        "called": called.said,
        "workloads": [
            {**_some(one, _WORKLOAD), "inbound": _some(one["inbound"], _SIGNALS)} for one in workloads
        ],
        "services": [
            {**_some(one, ("name", "namespace")), "inbound": _some(one["inbound"], _SIGNALS)}
            for one in services
        ],
    }


class _Once:
    def __init__(self) -> None:
        self.said: list[Mapping[str, Any]] = []
        self._places: dict[tuple[Any, ...], int] = {}

    def place(self, one: Mapping[str, Any]) -> int:
        place = self._places.setdefault(tuple(one.values()), len(self.said))
        if place == len(self.said):
            self.said.append(one)
        return place


def _some(told: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: told[name] for name in names}
