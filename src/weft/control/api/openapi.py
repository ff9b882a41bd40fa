"""``/openapi/v3``: schemas from the models, and paths as far as kubectl looks at them.

kubectl explain walks the schemas; apply, create and diff look which query parameters ``patch`` takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from weft.control.api import discovery, patch
from weft.control.api.negotiate import JSON
from weft.control.api.resources import reply
from weft.control.api.status import no_such_path
from weft.model.catalog import KindRow, group_versions

_REF: Final = "#/components/schemas/"
_PARAMETERS: Final = [
    {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
    for name in ("dryRun", "fieldManager", "fieldValidation", "pretty")
]
_PATCHES: Final = ("application/json-patch+json", "application/merge-patch+json")
_STRATEGIC: Final = ("application/strategic-merge-patch+json",)
_STRATEGIC_GROUPS: Final = frozenset({"", "discovery.k8s.io"})


def _place(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


@cache
def _documents() -> Mapping[str, bytes]:
    return {
        _place(group, version): msgspec.json.encode(build(group, version))
        for group, version in group_versions()
    }


@cache
def _index() -> bytes:
    paths = {
        place: {"serverRelativeURL": f"/openapi/v3/{place}?hash={hashlib.sha256(body).hexdigest()[:32]}"}
        for place, body in _documents().items()
    }
    return msgspec.json.encode({"paths": paths})


async def index(_: Request) -> Response:
    """``/openapi/v3``."""
    return Response(_index(), media_type=JSON)


async def document(request: Request) -> Response:
    """``/openapi/v3/apis/GROUP/VERSION``."""
    body = _documents().get(request.path_params["rest"].strip("/"))
    if body is None:
        return reply(no_such_path().body(), 404)
    return Response(body, media_type=JSON)


def build(group: str, version: str) -> dict[str, Any]:
    """The document of one group and version."""
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for row in discovery.rows(group, version):
        name = _schema_name(row, version)
        schemas |= _schemas(row, version, name)
        paths |= _paths(row, version, name)
    return {
        "openapi": "3.0.0",
        "info": {"title": "weft", "version": discovery.version()["gitVersion"]},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _schema_name(row: KindRow, version: str) -> str:
    group = ".".join(reversed(row.group.split("."))) if row.group else "io.k8s.api.core"
    return f"{group}.{version}.{row.kind}"


def _kind(row: KindRow, version: str) -> dict[str, str]:
    return {"group": row.group, "version": version, "kind": row.kind}


def _schemas(row: KindRow, version: str, name: str) -> dict[str, Any]:
    """The kind's own schema under ``name``, those that it refers to under ``name.Model``."""
    whole = row.model.model_json_schema(ref_template=f"{_REF}{name}.{{model}}")
    parts: dict[str, Any] = whole.pop("$defs", {})
    # A model that refers to itself is itself a definition, and the whole only a reference to it.
    if (own := str(whole.get("$ref", "")).rpartition(f"{name}.")[2]) in parts:
        whole = parts.pop(own) | {"title": row.kind}
    schemas = {f"{name}.{part}": _plain(schema) for part, schema in parts.items()}
    top = _plain(whole)
    top["x-kubernetes-group-version-kind"] = [_kind(row, version)]
    schemas[name] = top
    for path, key in patch.merge_keys(row.kind).items() if row.group in _STRATEGIC_GROUPS else ():
        _mark_merged(schemas, name, path, key)
    return schemas


def _mark_merged(schemas: dict[str, Any], name: str, path: tuple[str, ...], key: str | None) -> None:
    """Say in the schema that a list is merged: clients build their patches by it."""
    schema = schemas[name]
    for step in path:
        reference = schema.get("$ref") or next((part["$ref"] for part in schema.get("allOf", ())), None)
        schema = schemas[reference.removeprefix(_REF)] if reference else schema
        schema = schema.get("properties", {}).get(step)
        if schema is None:
            return
    schema["x-kubernetes-patch-strategy"] = "merge"
    if key is not None:
        schema["x-kubernetes-patch-merge-key"] = key


def _plain(schema: Any) -> Any:
    """JSON Schema as OpenAPI 3.0 has it: no null types, no constants, references alone."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    options = schema.get("anyOf")
    if isinstance(options, list):
        real = [option for option in options if option != {"type": "null"}]
        if len(real) == 1:
            rest = {key: value for key, value in schema.items() if key not in {"anyOf", "default"}}
            return _plain(_joined(real[0], rest))
    result: dict[str, Any] = {}
    for key, value in schema.items():
        match key:
            case "const":
                result["enum"] = [value]
            case "title" | "default" | "prefixItems" | "$defs":
                continue
            case "exclusiveMinimum":
                result |= {"minimum": value, "exclusiveMinimum": True}
            case "exclusiveMaximum":
                result |= {"maximum": value, "exclusiveMaximum": True}
            case "properties":
                result[key] = {name: _plain(item) for name, item in value.items()}
            case _:
                result[key] = _plain(value)
    if "$ref" in result and len(result) > 1:
        reference = result.pop("$ref")
        result = {"allOf": [{"$ref": reference}], **result}
    return result


def _joined(option: dict[str, Any], rest: dict[str, Any]) -> dict[str, Any]:
    return {**option, **{key: value for key, value in rest.items() if key not in option}}


def _paths(row: KindRow, version: str, name: str) -> dict[str, Any]:
    reference = {"$ref": f"{_REF}{name}"}
    answer = {"200": {"description": "OK", "content": {JSON: {"schema": reference}}}}
    about = {"x-kubernetes-group-version-kind": _kind(row, version), "responses": answer}
    body = {"content": {JSON: {"schema": reference}}}
    media = (*_PATCHES, *(_STRATEGIC if row.group in _STRATEGIC_GROUPS else ()))
    change = {"content": {name: {"schema": {"type": "object"}} for name in media}}
    root = f"/{_place(row.group, version)}"
    collection = f"{root}/namespaces/{{namespace}}/{row.plural}" if row.namespaced else f"{root}/{row.plural}"
    write = {**about, "parameters": _PARAMETERS}

    def verb(action: str) -> dict[str, str]:
        return {"x-kubernetes-action": action}

    return {
        collection: {
            "get": {**about, **verb("list")},
            "post": {**write, **verb("post"), "requestBody": body},
            "delete": {**write, **verb("deletecollection")},
        },
        f"{collection}/{{name}}": {
            "get": {**about, **verb("get")},
            "put": {**write, **verb("put"), "requestBody": body},
            "patch": {**write, **verb("patch"), "requestBody": change},
            "delete": {**write, **verb("delete")},
        },
    }
