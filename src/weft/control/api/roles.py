"""Who holds which rules: roles and their bindings, as they are in the store at this moment.

Rules only add up; whoever is bound to none may do nothing. The group ``system:masters`` may do all even
when every binding is lost, as in Kubernetes: otherwise nobody could repair them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from weft.control.api import builtin
from weft.control.api.rules import EVERYTHING, Ask, Rule
from weft.control.api.subject import MASTERS, Subject
from weft.model.catalog import RBAC
from weft.store.interface import Store, Stored

ROLE: Final = f"{RBAC}/Role"
CLUSTER_ROLE: Final = f"{RBAC}/ClusterRole"
ROLE_BINDING: Final = f"{RBAC}/RoleBinding"
CLUSTER_ROLE_BINDING: Final = f"{RBAC}/ClusterRoleBinding"
KINDS: Final = (ROLE, CLUSTER_ROLE, ROLE_BINDING, CLUSTER_ROLE_BINDING)
ACCOUNT_PREFIX: Final = "system:serviceaccount:"

Wire = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer, and what it comes from."""

    allowed: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Binding:
    """``what`` names it; ``namespace`` empty is everywhere."""

    what: str
    namespace: str
    subjects: tuple[Wire, ...]
    kind: str
    role: str

    def holder(self, subject: Subject) -> str:
        """How the subject comes to it, empty when it does not."""
        for one in self.subjects:
            name = str(one.get("name") or "")
            match one.get("kind"):
                case "User" if name == subject.name:
                    return f'User "{name}"'
                case "Group" if name in subject.groups:
                    return f'Group "{name}"'
                case "ServiceAccount":
                    place = one.get("namespace") or self.namespace
                    if place and subject.name == f"{ACCOUNT_PREFIX}{place}:{name}":
                        return f'ServiceAccount "{name}/{place}"'
        return ""


@dataclass(slots=True)
class _Book:
    """Everything of these kinds, indexed. ``versions`` is what it was made of."""

    versions: tuple[tuple[str, str, str, int], ...] = ()
    roles: dict[tuple[str, str], tuple[Rule, ...]] = field(default_factory=dict)
    cluster_roles: dict[str, Wire] = field(default_factory=dict)
    everywhere: list[_Binding] = field(default_factory=list)
    within: dict[str, list[_Binding]] = field(default_factory=dict)


class Roles:
    """Answers for one store; without one only the built-in roles are known."""

    def __init__(self, store: Store | None = None) -> None:
        self._store = store
        self._revision = -1
        self._book = _read(())

    async def decide(self, subject: Subject, ask: Ask) -> Decision:
        """Whether the subject may do it."""
        if MASTERS in subject.groups:
            return Decision(True, f'RBAC: allowed to Group "{MASTERS}"')
        book = await self._fresh()
        for binding, holder in self._bindings(book, subject, ask.namespace):
            if any(rule.allows(ask) for rule in self._given(book, binding)):
                why = f'{binding.what} of {binding.kind} "{binding.role}" to {holder}'
                return Decision(True, f"RBAC: allowed by {why}")
        return Decision(False)

    async def rules(self, subject: Subject, namespace: str) -> tuple[Rule, ...]:
        """All that the subject holds in a namespace (empty: everywhere)."""
        if MASTERS in subject.groups:
            return EVERYTHING
        book = await self._fresh()
        held = self._bindings(book, subject, namespace)
        return tuple(dict.fromkeys(rule for binding, _ in held for rule in self._given(book, binding)))

    async def namespaces(self, subject: Subject, ask: Ask) -> tuple[str, ...]:
        """The namespaces in which a RoleBinding lets the subject do it."""
        book = await self._fresh()
        found = []
        for namespace, bindings in book.within.items():
            held = [one for one in bindings if one.holder(subject)]
            if any(rule.allows(ask) for one in held for rule in self._given(book, one)):
                found.append(namespace)
        return tuple(sorted(found))

    async def of_role(self, kind: str, namespace: str, name: str) -> tuple[Rule, ...] | None:
        """The rules of a role (``Role`` or ``ClusterRole``); None when there is none."""
        book = await self._fresh()
        if kind == "Role":
            return book.roles.get((namespace, name))
        if name not in book.cluster_roles and name not in builtin.ROLES:
            return None
        return tuple(_cluster_rules(book, name, set()))

    def _bindings(self, book: _Book, subject: Subject, namespace: str) -> Iterator[tuple[_Binding, str]]:
        for binding in (*book.everywhere, *(book.within.get(namespace, ()) if namespace else ())):
            if holder := binding.holder(subject):
                yield binding, holder

    @staticmethod
    def _given(book: _Book, binding: _Binding) -> Iterable[Rule]:
        if binding.kind == "Role":
            return book.roles.get((binding.namespace, binding.role), ())
        return _cluster_rules(book, binding.role, set())

    async def _fresh(self) -> _Book:
        if self._store is None or self._store.revision == self._revision:
            return self._book
        revision = self._store.revision
        found = [stored for kind in KINDS for stored in await self._store.list(kind)]
        if _versions(found) != self._book.versions:
            self._book = _read(found)
        self._revision = revision
        return self._book


def _versions(found: Sequence[Stored]) -> tuple[tuple[str, str, str, int], ...]:
    return tuple((one.key.kind, one.key.namespace, one.key.name, one.revision) for one in found)


def _read(found: Sequence[Stored]) -> _Book:
    book = _Book(versions=_versions(found))
    for role in builtin.bindings():
        book.everywhere.append(_binding("ClusterRoleBinding", "", role))
    for stored in found:
        wire, key = msgspec.json.decode(stored.body), stored.key
        match key.kind:
            case "rbac.authorization.k8s.io/Role":
                book.roles[key.namespace, key.name] = tuple(map(Rule.of, wire.get("rules") or ()))
            case "rbac.authorization.k8s.io/ClusterRole":
                book.cluster_roles[key.name] = wire
            case "rbac.authorization.k8s.io/RoleBinding":
                made = _binding("RoleBinding", key.namespace, wire)
                book.within.setdefault(key.namespace, []).append(made)
            case _ if key.name not in builtin.BINDINGS:
                book.everywhere.append(_binding("ClusterRoleBinding", "", wire))
    return book


def _binding(kind: str, namespace: str, wire: Wire) -> _Binding:
    name, role = wire["metadata"]["name"], wire.get("roleRef") or {}
    return _Binding(
        what=f'{kind} "{name}{f"/{namespace}" if namespace else ""}"',
        namespace=namespace,
        subjects=tuple(wire.get("subjects") or ()),
        kind=str(role.get("kind")),
        role=str(role.get("name")),
    )


def _cluster_rules(book: _Book, name: str, seen: set[str]) -> Iterator[Rule]:
    """The rules of a ClusterRole: its own, or with an aggregation rule those of the roles it gathers."""
    if name in seen:
        return
    seen.add(name)
    if (own := builtin.ROLES.get(name)) is not None:
        yield from own.rules
        selectors: Sequence[Wire] = []
        if own.gathers:
            selectors = [{"matchLabels": {builtin.AGGREGATE.format(own.gathers): "true"}}]
    else:
        wire = book.cluster_roles.get(name, {})
        gathers = wire.get("aggregationRule")
        if gathers is None:
            yield from map(Rule.of, wire.get("rules") or ())
        selectors = (gathers or {}).get("clusterRoleSelectors") or []
    for selector in selectors:
        for other, wire in book.cluster_roles.items():
            if selects(selector, wire["metadata"].get("labels") or {}):
                yield from _cluster_rules(book, other, seen)


def selects(selector: Wire, labels: Mapping[str, str]) -> bool:
    """Kubernetes' label selector; an empty one selects everything, a broken one nothing."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for demand in selector.get("matchExpressions") or ():
        key, values = demand.get("key"), demand.get("values") or ()
        match demand.get("operator"):
            case "In":
                holds = key in labels and labels[key] in values
            case "NotIn":
                holds = labels.get(key) not in values
            case "Exists":
                holds = key in labels
            case "DoesNotExist":
                holds = key not in labels
            case _:
                holds = False
        if not holds:
            return False
    return True
