"""``/openapi/v3``: schemas from the models, and paths as far as kubectl looks at them.

kubectl explain walks the schemas; apply, create and diff look which query parameters ``patch`` takes.
"""

from __future__ import annotations

import copy
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
from weft.model.openapi import REF, definition, schemas

_PARAMETERS: Final = [
    {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
    for name in ("dryRun", "fieldManager", "fieldValidation", "pretty")
]
_PATCHES: Final = ("application/json-patch+json", "application/merge-patch+json")
_STRATEGIC: Final = ("application/strategic-merge-patch+json",)
_STRATEGIC_GROUPS: Final = frozenset({"", "discovery.k8s.io", "rbac.authorization.k8s.io"})


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
    found = copy.deepcopy(schemas(group, version))
    paths: dict[str, Any] = {}
    for row in discovery.rows(group, version):
        paths |= _paths(row, version)
        if row.group in _STRATEGIC_GROUPS:
            for path, key in patch.merge_keys(row.kind).items():
                _mark_merged(found, definition(row, version), path, key)
    return {
        "openapi": "3.0.0",
        "info": {"title": "weft", "version": discovery.version()["gitVersion"]},
        "paths": paths,
        "components": {"schemas": found},
    }


def _mark_merged(found: dict[str, Any], name: str, path: tuple[str, ...], key: str | None) -> None:
    """Say in the schema that a list is merged: clients build their patches by it."""
    schema = found[name]
    for step in path:
        reference = schema.get("$ref") or next((part["$ref"] for part in schema.get("allOf", ())), None)
        schema = found[reference.removeprefix(REF)] if reference else schema
        schema = schema.get("properties", {}).get(step)
        if schema is None:
            return
    schema["x-kubernetes-patch-strategy"] = "merge"
    if key is not None:
        schema["x-kubernetes-patch-merge-key"] = key


def _paths(row: KindRow, version: str) -> dict[str, Any]:
    reference = {"$ref": f"{REF}{definition(row, version)}"}
    kind = {"group": row.group, "version": version, "kind": row.kind}
    answer = {"200": {"description": "OK", "content": {JSON: {"schema": reference}}}}
    about = {"x-kubernetes-group-version-kind": kind, "responses": answer}
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
