"""What the API serves, in the three forms that clients ask for: legacy, by group, aggregated."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any, Final

from weft import __version__
from weft.model.catalog import KINDS, KindRow

_VERBS: Final = (
    "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch",
)  # fmt: skip
_STATUS_VERBS: Final = ("get", "patch", "update")
# Served without the catalog: kubectl describe lists events, kubectl auth asks who it is and what it may.
_EVENTS: Final = {
    "name": "events", "singularName": "event", "namespaced": True, "kind": "Event",
    "verbs": ["get", "list", "watch"], "shortNames": ["ev"],
}  # fmt: skip
_REVIEWS: Final = {
    "authentication.k8s.io": ("SelfSubjectReview",),
    "authorization.k8s.io": (
        "LocalSubjectAccessReview",
        "SelfSubjectAccessReview",
        "SelfSubjectRulesReview",
        "SubjectAccessReview",
    ),
}
_BUILT_IN: Final = frozenset({*_REVIEWS, "discovery.k8s.io", "rbac.authorization.k8s.io"})


def _review(kind: str) -> dict[str, Any]:
    return {
        "name": f"{kind.lower()}s", "singularName": kind.lower(), "namespaced": kind.startswith("Local"),
        "kind": kind, "verbs": ["create"],
    }  # fmt: skip


def version() -> dict[str, str]:
    """``/version``: the level of the API's conventions is Kubernetes 1.32."""
    return {
        "major": "1",
        "minor": "32",
        "gitVersion": f"v1.32.0+weft-{__version__}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": platform.python_implementation(),
        "platform": f"linux/{platform.machine()}",
    }


def groups() -> dict[str, tuple[str, ...]]:
    """Named groups with their versions, the preferred first.

    In the order that an API server lists them: its own, then the others by name. Clients take a word that
    two groups know, as ``gateway``, to mean the first one's.
    """
    found: dict[str, list[str]] = {}
    for row in KINDS:
        if row.group:
            found.setdefault(row.group, []).extend(row.versions)
    named = {group: tuple(dict.fromkeys(versions)) for group, versions in found.items()}
    every = named | dict.fromkeys(_REVIEWS, ("v1",))
    return dict(sorted(every.items(), key=lambda item: (item[0] not in _BUILT_IN, item[0])))


def rows(group: str, group_version: str) -> tuple[KindRow, ...]:
    """The kinds that a group serves in a version."""
    return tuple(row for row in KINDS if row.group == group and group_version in row.versions)


def api_versions() -> dict[str, Any]:
    """``/api``."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def api_groups() -> dict[str, Any]:
    """``/apis``."""
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [_group(*item) for item in groups().items()],
    }


def api_group(group: str) -> dict[str, Any] | None:
    """``/apis/GROUP``."""
    versions = groups().get(group)
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, versions)} if versions else None


def _group(group: str, versions: Sequence[str]) -> dict[str, Any]:
    entries = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": entries, "preferredVersion": entries[0]}


def api_resources(group: str, group_version: str) -> dict[str, Any] | None:
    """``/api/v1``, ``/apis/GROUP/VERSION``."""
    resources: list[dict[str, Any]] = []
    for row in rows(group, group_version):
        resources.append(_resource(row))
        if row.status:
            resources.append(
                {
                    "name": f"{row.plural}/status", "singularName": "", "namespaced": row.namespaced,
                    "kind": row.kind, "verbs": list(_STATUS_VERBS),
                }
            )  # fmt: skip
    resources += _others(group, group_version)
    if not resources:
        return None
    name = f"{group}/{group_version}" if group else group_version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": resources}


def _others(group: str, group_version: str) -> list[dict[str, Any]]:
    if (group, group_version) == ("", "v1"):
        return [_EVENTS]
    if group_version == "v1":
        return [_review(kind) for kind in _REVIEWS.get(group, ())]
    return []


def _resource(row: KindRow) -> dict[str, Any]:
    return {
        "name": row.plural,
        "singularName": row.singular,
        "namespaced": row.namespaced,
        "kind": row.kind,
        "verbs": list(_VERBS),
        **({"shortNames": list(row.short_names)} if row.short_names else {}),
        **({"categories": list(row.categories)} if row.categories else {}),
    }


def aggregated(names: Sequence[str], form: str) -> dict[str, Any]:
    """``/api`` (names ``""``) or ``/apis`` in one answer; ``form`` is ``v2`` or ``v2beta1``."""
    items = [
        {
            "metadata": {"name": name, "creationTimestamp": None},
            "versions": [_aggregated_version(name, version) for version in _versions(name)],
        }
        for name in names
    ]
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{form}",
        "metadata": {},
        "items": items,
    }


def _versions(group: str) -> Sequence[str]:
    return groups()[group] if group else ("v1",)


def _aggregated_version(group: str, group_version: str) -> dict[str, Any]:
    resources: list[dict[str, Any]] = []
    for row in rows(group, group_version):
        kind = {"group": row.group, "version": group_version, "kind": row.kind}
        entry = _aggregated_resource(_resource(row), kind)
        if row.status:
            entry["subresources"] = [
                {"subresource": "status", "responseKind": kind, "verbs": list(_STATUS_VERBS)}
            ]
        resources.append(entry)
    resources += [
        _aggregated_resource(other, {"group": group, "version": group_version, "kind": other["kind"]})
        for other in _others(group, group_version)
    ]
    return {"version": group_version, "resources": resources, "freshness": "Current"}


def _aggregated_resource(resource: dict[str, Any], kind: dict[str, str]) -> dict[str, Any]:
    optional: dict[str, Any] = {n: resource[n] for n in ("shortNames", "categories") if n in resource}
    return {
        "resource": resource["name"],
        "responseKind": kind,
        "scope": "Namespaced" if resource["namespaced"] else "Cluster",
        "singularResource": resource["singularName"],
        "verbs": resource["verbs"],
        **optional,
    }
