"""The status of resources as a table for people: what holds, what does not, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import click

from weft.model.catalog import GATEWAY_API

_GOOD: Final = frozenset(
    {
        "Accepted",
        "Healthy",
        "PassedAnalysis",
        "Programmed",
        "Ready",
        "ResolvedRefs",
        "SupportedVersion",
    }
)
_BAD: Final = frozenset({"Conflicted", "PartiallyInvalid"})
_DOUBTFUL: Final = frozenset({"InsecureFrontendValidationMode", "OverlappingTLSConfig"})

# Columns before a message; names may be longer than a terminal is wide.
_DEEPEST: Final = 48


@dataclass(frozen=True, slots=True)
class Line:
    """One row: of what, which part of it, what holds of it, and messages of what does not."""

    resource: str
    part: str
    conditions: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()


def table(items: Iterable[Mapping[str, Any]], *, colour: bool = False) -> str:
    """Aligned text; resources without a status are left out."""
    rows = [("RESOURCE", "PART", "STATUS")]
    below: list[tuple[str, ...]] = [()]
    last = ""
    for line in _lines(items):
        words = " ".join(filter(None, map(_word, line.conditions))) or "-"
        rows.append(("" if line.resource == last else line.resource, line.part, words))
        why = (str(one.get("message")) for one in line.conditions if level(one) and one.get("message"))
        below.append((*dict.fromkeys(why), *line.notes))
        last = line.resource
    if len(rows) == 1:
        return "nothing here has a status"
    widths = [max(len(row[n]) for row in rows) for n in (0, 1)]
    text: list[str] = []
    for number, (row, notes) in enumerate(zip(rows, below, strict=True)):
        cells = "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        shown = _coloured(row[2]) if colour and number else row[2]
        text.append(f"{cells}   {shown}".rstrip())
        text += [f"{' ' * min(sum(widths) + 6, _DEEPEST)}{note}" for note in notes]
    return "\n".join(text)


def findings(items: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a condition is not as it should be."""
    return any(level(one) == "error" for line in _lines(items) for one in line.conditions)


def level(condition: Mapping[str, Any]) -> str:
    """``error`` for what is wrong, ``warning`` for what may be meant so, empty for the rest."""
    kind, holds = condition.get("type"), condition.get("status")
    if (kind in _GOOD and holds == "False") or (kind in _BAD and holds == "True"):
        return "error"
    return "warning" if kind in _DOUBTFUL and holds == "True" else ""


def _lines(items: Iterable[Mapping[str, Any]]) -> Iterator[Line]:
    for item in items:
        said, name = item.get("status"), _name(item)
        if not isinstance(said, dict):
            if str(item.get("apiVersion")).startswith(f"{GATEWAY_API}/") and item.get("kind") == "Gateway":
                yield Line(name, "", (), ("its GatewayClass is not weft's: name its controller",))
            continue
        if "conditions" in said:
            yield Line(name, "", tuple(said["conditions"]), _notes(said))
        for listener in said.get("listeners") or ():
            count = listener.get("attachedRoutes", 0)
            routes = f"{count} route{'s' * (count != 1)}"
            yield Line(name, f"listener {listener.get('name')}, {routes}", tuple(listener["conditions"]))
        for entries, ref in (("parents", "parentRef"), ("ancestors", "ancestorRef")):
            for entry in said.get(entries) or ():
                yield Line(name, _reference(entry.get(ref) or {}), tuple(entry["conditions"]))
            if entries in said and not said[entries]:
                yield Line(name, "", (), ("no Gateway or Service here that weft serves is its parent",))


def _notes(said: Mapping[str, Any]) -> tuple[str, ...]:
    found = tuple(str(one.get("value")) for one in said.get("addresses") or ())
    return (f"at {', '.join(found)}",) if found else ()


def _name(item: Mapping[str, Any]) -> str:
    metadata = item.get("metadata")
    if not isinstance(metadata, dict):  # the document is broken, and told so
        metadata = {}
    space = metadata.get("namespace")
    return f"{item.get('kind')} {f'{space}/' if space else ''}{metadata.get('name')}"


def _reference(ref: Mapping[str, Any]) -> str:
    space = f"{ref['namespace']}/" if ref.get("namespace") else ""
    parts = [str(ref[name]) for name in ("sectionName", "port") if ref.get(name)]
    return f"{ref.get('kind') or 'Gateway'} {space}{ref.get('name')}{''.join(f' {part}' for part in parts)}"


def _word(condition: Mapping[str, Any]) -> str:
    """``Accepted``, ``!Programmed(Pending)``; one that is good when False shows only when it is not."""
    kind, holds, reason = (str(condition.get(name)) for name in ("type", "status", "reason"))
    if holds == "True":
        return f"{kind}({reason})" if level(condition) else kind
    if kind in _BAD | _DOUBTFUL:
        return ""
    return f"!{kind}({reason})" if holds == "False" else f"?{kind}({reason})"


def _coloured(words: str) -> str:
    """Red for what is wrong, yellow for what is doubtful, green for the rest."""
    colours = {"!": "red", "?": "yellow"}
    return " ".join(
        click.style(word, fg=colours.get(word[:1], "yellow" if word.endswith(")") else "green"))
        for word in words.split()
    )
