"""Templates: everything is escaped, and an unknown variable is an error."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context

from weft.dashboard import figures
from weft.dashboard.filters import kept
from weft.dashboard.page import Page, Visit
from weft.dashboard.places import Places


class Templates:
    """Every page's template extends ``layout``: base.html, or content.html for a live stream.

    What is inside of ``<main>`` is theirs. They know, beside what their page read: ``query``, ``namespace``
    (chosen, or empty), ``here`` (the path), ``now`` (ms since the epoch), and the filters of figures.py.
    ``link`` and the filter ``keep`` take the reader's choices along, ``data`` is an address of an answer.
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
        self._environment.filters["keep"] = _keep
        self._environment.globals.update({"link": _link, "data": _data})
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
            "kept": kept(visit.query),
            "places": visit.places,
            "gaps": visit.gaps,
            "here": here,
            "now": time.time() * 1000,
        }
        return self._environment.get_template(page.template).render({**known, **variables})

    def failure(self, here: str, message: str) -> str:
        """The page for what is not there or did not work."""
        return self._environment.get_template("failure.html").render(
            layout="base.html", title="Not here", message=message, page=None, current="", query={},
            navigation=self._navigation, namespace="", gaps=[], here=here, now=time.time() * 1000, kept={},
            places=Places(),
        )  # fmt: skip


@pass_context
def _link(context: Context, *steps: object, **query: object) -> str:
    """A page of the dashboard, with what the reader chose."""
    return figures.link(*steps, **{**context["kept"], **query})


@pass_context
def _keep(context: Context, href: str) -> str:
    """The same of an address that is there already."""
    path, _, query = href.partition("?")
    asked = dict(parse_qsl(query, keep_blank_values=True))
    return figures.address(path, {**context["kept"], **asked})


def _data(question: str, **query: object) -> str:
    """The address of an answer that a chart is drawn from."""
    return figures.link("data", question, **query)
