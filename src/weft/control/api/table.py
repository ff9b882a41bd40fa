"""Objects as the client wants them: whole, as a Table with the catalog's columns, or metadata alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from weft.control.api.listing import as_list
from weft.control.api.metadata import Wire
from weft.model.catalog import Column, KindRow

Render = Callable[[Wire, bool], Mapping[str, Any]]

Cells = Mapping[tuple[str, str], Callable[[Wire], str | None]]
"""By kind (catalog id) and column: what is shown where the object itself says nothing."""

NO_CELLS: Final[Cells] = {}

_NAME: Final = {
    "name": "Name", "type": "string", "format": "name", "priority": 0,
    "description": "Unique among the objects of its kind and namespace.",
}  # fmt: skip
_AGE: Final = {
    "name": "Age", "type": "string", "format": "", "priority": 0, "description": "Since it was created.",
}  # fmt: skip
# A step of kubectl's JSONPath: .name, [*], [?(@.name=="value")].
_STEP: Final = re.compile(
    r'\.(?P<name>[\w-]+)|(?P<all>\[\*\])|\[\?\(@\.(?P<field>\w+)\s*==\s*"(?P<value>[^"]*)"\)\]'
)
_COUNTED: Final = frozenset({"Data"})


def columns(row: KindRow) -> list[dict[str, Any]]:
    """``columnDefinitions``."""
    own = [
        {
            "name": column.name, "type": column.type, "format": "", "priority": column.priority,
            "description": column.description,
        }
        for column in row.columns
    ]  # fmt: skip
    return [_NAME, *own, _AGE]


def renderer(row: KindRow, form: str, include: str, cells: Cells = NO_CELLS) -> Render:
    """What turns one object into its form: ``Object``, ``Table`` or ``Metadata``."""
    if form == "Object":
        return lambda wire, _: wire
    if form == "Metadata":
        return lambda wire, _: partial(wire)

    def as_table(wire: Wire, first: bool) -> Wire:
        metadata = {"resourceVersion": wire["metadata"].get("resourceVersion", "")}
        return _table(row, [wire], metadata, include, cells, with_columns=first)

    return as_table


def render_list(
    row: KindRow, version: str, wires: Sequence[Wire], metadata: Mapping[str, Any], form: str, include: str,
    cells: Cells = NO_CELLS,
) -> Wire:  # fmt: skip
    """A list in its form."""
    if form == "Table":
        return _table(row, wires, metadata, include, cells, with_columns=True)
    if form == "Metadata":
        return {
            "apiVersion": "meta.k8s.io/v1",
            "kind": "PartialObjectMetadataList",
            "metadata": dict(metadata),
            "items": [partial(wire) for wire in wires],
        }
    return as_list(row, version, wires, metadata)


def empty(metadata: Mapping[str, Any]) -> Wire:
    """A Table without rows, of a kind without columns of its own."""
    return {
        "apiVersion": "meta.k8s.io/v1", "kind": "Table", "metadata": dict(metadata),
        "columnDefinitions": [_NAME, _AGE], "rows": [],
    }  # fmt: skip


def partial(wire: Wire) -> Wire:
    """``PartialObjectMetadata``."""
    return {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": wire["metadata"]}


def _table(
    row: KindRow, wires: Sequence[Wire], metadata: Mapping[str, Any], include: str, cells: Cells, *,
    with_columns: bool,
) -> Wire:  # fmt: skip
    now = datetime.now(UTC)
    rows: list[Wire] = []
    for wire in wires:
        line: Wire = {"cells": _cells(row, wire, now, cells)}
        if include == "Object":
            line["object"] = wire
        elif include != "None":
            line["object"] = partial(wire)
        rows.append(line)
    return {
        "apiVersion": "meta.k8s.io/v1",
        "kind": "Table",
        "metadata": dict(metadata),
        "columnDefinitions": columns(row) if with_columns else [],
        "rows": rows,
    }


def _cells(row: KindRow, wire: Wire, now: datetime, cells: Cells) -> list[Any]:
    metadata = wire["metadata"]
    own = [_cell(column, wire) for column in row.columns]
    for number, column in enumerate(row.columns):
        if own[number] is None and (row.id, column.name) in cells:
            own[number] = cells[row.id, column.name](wire)
    return [metadata["name"], *own, age(metadata.get("creationTimestamp", ""), now)]


def _cell(column: Column, wire: Wire) -> Any:
    if column.of:
        return f"{next(look(wire, column.path), 0)}/{next(look(wire, column.of), 1)}"
    found = list(look(wire, column.path))
    if not found:
        return 0 if column.name in _COUNTED else None
    if column.name in _COUNTED:
        return sum(len(value) for value in found if isinstance(value, Mapping))
    if column.type == "integer":
        return found[0] if isinstance(found[0], int) else None
    if len(found) == 1:
        return _text(found[0])
    return ",".join(_text(value) for value in found)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return ",".join(f"{name}={_text(item)}" for name, item in value.items())
    if isinstance(value, list):
        return "[" + ",".join(f'"{item}"' if isinstance(item, str) else _text(item) for item in value) + "]"
    return str(value)


def look(wire: Any, path: str) -> Iterator[Any]:
    """The values at a JSONPath of the catalog.

    Raises:
        ValueError: for a path of another form.
    """
    steps: list[re.Match[str]] = []
    at = 0
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None:
            raise ValueError(f"{path!r} is not a path that tables know")
        steps.append(match)
        at = match.end()
    yield from _walk(wire, steps)


def _walk(value: Any, steps: Sequence[re.Match[str]]) -> Iterator[Any]:
    if not steps:
        if value is not None:
            yield value
        return
    step, rest = steps[0], steps[1:]
    if step["name"]:
        if isinstance(value, Mapping) and step["name"] in value:
            yield from _walk(value[step["name"]], rest)
    elif isinstance(value, list):
        for item in value:
            if step["all"] or (isinstance(item, Mapping) and item.get(step["field"]) == step["value"]):
                yield from _walk(item, rest)


def age(since: str, now: datetime) -> str:
    """The time since, as kubectl writes it: ``42s``, ``5m12s``, ``3h``, ``2d``."""
    try:
        seconds = int((now - datetime.fromisoformat(since)).total_seconds())
    except ValueError:
        return "<unknown>"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{max(seconds, 0)}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    return _two(days // 365, "y", days % 365, "d") if days < 2920 else f"{days // 365}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"
