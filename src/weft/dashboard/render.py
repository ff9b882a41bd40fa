"""Templates: everything is escaped, and an unknown variable is an error."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from weft.dashboard import figures
from weft.dashboard.page import Page, Visit


class Templates:
    """Every page's template extends ``layout``: base.html, or content.html for a live stream.

    What is inside of ``<main>`` is theirs. They know, beside what their page read: ``query``, ``namespace``
    (chosen, or empty), ``here`` (the path), ``now`` (ms since the epoch), and the filters of figures.py.
    """

    def __init__(self, pages: Sequence[Page]) -> None:
        self._environment = Environment(
            loader=PackageLoader("weft.dashboard"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(figures.FILTERS)
        self._environment.globals.update(figures.GLOBALS)
        self._navigation = [page for page in pages if page.nav]

    def render(
        self, page: Page, visit: Visit, variables: Mapping[str, Any], here: str, *, whole: bool
    ) -> str:
        """The page, or only the content of its ``<main>``."""
        known: dict[str, Any] = {
            "layout": "base.html" if whole else "content.html",
            "title": page.title,
            "page": page,
            "current": page.below or page.path,
            "navigation": self._navigation,
            "query": visit.query,
            "namespace": visit.namespace,
            "gaps": visit.gaps,
            "here": here,
            "now": time.time() * 1000,
        }
        return self._environment.get_template(page.template).render({**known, **variables})

    def failure(self, here: str, message: str) -> str:
        """The page for what is not there or did not work."""
        return self._environment.get_template("failure.html").render(
            layout="base.html", title="Not here", message=message, page=None, current="", query={},
            navigation=self._navigation, namespace="", gaps=[], here=here, now=time.time() * 1000,
        )  # fmt: skip
