"""What there is to see: one row a page, in the order of the navigation."""

from __future__ import annotations

from typing import Final

from weft.dashboard.overview import overview
from weft.dashboard.page import Page

PAGES: Final[tuple[Page, ...]] = (
    Page(
        path="/", title="Overview", template="overview.html", read=overview, nav="Overview", icon="overview"
    ),
)

QUESTIONS: Final = frozenset(
    {"changes", "edges", "flows", "health", "records", "series", "stat", "trace", "traces", "workloads"}
)
"""Those of telemetry that scripts may ask: ``/data/QUESTION``."""
