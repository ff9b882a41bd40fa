"""OpenAPI: every reference resolves, every field is there, and clients find the kinds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from weft.model.catalog import KINDS, group_versions
from weft.model.openapi import REF, definition, schemas
from weft.model.walk import models

VERSIONS = pytest.mark.parametrize(("group", "version"), group_versions(), ids="/".join)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "$ref":
                yield item
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


@VERSIONS
def test_references_resolve(group: str, version: str) -> None:
    whole = schemas(group, version)
    names = {f"{REF}{name}" for name in whole}
    assert set(references(whole)) <= names


@VERSIONS
def test_each_kind_is_found_by_its_group_version_and_kind(group: str, version: str) -> None:
    whole = schemas(group, version)
    for row in KINDS:
        if row.group == group and version in row.versions:
            schema = whole[definition(row, version)]
            gvk = {"group": group, "version": version, "kind": row.kind}
            assert schema["x-kubernetes-group-version-kind"] == [gvk]
            assert schema["description"]
            assert set(schema["properties"]) == {
                field.alias or name for name, field in row.model.model_fields.items()
            }


def test_definitions_are_named_as_in_kubernetes() -> None:
    known = schemas("networking.istio.io", "v1")
    assert "io.istio.networking.v1.VirtualService" in known
    assert "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta" in known
    assert "io.k8s.api.core.v1.Service" in schemas("", "v1")


def test_nothing_is_nullable_and_defaults_are_not_stated() -> None:
    def check(value: Any) -> None:
        if isinstance(value, dict):
            assert value.get("type") != "null"
            assert "anyOf" not in value
            for item in value.values():
                check(item)
        elif isinstance(value, list):
            for item in value:
                check(item)

    for group, version in group_versions():
        check(schemas(group, version))


def test_what_is_not_served_has_no_schemas() -> None:
    with pytest.raises(KeyError):
        schemas("networking.istio.io", "v9")


def test_every_model_says_what_it_is() -> None:
    for row in KINDS:
        for model in models(row.model):
            assert (model.__doc__ or "").strip(), model
