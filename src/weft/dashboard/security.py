"""Who is who, what is encrypted, and what policies decided."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from weft.dashboard.certificates import newest
from weft.dashboard.decisions import decisions, denials
from weft.dashboard.edges import reached
from weft.dashboard.page import Visit, together
from weft.dashboard.services import namespaces

_ROWS: Final = 300


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
    reachable = sorted(filter(reached, edges["edges"]), key=_plain_first) if edges else []
    return {
        "authority": authority or None,
        "identities": newest(issued["certificates"], time.time() * 1000) if issued else None,
        "edges": reachable[:_ROWS] if edges else None,
        "left_out": max(0, len(reachable) - _ROWS),
        "policies": decisions(found),
        "denied": denials(found),
        "flows": bool(flows),
        "spaces": spaces,
    }


def _plain_first(edge: Mapping[str, Any]) -> tuple[bool, float]:
    return edge["secured"], -(edge["rps"] or 0)
