"""Rules of roles: what one allows, and whether some cover another. Pure.

Semantics: Kubernetes' pkg/apis/rbac/v1/evaluation_helpers.go (what a rule allows) and
component-helpers/auth/rbac/validation/policy_comparator.go (what covers what).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

_ALL: Final = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One thing that somebody wants to do: with a resource, or (``path`` given) with what is none.

    ``namespace`` empty is all of them or a resource outside of namespaces; ``name`` empty is any object.
    """

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def whole_resource(self) -> str:
        """``gateways/status``."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource

    def __str__(self) -> str:
        """As Kubernetes words it."""
        if self.path:
            return f'{self.verb} path "{self.path}"'
        where = f'in the namespace "{self.namespace}"' if self.namespace else "at the cluster scope"
        return f'{self.verb} resource "{self.whole_resource}" in API group "{self.group}" {where}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of a role."""

    verbs: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()

    @classmethod
    def of(cls, wire: Mapping[str, Any]) -> Self:
        """Read a ``PolicyRule``."""
        return cls(
            verbs=tuple(wire.get("verbs") or ()),
            groups=tuple(wire.get("apiGroups") or ()),
            resources=tuple(wire.get("resources") or ()),
            names=tuple(wire.get("resourceNames") or ()),
            urls=tuple(wire.get("nonResourceURLs") or ()),
        )

    def wire(self) -> dict[str, list[str]]:
        """As a ``PolicyRule``."""
        fields = {
            "verbs": self.verbs, "apiGroups": self.groups, "resources": self.resources,
            "resourceNames": self.names, "nonResourceURLs": self.urls,
        }  # fmt: skip
        return {name: list(values) for name, values in fields.items() if values}

    def allows(self, ask: Ask) -> bool:
        """Whether this rule is about what is asked."""
        if not _has(self.verbs, ask.verb):
            return False
        if ask.path:
            return any(_url_covers(url, ask.path) for url in self.urls)
        return (
            _has(self.groups, ask.group)
            and _resource_in(self.resources, ask.resource, ask.subresource)
            and (not self.names or ask.name in self.names)
        )

    def covers(self, atom: Rule) -> bool:
        """Whether it allows all of ``atom``, which has one verb, resource, name or path at most."""
        names = not self.names or (bool(atom.names) and set(atom.names) <= set(self.names))
        return (
            all(_has(self.verbs, verb) for verb in atom.verbs)
            and all(_has(self.groups, group) for group in atom.groups)
            and all(_resource_in(self.resources, *_halves(resource)) for resource in atom.resources)
            and all(any(_url_covers(url, path) for url in self.urls) for path in atom.urls)
            and names
        )

    def atoms(self) -> Iterator[Rule]:
        """It in parts that are each covered by one rule or not at all."""
        for verb in self.verbs:
            for group in self.groups:
                for resource in self.resources:
                    whole = Rule(verbs=(verb,), groups=(group,), resources=(resource,))
                    yield from (replace(whole, names=(name,)) for name in self.names)
                    if not self.names:
                        yield whole
            for url in self.urls:
                yield Rule(verbs=(verb,), urls=(url,))

    def __str__(self) -> str:
        """As Kubernetes prints a rule that somebody lacks."""

        def texts(values: tuple[str, ...]) -> str:
            return "[" + ", ".join(f'"{value}"' for value in values) + "]"

        fields = {
            "APIGroups": self.groups, "Resources": self.resources, "ResourceNames": self.names,
            "NonResourceURLs": self.urls, "Verbs": self.verbs,
        }  # fmt: skip
        return "{" + ", ".join(f"{name}:{texts(values)}" for name, values in fields.items() if values) + "}"


EVERYTHING: Final = (
    Rule(verbs=(_ALL,), groups=(_ALL,), resources=(_ALL,)),
    Rule(verbs=(_ALL,), urls=(_ALL,)),
)


def uncovered(owned: Iterable[Rule], wanted: Iterable[Rule]) -> tuple[Rule, ...]:
    """The parts of ``wanted`` that no rule of ``owned`` covers."""
    owned = tuple(owned)
    missing = [atom for rule in wanted for atom in rule.atoms() if not any(own.covers(atom) for own in owned)]
    return tuple(dict.fromkeys(missing))


def _has(values: tuple[str, ...], value: str) -> bool:
    return _ALL in values or value in values


def _halves(resource: str) -> tuple[str, str]:
    name, _, subresource = resource.partition("/")
    return name, subresource


def _resource_in(resources: tuple[str, ...], resource: str, subresource: str) -> bool:
    if not subresource:
        return _has(resources, resource)
    return _has(resources, f"{resource}/{subresource}") or f"*/{subresource}" in resources


def _url_covers(url: str, path: str) -> bool:
    return url in (_ALL, path) or (url.endswith(_ALL) and path.startswith(url.rstrip(_ALL)))
