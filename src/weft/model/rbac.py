"""Role, ClusterRole, RoleBinding and ClusterRoleBinding of Kubernetes 1.32: who may do what with the API.

They configure the control plane's own door, and no proxy. Rules of validation: Kubernetes'
pkg/apis/rbac/validation, after its defaults (an ``apiGroup`` that is left out is the only one it can be).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydantic import Field

from weft.model.base import Flaw, Shape
from weft.model.resource import LabelSelector, Resource
from weft.model.scalars import LABEL, Form, Text

RBAC: Final = "rbac.authorization.k8s.io"
# ValidateServiceAccountName: a DNS subdomain.
_ACCOUNT: Final = Form(rf"{LABEL}(?:\.{LABEL})*", "a service account's name", longest=253)
_WHOM: Final = ("User", "Group", "ServiceAccount")


class PolicyRule(Shape):
    """What may be done. One rule is about resources, or about paths that are no resources."""

    verbs: tuple[Text, ...] | None = None
    """get, list, watch, create, update, patch, delete, deletecollection; also bind, escalate, impersonate;
    ``*`` is all."""
    api_groups: tuple[Text, ...] | None = None
    """Groups of the resources; "" is the core group, ``*`` all."""
    resources: tuple[Text, ...] | None = None
    """In the plural, as services, gateways/status, ``*/status``; ``*`` is all."""
    resource_names: tuple[Text, ...] | None = None
    """Only objects of these names; none is all."""
    non_resource_urls: tuple[Text, ...] | None = Field(None, alias="nonResourceURLs")
    """Paths, as /metrics; ``*`` at the end stands for any rest."""

    def check(self, *, namespaced: bool) -> Iterator[Flaw]:
        """What makes it no rule; ``namespaced`` when it stands in a Role."""
        if not self.verbs:
            yield Flaw(("verbs",), "a rule needs at least one verb", "add get, list, watch or others")
        if self.non_resource_urls:
            if namespaced:
                hint = "write a ClusterRole for them"
                yield Flaw(("nonResourceURLs",), "a Role cannot be about paths", hint)
            if self.api_groups or self.resources or self.resource_names:
                hint = "make two rules of it"
                yield Flaw(("nonResourceURLs",), "a rule is about resources or about paths", hint)
            return
        if not self.api_groups:
            hint = 'write [""] for the core group'
            yield Flaw(("apiGroups",), "a rule about resources needs at least one group", hint)
        if not self.resources:
            yield Flaw(("resources",), "a rule about resources needs at least one of them")
        if self.resource_names and len(self.resources or ()) > 1:
            hint = "make a rule for each resource"
            yield Flaw(("resourceNames",), "names go with one resource only", hint)


class AggregationRule(Shape):
    """Takes a ClusterRole's rules from other ClusterRoles."""

    cluster_role_selectors: tuple[LabelSelector, ...] | None = None
    """ClusterRoles whose labels match one of these."""


class Subject(Shape):
    """Who gets a role."""

    kind: Text
    """User, Group or ServiceAccount."""
    api_group: Text | None = None
    """rbac.authorization.k8s.io for users and groups, nothing for service accounts; may be left out."""
    name: Text = ""
    namespace: Text | None = None
    """Of a service account."""

    def check(self, *, namespaced: bool) -> Iterator[Flaw]:
        """What makes it nobody; ``namespaced`` when it stands in a RoleBinding."""
        if not self.name:
            yield Flaw(("name",), "a name is missing", "add it")
        if self.kind not in _WHOM:
            yield Flaw(("kind",), f"{self.kind!r} is nobody", f"write {', '.join(_WHOM)}")
            return
        if self.kind == "ServiceAccount":
            if self.name:
                try:
                    _ACCOUNT.check(self.name)
                except ValueError as error:
                    yield Flaw(("name",), str(error))
            if self.api_group:
                yield Flaw(("apiGroup",), "service accounts are of no group", "leave it out")
            if not namespaced and not self.namespace:
                yield Flaw(("namespace",), "the namespace of the service account is missing", "add it")
        elif self.api_group not in (None, "", RBAC):
            yield Flaw(("apiGroup",), f"users and groups are of {RBAC}", "leave it out")


class RoleRef(Shape):
    """The role that is given. It stays: for another one, make another binding."""

    api_group: Text | None = None
    """rbac.authorization.k8s.io; may be left out."""
    kind: Text
    name: Text

    def check(self, kinds: tuple[str, ...]) -> Iterator[Flaw]:
        """What makes it no role."""
        if self.api_group not in (None, "", RBAC):
            yield Flaw(("apiGroup",), f"roles are of {RBAC}", "leave it out")
        if self.kind not in kinds:
            yield Flaw(("kind",), f"{self.kind!r} cannot be given here", f"write {' or '.join(kinds)}")
        if not self.name:
            yield Flaw(("name",), "a name is missing", "add it")
        elif self.name in {".", ".."} or "/" in self.name or "%" in self.name:
            yield Flaw(("name",), f"{self.name!r} is the name of no role")


def _rules(rules: tuple[PolicyRule, ...] | None, *, namespaced: bool) -> Iterator[Flaw]:
    for number, rule in enumerate(rules or ()):
        for flaw in rule.check(namespaced=namespaced):
            yield Flaw(("rules", number, *flaw.path), flaw.message, flaw.hint)


class Role(Resource):
    """What may be done in its namespace."""

    rules: tuple[PolicyRule, ...] | None = None
    """Each allows something; none takes anything away."""

    def flaws(self) -> Iterator[Flaw]:
        """What Kubernetes asks of a Role."""
        yield from super().flaws()
        yield from _rules(self.rules, namespaced=True)


class ClusterRole(Resource):
    """What may be done in all namespaces, or in that of the RoleBinding that gives it."""

    rules: tuple[PolicyRule, ...] | None = None
    """Each allows something; none takes anything away."""
    aggregation_rule: AggregationRule | None = None
    """The rules are those of other ClusterRoles."""

    def flaws(self) -> Iterator[Flaw]:
        """What Kubernetes asks of a ClusterRole."""
        yield from super().flaws()
        yield from _rules(self.rules, namespaced=False)
        if self.aggregation_rule is not None and not self.aggregation_rule.cluster_role_selectors:
            path = ("aggregationRule", "clusterRoleSelectors")
            yield Flaw(path, "at least one selector is needed", "add it, or leave aggregationRule out")


def _binding(
    subjects: tuple[Subject, ...] | None, role: RoleRef, kinds: tuple[str, ...], *, namespaced: bool
) -> Iterator[Flaw]:
    for flaw in role.check(kinds):
        yield Flaw(("roleRef", *flaw.path), flaw.message, flaw.hint)
    for number, subject in enumerate(subjects or ()):
        for flaw in subject.check(namespaced=namespaced):
            yield Flaw(("subjects", number, *flaw.path), flaw.message, flaw.hint)


class RoleBinding(Resource):
    """Gives a Role or a ClusterRole in its namespace."""

    subjects: tuple[Subject, ...] | None = None
    """To whom."""
    role_ref: RoleRef
    """What."""

    def flaws(self) -> Iterator[Flaw]:
        """What Kubernetes asks of a RoleBinding."""
        yield from super().flaws()
        yield from _binding(self.subjects, self.role_ref, ("Role", "ClusterRole"), namespaced=True)


class ClusterRoleBinding(Resource):
    """Gives a ClusterRole everywhere."""

    subjects: tuple[Subject, ...] | None = None
    """To whom."""
    role_ref: RoleRef
    """What."""

    def flaws(self) -> Iterator[Flaw]:
        """What Kubernetes asks of a ClusterRoleBinding."""
        yield from super().flaws()
        yield from _binding(self.subjects, self.role_ref, ("ClusterRole",), namespaced=False)
