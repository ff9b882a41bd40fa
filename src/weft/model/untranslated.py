"""Fields that are read but not yet translated for Envoy: their use is reported, never ignored in silence.

A path stands for the field and all that is in it; lists are ``[]``, maps ``{}``. The table may only shrink;
``docs/reference/untranslated.txt`` is made from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from weft.errors import Origin, Problem, Severity
from weft.model.catalog import by_id
from weft.model.resource import Resource
from weft.model.unsupported import UNSUPPORTED, VALUES
from weft.model.walk import used
from weft.yaml import Path, join

UNTRANSLATED: Final = "WEFT0001"


# What these fields say when they say nothing new: as Kubernetes' API server writes it, or as weft does it.
_SILENT: Final[dict[str, object]] = {
    "spec.allocateLoadBalancerNodePorts": True,
    "spec.externalTrafficPolicy": "Cluster",
    "spec.ipFamilies": ("IPv4",),
    "spec.ipFamilyPolicy": "SingleStack",
    "spec.defaultConfig.controlPlaneAuthPolicy": "MUTUAL_TLS",
    "spec.defaultConfig.holdApplicationUntilProxyStarts": True,
    "spec.verifyCertificateAtClient": True,
}

FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "weft.dev/MeshConfig": (
        "spec.ca",
        "spec.certificates",
        "spec.enablePrometheusMerge",
    ),
}


def findings(resource: Resource, where: Callable[[Path], Origin | None] | None = None) -> tuple[Problem, ...]:
    """A warning for each field that was given and is not yet translated."""
    key = resource.key
    table, never = set(FIELDS.get(key.kind, ())), UNSUPPORTED.get(key.kind, {})
    vain = VALUES.get(key.kind, {})
    if not table and not never:
        return ()
    kind = key.kind.rpartition("/")[2]
    found: list[Problem] = []
    for shape, path, value in used(resource):
        in_vain = vain.get(shape, {}).get(value) if shape in vain else None
        if shape not in table and shape not in never and in_vain is None:
            continue
        if shape in _SILENT and value == _SILENT[shape]:
            continue
        whole = path == ("spec",)
        message = f"weft does not translate {kind} yet" if whole else "weft does not translate this field yet"
        if shape in never:
            message = f"this has no effect: {never[shape]}"
        elif in_vain is not None:
            message = f"this opens nothing: {in_vain}"
        hint = "it is kept, and has no effect"
        place = where(path) if where else None
        found.append(Problem(UNTRANSLATED, message, place, hint, join(path), Severity.WARNING))
    return tuple(found)


def listing(fields: Iterable[tuple[str, tuple[str, ...]]] = FIELDS.items()) -> str:
    """The committed list: one ``group/Kind path`` a line, sorted."""
    lines = sorted(f"{kind} {path}" for kind, paths in fields for path in paths)
    return "".join(f"{line}\n" for line in lines)


def unknown() -> tuple[str, ...]:
    """Paths in the table that no model has; there must be none."""
    from weft.model.walk import paths

    return tuple(
        f"{kind} {path}"
        for kind, wanted in (*FIELDS.items(), *UNSUPPORTED.items())
        for path in wanted
        if (row := by_id(kind)) is None or path not in paths(row.model)
    )
