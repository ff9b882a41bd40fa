"""Where a resource is shown: from its kind to the address of its page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from weft.dashboard import figures
from weft.dashboard.readers import Kind

NOWHERE: Final = "-"
"""In the place of a namespace, for kinds that have none."""

# Of kinds with the same name in several groups, what is meant where no group is told.
_FIRST: Final = "networking.istio.io"


def word_of(kind: Kind) -> str:
    """How a kind is named in addresses: ``virtualservices.networking.istio.io``."""
    return f"{kind.plural}.{kind.group}" if kind.group else kind.plural


class Places:
    """The addresses of all resources of the kinds that are served."""

    def __init__(self, kinds: Iterable[Kind] = ()) -> None:
        self._words: dict[tuple[str, str | None], str] = {}
        for kind in sorted(kinds, key=lambda one: one.group == _FIRST):
            self._words[kind.kind, None] = self._words[kind.kind, kind.group] = word_of(kind)

    def href(self, reference: Mapping[str, object]) -> str:
        """Of a reference with ``kind``, ``namespace``, ``name`` and maybe ``group``; empty without a page."""
        group = reference.get("group")
        word = self._words.get((str(reference.get("kind")), None if group is None else str(group)))
        if word is None or not reference.get("name"):
            return ""
        return figures.link("configuration", word, reference.get("namespace") or NOWHERE, reference["name"])

    def of_finding(self, finding: Mapping[str, object]) -> str:
        """The page of what a finding is about (its ``origin``: ``Kind namespace/name``); empty for none."""
        kind, _, rest = str(finding.get("origin") or "").partition(" ")
        namespace, slash, name = rest.partition("/")
        return self.href({"kind": kind, "namespace": namespace if slash else "", "name": name or namespace})
