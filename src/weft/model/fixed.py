"""Fields that cannot be changed once they are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from weft.model.base import Flaw
from weft.yaml import Path

_FIXED: Final[dict[str, tuple[Path, ...]]] = {
    "gateway.networking.k8s.io/GatewayClass": (("spec", "controllerName"),),
    "rbac.authorization.k8s.io/RoleBinding": (("roleRef", "kind"), ("roleRef", "name")),
    "rbac.authorization.k8s.io/ClusterRoleBinding": (("roleRef", "kind"), ("roleRef", "name")),
}
_SEALED: Final = {"/ConfigMap": ("data", "binaryData"), "/Secret": ("data", "stringData")}


def flaws(kind: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Flaw]:
    """What a change of an object of ``kind`` (``Key.kind``) must not touch. Both are wire objects."""
    for path in _FIXED.get(kind, ()):
        if _at(before, path) != _at(after, path) and _at(before, path) is not None:
            yield Flaw(path, "this cannot be changed", "delete the object and make it anew")
    fields = _SEALED.get(kind, ())
    if not fields or before.get("immutable") is not True:
        return
    hint = "delete the object and make it anew"
    if after.get("immutable") is not True:
        yield Flaw(("immutable",), "what is immutable stays so", hint)
    for field in fields:
        if (before.get(field) or {}) != (after.get(field) or {}):
            yield Flaw((field,), "the object is immutable", hint)


def _at(data: Any, path: Path) -> Any:
    for step in path:
        data = data.get(step) if isinstance(data, Mapping) else None
    return data
