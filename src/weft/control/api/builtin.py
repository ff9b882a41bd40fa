"""The roles that are always there, for the kinds that weft serves. Kubernetes' names and meanings.

``view`` reads everything but secrets and roles; ``edit`` changes what is not about access; ``admin`` gives
roles in its namespace; ``cluster-admin`` may do all. Rules of ClusterRoles labelled
``rbac.authorization.k8s.io/aggregate-to-view`` (``-edit``, ``-admin``) come with them, as in Kubernetes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from weft.control.api.rules import EVERYTHING, Rule
from weft.control.api.subject import AUTHENTICATED, MASTERS, UNAUTHENTICATED
from weft.model.catalog import KINDS, RBAC, WEFT, KindRow

VIEWERS: Final = "weft:viewers"
EDITORS: Final = "weft:editors"
MONITORING: Final = "system:monitoring"
AGGREGATE: Final = "rbac.authorization.k8s.io/aggregate-to-{}"
_LABEL: Final = {"kubernetes.io/bootstrapping": "rbac-defaults"}

_READ: Final = ("get", "list", "watch")
_WRITE: Final = ("create", "delete", "deletecollection", "patch", "update")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltIn:
    """A ClusterRole. ``gathers``: the role to which labelled ClusterRoles add their rules."""

    name: str
    rules: tuple[Rule, ...]
    gathers: str = ""
    groups: tuple[str, ...] = ()
    binding: str = ""


def _about(rows: Iterable[KindRow], verbs: tuple[str, ...], *, status: bool = False) -> tuple[Rule, ...]:
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row.group, []).append(row.plural)
        if status and row.status:
            found[row.group].append(f"{row.plural}/status")
    return tuple(
        Rule(verbs=verbs, groups=(group,), resources=tuple(sorted(plurals)))
        for group, plurals in sorted(found.items())
    )


def _weft(verbs: tuple[str, ...], *resources: str) -> Rule:
    return Rule(verbs=verbs, groups=(WEFT,), resources=resources)


_SECRET: Final = [row for row in KINDS if row.id == "/Secret"]
_OPEN: Final = [row for row in KINDS if row.group != RBAC and row not in _SECRET]
_OWN: Final = [row for row in _OPEN if row.namespaced]

_VIEW: Final = (
    *_about(_OPEN, _READ, status=True),
    Rule(verbs=_READ, groups=("",), resources=("events",)),
    _weft(_READ, "convergence", "proxies", "telemetry"),
    Rule(verbs=("get",), urls=("/debug/syncz", "/metrics", "/sd")),
)
_EDIT: Final = (
    *_VIEW,
    *_about(_OWN, _WRITE),
    *_about(_SECRET, (*_READ, *_WRITE)),
    _weft(("create",), "proxies/admin", "proxies/tap"),
    _weft(("get",), "proxies/config"),
)
_ADMIN: Final = (
    *_EDIT,
    Rule(verbs=(*_READ, *_WRITE), groups=(RBAC,), resources=("rolebindings", "roles")),
    Rule(verbs=("create",), groups=("authorization.k8s.io",), resources=("localsubjectaccessreviews",)),
)
_HEALTH: Final = ("/healthz", "/livez", "/readyz", "/version", "/version/")
_DISCOVERY: Final = (*_HEALTH, "/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*")
_SELF: Final = ("selfsubjectaccessreviews", "selfsubjectrulesreviews")

ROLES: Final = {
    role.name: role
    for role in (
        BuiltIn(name="cluster-admin", rules=EVERYTHING, groups=(MASTERS,), binding="cluster-admin"),
        BuiltIn(name="admin", rules=_ADMIN, gathers="admin"),
        BuiltIn(name="edit", rules=_EDIT, gathers="edit", groups=(EDITORS,), binding="weft:editors"),
        BuiltIn(name="view", rules=_VIEW, gathers="view", groups=(VIEWERS,), binding="weft:viewers"),
        BuiltIn(
            name="system:basic-user",
            rules=(
                Rule(verbs=("create",), groups=("authorization.k8s.io",), resources=_SELF),
                Rule(verbs=("create",), groups=("authentication.k8s.io",), resources=("selfsubjectreviews",)),
            ),
            groups=(AUTHENTICATED,),
            binding="system:basic-user",
        ),
        BuiltIn(
            name="system:discovery",
            rules=(Rule(verbs=("get",), urls=_DISCOVERY),),
            groups=(AUTHENTICATED,),
            binding="system:discovery",
        ),
        BuiltIn(
            name="system:public-info-viewer",
            rules=(Rule(verbs=("get",), urls=_HEALTH),),
            groups=(AUTHENTICATED, UNAUTHENTICATED),
            binding="system:public-info-viewer",
        ),
        BuiltIn(
            name="system:monitoring",
            rules=(Rule(verbs=("get",), urls=("/debug/syncz", "/metrics", "/metrics/*", "/sd", *_HEALTH)),),
            groups=(MONITORING,),
            binding="system:monitoring",
        ),
    )
}
BINDINGS: Final = {role.binding: role for role in ROLES.values() if role.binding}


def roles() -> list[dict[str, Any]]:
    """As ClusterRoles."""
    found = []
    for role in ROLES.values():
        body: dict[str, Any] = {"metadata": {"name": role.name, "labels": dict(_LABEL)}}
        if role.gathers:
            selector = {"matchLabels": {AGGREGATE.format(role.gathers): "true"}}
            body["aggregationRule"] = {"clusterRoleSelectors": [selector]}
        found.append({**body, "rules": [rule.wire() for rule in role.rules]})
    return found


def bindings() -> list[dict[str, Any]]:
    """As ClusterRoleBindings."""
    return [
        {
            "metadata": {"name": name, "labels": dict(_LABEL)},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role.name},
            "subjects": [{"apiGroup": RBAC, "kind": "Group", "name": group} for group in role.groups],
        }
        for name, role in BINDINGS.items()
    ]
