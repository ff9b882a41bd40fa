"""Is the mesh well, and what changed?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weft.dashboard.page import Visit, together


async def overview(visit: Visit) -> Mapping[str, Any]:
    """The first page."""
    (workloads,) = await together(visit.ask("workloads"))
    return {"total": workloads["total"] if workloads else None}
