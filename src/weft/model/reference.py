"""The reference pages of the resources, made from the models: ``python -m weft.model.reference FOLDER``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from weft.model.catalog import KINDS, KindRow
from weft.model.openapi import definition, descriptions, schemas
from weft.model.resource import Resource
from weft.model.unsupported import reason
from weft.model.untranslated import FIELDS, listing
from weft.model.walk import inner

_NOTE = "<!-- Made from src/weft/model by `make docs`; do not edit. -->\n"


def pages() -> dict[str, str]:
    """Text by path below ``docs/reference``."""
    found = {f"resources/{page_name(row)}": page(row) for row in KINDS}
    found["resources/README.md"] = index()
    found["untranslated.txt"] = listing()
    return found


def page_name(row: KindRow) -> str:
    """``networking.istio.io-virtualservice.md``."""
    return f"{row.group or 'core'}-{row.singular}.md"


def index() -> str:
    """The list of kinds."""
    rows = [
        f"| [{row.kind}]({page_name(row)}) | {row.group or 'core'} | {', '.join(row.versions)} "
        f"| {', '.join(row.short_names)} | {_first_line(row.model)} |"
        for row in KINDS
    ]
    head = "| kind | group | versions | short | what it is |\n|---|---|---|---|---|\n"
    return f"{_NOTE}# Resources\n\n{head}" + "\n".join(rows) + "\n"


def page(row: KindRow) -> str:
    """One kind: its names, then all of its fields."""
    known = schemas(row.group, row.versions[0])
    lines = [
        f"{_NOTE}# {row.kind}\n",
        f"{_first_line(row.model)}\n",
        f"- `apiVersion`: {', '.join(f'`{row.api_version_of(version)}`' for version in row.versions)}",
        f"- names: `{row.plural}`, `{row.singular}`"
        + "".join(f", `{short}`" for short in row.short_names if short != row.singular),
        f"- {'belongs to a namespace' if row.namespaced else 'belongs to no namespace'}\n",
        "A field works, or `weft validate` and `weft apply` report its use: of those that are *not yet*",
        "translated, and of those that have *no effect* here, for the reason that is given.\n",
        "| field | type | | works |\n|---|---|---|---|",
    ]
    untranslated = FIELDS.get(row.id, ())
    root = known[definition(row, row.versions[0])]
    for path, schema, text in _fields(row.model, root, known, ""):
        lines.append(f"| `{path}` | {_type(schema)} | {text} | {_works(row.id, path, untranslated)} |")
    return "\n".join(lines) + "\n"


def _works(kind: str, path: str, untranslated: Iterable[str]) -> str:
    """Whether a field does anything, in the words of the page."""
    why = reason(kind, path)
    if why:
        return f"*no effect*: {why}"
    later = any(path == field or path.startswith((f"{field}.", f"{field}[")) for field in untranslated)
    return "*not yet*" if later else "yes"


def _fields(
    model: type[BaseModel], schema: dict[str, Any], known: dict[str, Any], path: str
) -> Iterator[tuple[str, dict[str, Any], str]]:
    texts = descriptions(model)
    needed = set(schema.get("required", ()))
    for name, field in model.model_fields.items():
        wire = field.alias or name
        if not path and issubclass(model, Resource) and wire in {"apiVersion", "kind", "metadata", "status"}:
            continue
        here = f"{path}.{wire}" if path else wire
        found, depth = inner(field.annotation)
        text = texts.get(name) or (_first_line(found) if found else "")
        item = schema["properties"][wire]
        yield here, item, f"{text}{' Required.' if wire in needed else ''}".strip().replace("|", "\\|")
        if found is not None:
            yield from _fields(found, _resolved(item, known), known, here + depth)


def _resolved(schema: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """The schema of the model in a field: behind references, lists and maps."""
    while "properties" not in schema:
        if "$ref" in schema:
            schema = known[schema["$ref"].rpartition("/")[2]]
        elif "allOf" in schema:
            schema = schema["allOf"][0]
        elif "items" in schema:
            schema = schema["items"]
        elif isinstance(schema.get("additionalProperties"), dict):
            schema = schema["additionalProperties"]
        else:
            return {"properties": {}}
    return schema


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema or "allOf" in schema:
        return "mapping"
    if "enum" in schema:
        return " ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return "number or text"
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"map of {_type(schema['additionalProperties'])}"
    names = {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "mapping"}
    kind = str(schema.get("type", "any"))
    return names.get(kind, kind)


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0]


def write(folder: Path) -> None:
    """Write all pages, and remove pages of kinds that are gone."""
    wanted = pages()
    (folder / "resources").mkdir(parents=True, exist_ok=True)
    for old in (folder / "resources").glob("*.md"):
        if f"resources/{old.name}" not in wanted:
            old.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
