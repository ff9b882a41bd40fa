"""What of the annotation ``proxy.istio.io/config`` has no effect: it cannot be read, or is not heeded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from pydantic import ValidationError

from weft.compile.istio.proxy_config import ANNOTATION
from weft.errors import Problem, Severity
from weft.model.mesh_config import MeshConfig
from weft.model.resource import Key, Resource
from weft.model.untranslated import findings
from weft.yaml import load

UNHEEDED: Final = "WEFT0102"
_FIELD: Final = "spec.defaultConfig."


def annotation_problems(*tables: Mapping[Key, Resource]) -> tuple[Problem, ...]:
    """Those of all resources, in the order of their names."""
    return tuple(
        problem
        for table in tables
        for key, resource in sorted(table.items())
        if (text := (resource.metadata.annotations or {}).get(ANNOTATION)) is not None
        for problem in _problems(key, text)
    )


def _problems(key: Key, text: str) -> Iterator[Problem]:
    documents, wrong = load(text, ANNOTATION)
    said = documents[0].data if documents and not wrong else {}
    body = {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "MeshConfig",
        "metadata": {"name": "x", "namespace": "x"},
        "spec": {"defaultConfig": said},
    }
    path = f"metadata.annotations.{ANNOTATION}"
    try:
        config = MeshConfig.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][2:])
        yield _problem(key, f"none of it is heeded: {where}: {first['msg']}", path)
        return
    if wrong:
        yield _problem(key, f"none of it is heeded: {wrong[0].message}", path)
    for found in findings(config):
        message = f"{found.path.removeprefix(_FIELD)}: {found.message}"
        yield replace(found, message=message, path=path, resource=str(key))


def _problem(key: Key, message: str, path: str) -> Problem:
    hint = "write the fields of MeshConfig's defaultConfig as YAML"
    return Problem(UNHEEDED, message, None, hint, path, severity=Severity.WARNING, resource=str(key))
