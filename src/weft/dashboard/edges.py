"""Calls as tables show them: edges of the graph, and services as their callers saw them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def reached(edge: Mapping[str, Any]) -> bool:
    """Whether somebody was: what a proxy answers itself (a fault, no endpoint) never leaves the caller."""
    nobody = not edge["destination"]["workload"] and edge["destination"]["kind"] == "outside"
    return not (
        nobody and edge["service"]["name"] and edge["requests"] and edge["errors"] == edge["requests"]
    )


def callers(edges: Mapping[str, Any], namespace: str, *, service: str = "", workload: str = "") -> list[Any]:
    """Edges that end at a service or at a workload, with the caller as ``who``."""
    found = []
    for one in edges["edges"]:
        to, served = one["destination"], one["service"]
        if (service and (served["namespace"], served["name"]) == (namespace, service)) or (
            workload and (to["namespace"], to["workload"]) == (namespace, workload)
        ):
            found.append({**one, "who": one["source"]})
    return found


def callees(edges: Mapping[str, Any], namespace: str, workloads: set[str]) -> list[Any]:
    """Edges that begin at one of these workloads, with the called one as ``who``."""
    return [
        {**one, "who": one["destination"] if reached(one) else {**one["destination"], "kind": "nobody"}}
        for one in edges["edges"]
        if one["source"]["namespace"] == namespace and one["source"]["workload"] in workloads
    ]


def as_called(own: Mapping[str, Any] | None, callers: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Signals of a service: what callers got where that is worse than what came. A connection that breaks, or
    that is never made, is known to them alone.
    """
    if callers is None or own is None:
        return own or callers
    return {**callers, "seenBy": "source"} if callers["errors"] > own["errors"] else own


def by_callers(rows: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Rows of ``stat`` by service, as callers saw them, by their key."""
    return {row["key"]: row for row in rows}
