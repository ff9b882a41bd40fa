"""What the mesh looks at: namespaces by MeshConfig's ``discoverySelectors``, and ServiceEntries that an
administrator keeps narrower than they ask to be (``serviceEntryVisibility``).

Rules: istio pkg/kube/namespace/filter.go, pilot/pkg/model/serviceentry_visibility.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from weft.compile.gatewayapi.namespaces import selected
from weft.model.core import ConfigMap, Namespace
from weft.model.mesh_config import MeshConfig, ServiceEntryVisibility
from weft.model.resource import Key, LabelSelector, Resource

Table = Mapping[Key, Resource]
Tables = Mapping[type[Resource], Table]
Changes = Mapping[type[Resource], Mapping[Key, Resource | None]]

_NAME: Final = "kubernetes.io/metadata.name"
# They say how the mesh is, wherever they are.
_ALWAYS: Final = frozenset({MeshConfig, ConfigMap, Namespace})
_NO_TABLE: Final[Table] = {}
_PRIVATE: Final = "."
_NOBODY: Final = "~"


def hidden(
    selectors: tuple[LabelSelector, ...], tables: Tables, spaces: Mapping[Key, Namespace]
) -> frozenset[str]:
    """Namespaces of which nothing is looked at: those that no selector chooses. Without one, none is hidden.

    A namespace without a resource of its own bears no label but its name.
    """
    if not selectors:
        return frozenset()
    labels = {key.name: space.metadata.labels or {} for key, space in spaces.items()}
    used = {key.namespace for table in tables.values() for key in table} - {""}
    return frozenset(
        name
        for name in used
        if not any(selected(one, {_NAME: name, **labels.get(name, {})}) for one in selectors)
    )


def seen(kind: type[Resource], table: Table, out_of_sight: frozenset[str]) -> Table:
    """What is looked at of a table; the very same when that is all of it."""
    if kind in _ALWAYS:
        return table
    kept = {key: resource for key, resource in table.items() if key.namespace not in out_of_sight}
    return table if len(kept) == len(table) else kept


def changes_between(before: Tables, after: Tables) -> Changes:
    """What differs, by kind; None is a removal."""
    found: dict[type[Resource], dict[Key, Resource | None]] = {}
    for kind in before.keys() | after.keys():
        old, new = before.get(kind, _NO_TABLE), after.get(kind, _NO_TABLE)
        if old is new:
            continue
        change: dict[Key, Resource | None] = {key: None for key in old if key not in new}
        change |= {key: resource for key, resource in new.items() if old.get(key) is not resource}
        if change:
            found[kind] = change
    return found


def caps(rule: ServiceEntryVisibility | None, spaces: Mapping[Key, Namespace]) -> Mapping[str, str]:
    """How far ServiceEntries may be seen, by namespace: ``NAMESPACE``, ``NONE``; ``""``: of any other."""
    if rule is None or not rule.apply_to_sidecars:
        return {}
    found = {"": _cap(rule, {})}
    for key, space in spaces.items():
        found[key.name] = _cap(rule, {_NAME: key.name, **(space.metadata.labels or {})})
    return {name: cap for name, cap in found.items() if cap != found[""] or name == ""}


def _cap(rule: ServiceEntryVisibility, labels: Mapping[str, str]) -> str:
    """The first policy whose rules all match decides; one without rules matches everything."""
    for policy in rule.policies or ():
        if all(selected(one.namespace_selector, labels) for one in policy.matching_rules or ()):
            return str(policy.visibility)
    return str(rule.default_visibility)


def capped(export_to: Iterable[str], namespace: str, limits: Mapping[str, str]) -> tuple[str, ...]:
    """``exportTo`` of a ServiceEntry, never wider than its namespace may."""
    asked = tuple(export_to)
    cap = limits.get(namespace, limits.get("", ""))
    if cap == "NONE":
        return (_NOBODY,)
    if cap != "NAMESPACE" or set(asked) == {_NOBODY}:
        return asked
    return (_PRIVATE,) if {"*", _PRIVATE, namespace} & set(asked) else (_NOBODY,)
