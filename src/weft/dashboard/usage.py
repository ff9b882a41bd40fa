"""What workloads use of their hosts: CPU and memory of applications and sidecars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from weft.dashboard.page import Gap, Visit

Rows = list[dict[str, Any]]
_BAD_GATEWAY: Final = 502


async def usage(visit: Visit, namespace: str) -> Rows:
    """Each replica of a namespace, or of all, with what its parts use; none where nobody tells."""
    found = await visit.get("/weft/v1/usage", {"namespace": namespace} if namespace else {})
    if not found:
        return []
    for node, why in found["failed"].items():
        visit.gaps.append(
            Gap(f"What runs on the node {node} does not tell what it uses: {why}", status=_BAD_GATEWAY)
        )
    rows: Rows = found["usage"]
    return rows


def by_workload(rows: Rows) -> Mapping[str, dict[str, Any]]:
    """Sums by ``namespace/workload``: ``cpu`` and ``memory``, and the sidecars' part of both."""
    several: dict[str, Rows] = {}
    for row in rows:
        several.setdefault(f"{row['namespace']}/{row['workload']}", []).append(row)
    return {
        name: {
            "cpu": _sum(own, "cpu", "application", "proxy"),
            "memory": _sum(own, "memory", "application", "proxy"),
            "proxyCpu": _sum(own, "cpu", "proxy"),
            "proxyMemory": _sum(own, "memory", "proxy"),
        }
        for name, own in several.items()
    }


def _sum(rows: Iterable[Mapping[str, Any]], figure: str, *parts: str) -> float | None:
    """Of all that is known; None when nothing is."""
    known = [
        row[part][figure] for row in rows for part in parts if row[part] and row[part][figure] is not None
    ]
    return sum(known) if known else None
