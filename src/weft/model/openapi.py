"""The kinds as OpenAPI v3 schemas, for ``kubectl explain``, validation by clients and the reference pages."""

from __future__ import annotations

import ast
import importlib
import inspect
from functools import cache
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from weft.model.catalog import KINDS, KindRow

REF: Final = "#/components/schemas/"
_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."
_NAMED: Final = {
    "Metadata": f"{_META}ObjectMeta",
    "OwnerReference": f"{_META}OwnerReference",
    "Condition": f"{_META}Condition",
    "LabelSelector": f"{_META}LabelSelector",
    "LabelSelectorRequirement": f"{_META}LabelSelectorRequirement",
}
_CORE: Final = {"": "io.k8s.api.core", "discovery.k8s.io": "io.k8s.api.discovery"}


def definition(row: KindRow, version: str) -> str:
    """The name of a kind's schema: ``io.istio.networking.v1.VirtualService``."""
    return f"{_package(row.group)}.{version}.{row.kind}"


def _package(group: str) -> str:
    return _CORE.get(group) or ".".join(reversed(group.split(".")))


@cache
def schemas(group: str, version: str) -> dict[str, Any]:
    """The schemas of a group and version by name, each with the descriptions of its model.

    Raises:
        KeyError: when no kind is served there.
    """
    rows = [row for row in KINDS if row.group == group and version in row.versions]
    if not rows:
        raise KeyError(f"{group}/{version}")
    found: dict[str, Any] = {}
    for row in rows:
        found.update(_schemas(row, version))
    return dict(sorted(found.items()))


def _schemas(row: KindRow, version: str) -> dict[str, Any]:
    mapping, whole = models_json_schema(
        [(row.model, "validation")], by_alias=True, ref_template=f"{REF}{{model}}"
    )
    root = definition(row, version)
    raw: dict[str, Any] = whole["$defs"]
    names: dict[str, str] = {}
    models = _models(row.model)
    for key in raw:
        names[key] = root if key == row.kind else _NAMED.get(key, f"{root}.{key}")
    own = mapping[(row.model, "validation")].get("$ref", "").rpartition("/")[2]
    if own:
        names[own] = root
    found = {names[key]: _clean(schema, names) for key, schema in raw.items()}
    for key in raw:
        model = models.get(key) or (row.model if names[key] == root else None)
        if model is not None:
            _describe(found[names[key]], model)
    top = found[root]
    top["x-kubernetes-group-version-kind"] = [{"group": row.group, "version": version, "kind": row.kind}]
    found[f"{root}List"] = {
        "type": "object",
        "description": f"Several of {row.kind}.",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"$ref": f"{REF}{_META}ListMeta"},
            "items": {"type": "array", "items": {"$ref": f"{REF}{root}"}},
        },
        "x-kubernetes-group-version-kind": [
            {"group": row.group, "version": version, "kind": f"{row.kind}List"}
        ],
    }
    found[f"{_META}ListMeta"] = {
        "type": "object",
        "description": "Where a list was read.",
        "properties": {
            name: {"type": "integer" if name == "remainingItemCount" else "string"}
            for name in ("resourceVersion", "continue", "remainingItemCount", "selfLink")
        },
    }
    return found


def _clean(schema: Any, names: dict[str, str]) -> Any:
    """Kubernetes' dialect: nothing is nullable, references are renamed, no titles and constants."""
    if isinstance(schema, list):
        return [_clean(item, names) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "anyOf" in schema:
        rest = [item for item in schema["anyOf"] if item != {"type": "null"}]
        if len(rest) == 1:
            beside = {key: value for key, value in schema.items() if key not in {"anyOf", "default", "title"}}
            return _clean({**rest[0], **beside}, names)
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            found[key] = {name: _clean(item, names) for name, item in value.items()}
        elif key == "$ref":
            found[key] = REF + names[value.rpartition("/")[2]]
        elif key == "const":
            found["enum"] = [value]
        elif key in {"exclusiveMinimum", "exclusiveMaximum"}:
            # OpenAPI 3.0 has the limit and a flag where JSON Schema has two limits.
            found |= {key.removeprefix("exclusive").lower(): value, key: True}
        elif key not in {"title", "default", "prefixItems"} and not (
            key == "additionalProperties" and value is False
        ):
            found[key] = _clean(value, names)
    if found.get("required") == []:
        del found["required"]
    if "$ref" in found and len(found) > 1:
        # What stands beside a reference is not read.
        found = {"allOf": [{"$ref": found.pop("$ref")}], **found}
    return found


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    schema["description"] = inspect.cleandoc(model.__doc__ or "")
    texts = descriptions(model)
    for name, field in model.model_fields.items():
        wire = field.alias or name
        text = texts.get(name)
        if not text or wire not in schema.get("properties", {}):
            continue
        item = schema["properties"][wire]
        if "$ref" in item:
            item = schema["properties"][wire] = {"allOf": [{"$ref": item["$ref"]}]}
        item["description"] = text
    if (required := schema.get("required")) and "spec" not in schema.get("properties", {}):
        schema["required"] = sorted(required)
    if model.__name__ in {row.kind for row in KINDS} and "metadata" in schema.get("properties", {}):
        schema["required"] = [
            name for name in schema.get("required", []) if name not in {"apiVersion", "kind", "metadata"}
        ]
        if not schema["required"]:
            del schema["required"]


def _models(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """All models in a model, by name."""
    from weft.model.walk import models

    return {found.__name__: found for found in models(model)}


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """The sentence under each field of a class, its own and inherited ones."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if base.__module__.startswith("weft.model."):
            found.update(_sentences(base.__module__).get(base.__name__, {}))
    return found


@cache
def _sentences(module: str) -> dict[str, dict[str, str]]:
    """Docstrings of fields by class and field, read from the source: Python keeps none at run time."""
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    found: dict[str, dict[str, str]] = {}
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        texts = found.setdefault(node.name, {})
        for field, text in zip(node.body, node.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                texts[field.target.id] = inspect.cleandoc(text.value.value)
    return found
