"""Who is who, what is encrypted, and what policies decided."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from weft.dashboard.certificates import newest
from weft.dashboard.page import Visit, together
from weft.dashboard.services import namespaces


async def security(visit: Visit) -> Mapping[str, Any]:
    """The authority, identities, encryption by edge, and decisions."""
    authority, issued, edges, flows, spaces = await together(
        visit.get("/weft/v1/ca"),
        visit.get("/weft/v1/ca/certificates"),
        visit.ask("edges", window="1h"),
        visit.ask("flows", since="1h", limit="2000"),
        namespaces(visit),
    )
    found = flows["flows"] if flows else []
    return {
        "authority": authority or None,
        "identities": newest(issued["certificates"], time.time() * 1000) if issued else None,
        "edges": sorted(edges["edges"], key=_plain_first) if edges else None,
        "policies": decisions(found),
        "denied": sorted(
            (one for one in found if one["decision"] == "deny" or one.get("shadow") == "deny"),
            key=lambda one: -one["last"],
        ),
        "flows": bool(flows),
        "spaces": spaces,
    }


def _plain_first(edge: Mapping[str, Any]) -> tuple[bool, float]:
    return edge["secured"], -(edge["rps"] or 0)


def decisions(flows: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By workload and policy: how many requests each allowed and denied. No policy is ``""``."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for one in flows:
        key = one["namespace"], one["workload"], one["policy"]
        row = found.setdefault(
            key,
            {"namespace": key[0], "workload": key[1], "policy": key[2], "allow": 0, "deny": 0, "last": 0},
        )
        if one["decision"] in {"allow", "deny"}:
            row[one["decision"]] += one["count"]
        row["last"] = max(row["last"], one["last"])
    return sorted(found.values(), key=lambda row: (-row["deny"], -row["allow"], row["workload"]))
