"""Roles and bindings: what Kubernetes refuses is refused, with its path."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from weft.errors import Severity
from weft.model import fixed
from weft.model.parse import parse_object

GROUP = "rbac.authorization.k8s.io"


def errors(kind: str, text: str) -> set[str]:
    body: dict[str, Any] = yaml.safe_load(text)
    place = {} if kind.startswith("Cluster") else {"namespace": "shop"}
    body["metadata"] = {"name": "x", **place, **body.get("metadata", {})}
    _, problems = parse_object({"apiVersion": f"{GROUP}/v1", "kind": kind, **body})
    return {one.path for one in problems if one.severity is Severity.ERROR}


@pytest.mark.parametrize(
    ("kind", "text", "path"),
    [
        ("Role", "{}", None),
        ("Role", "{metadata: {name: 'system:a.B_c'}}", None),
        ("Role", "{metadata: {name: ..a}}", None),
        ("Role", "{metadata: {name: a/b}}", "metadata.name"),
        ("Role", "{metadata: {name: a%b}}", "metadata.name"),
        ("Role", "{metadata: {name: ..}}", "metadata.name"),
        ("Role", "{rules: [{apiGroups: [''], resources: [a]}]}", "rules[0].verbs"),
        ("Role", "{rules: [{verbs: [get], resources: [a]}]}", "rules[0].apiGroups"),
        ("Role", "{rules: [{verbs: [get], apiGroups: ['']}]}", "rules[0].resources"),
        ("Role", "{rules: [{verbs: [get], nonResourceURLs: [/a]}]}", "rules[0].nonResourceURLs"),
        ("ClusterRole", "{rules: [{verbs: [get], nonResourceURLs: [/a]}]}", None),
        (
            "ClusterRole",
            "{rules: [{verbs: [get], nonResourceURLs: [/a], resources: [b]}]}",
            "rules[0].nonResourceURLs",
        ),
        (
            "Role",
            "{rules: [{verbs: [get], apiGroups: [''], resources: [a, b], resourceNames: [c]}]}",
            "rules[0].resourceNames",
        ),
        ("ClusterRole", "{aggregationRule: {}}", "aggregationRule.clusterRoleSelectors"),
        ("RoleBinding", "{roleRef: {kind: Role, name: a}}", None),
        ("RoleBinding", "{roleRef: {kind: ClusterRole, name: a}}", None),
        ("RoleBinding", "{}", "roleRef"),
        ("RoleBinding", "{roleRef: {kind: Pod, name: a}}", "roleRef.kind"),
        ("RoleBinding", "{roleRef: {kind: Role, name: ''}}", "roleRef.name"),
        ("RoleBinding", "{roleRef: {kind: Role, name: a/b}}", "roleRef.name"),
        ("RoleBinding", "{roleRef: {kind: Role, name: a, apiGroup: b}}", "roleRef.apiGroup"),
        ("ClusterRoleBinding", "{roleRef: {kind: Role, name: a}}", "roleRef.kind"),
        (
            "RoleBinding",
            "{roleRef: {kind: Role, name: a}, subjects: [{kind: ServiceAccount, name: b}]}",
            None,
        ),
        (
            "ClusterRoleBinding",
            "{roleRef: {kind: ClusterRole, name: a}, subjects: [{kind: ServiceAccount, name: b}]}",
            "subjects[0].namespace",
        ),
        (
            "RoleBinding",
            "{roleRef: {kind: Role, name: a}, subjects: [{kind: ServiceAccount, name: B}]}",
            "subjects[0].name",
        ),
        (
            "RoleBinding",
            f"{{roleRef: {{kind: Role, name: a}}, subjects: "
            f"[{{kind: ServiceAccount, name: b, apiGroup: {GROUP}}}]}}",
            "subjects[0].apiGroup",
        ),
        (
            "RoleBinding",
            "{roleRef: {kind: Role, name: a}, subjects: [{kind: User, name: b, apiGroup: c}]}",
            "subjects[0].apiGroup",
        ),
        ("RoleBinding", "{roleRef: {kind: Role, name: a}, subjects: [{kind: User}]}", "subjects[0].name"),
        (
            "RoleBinding",
            "{roleRef: {kind: Role, name: a}, subjects: [{kind: Robot, name: b}]}",
            "subjects[0].kind",
        ),
    ],
)
def test_verdicts(kind: str, text: str, path: str | None) -> None:
    assert errors(kind, text) == ({path} if path else set())


def test_a_binding_stays_with_its_role() -> None:
    before = {"roleRef": {"kind": "Role", "name": "a"}}
    kind = f"{GROUP}/RoleBinding"
    assert not list(fixed.flaws(kind, before, {"roleRef": {**before["roleRef"], "apiGroup": GROUP}}))
    (flaw,) = fixed.flaws(kind, before, {"roleRef": {"kind": "Role", "name": "b"}})
    assert flaw.path == ("roleRef", "name")
