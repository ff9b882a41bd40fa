"""From a unit of the configuration back to the resource, the rule, the file and the line that caused it.

Envoy's ``filter_metadata.istio`` names the resource and the indexes in it; where that stands in a file is
known here only, beside the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from weft.errors import Origin
from weft.model.catalog import KINDS
from weft.model.parse import Part
from weft.model.request_authentication import JWTRule
from weft.model.resource import Key, Resource
from weft.yaml import Path

if TYPE_CHECKING:
    from weft.protos import core_v3

_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_PATH: Final = re.compile(
    r"/apis/(?P<group>[^/]*)/[^/]+/namespaces/(?P<namespace>[^/]*)/(?P<kind>[^/]+)/(?P<name>.+)"
)
_KINDS: Final = {(row.group, _HUMP.sub("-", row.kind).lower()): row.kind for row in KINDS}
# Where the rules of a kind stand, and the matches in each.
_RULES: Final = {
    "VirtualService": ("http", "match"),
    "HTTPRoute": ("rules", "matches"),
    "GRPCRoute": ("rules", "matches"),
    "TLSRoute": ("rules", "matches"),
    "TCPRoute": ("rules", "matches"),
    "UDPRoute": ("rules", "matches"),
    "AuthorizationPolicy": ("rules", ""),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A resource, and the rule and the match in it; ``place`` is where that stands, if it is known."""

    kind: str
    namespace: str
    name: str
    rule: int | None = None
    match: int | None = None
    place: Origin | None = None

    def __str__(self) -> str:
        text = f"{self.kind} {self.namespace}/{self.name}"
        if self.rule is not None:
            text += f" rule {self.rule}"
        if self.match is not None:
            text += f" match {self.match}"
        return text

    @property
    def file(self) -> str | None:
        """The file; None when it is not known."""
        return self.place.file if self.place else None

    @property
    def line(self) -> int | None:
        """The line, from 1; None when it is not known."""
        return (self.place.line or None) if self.place else None


class Origins:
    """Where each resource stands. Without any parts all causes have no place."""

    def __init__(self, parts: Iterable[tuple[Part, Resource]] = ()) -> None:
        self._parts: dict[Key, Part] = {}
        self._issuers: dict[str, list[Cause]] = {}
        for part, resource in parts:
            self._parts[resource.key] = part

    def among(self, rules: Iterable[tuple[Key, int, JWTRule]]) -> Origins:
        """For a proxy for which these rules about tokens hold: policy, index in it, and the rule."""
        narrowed = copy(self)
        narrowed._issuers = {}
        for key, index, rule in rules:
            cause = self.of(key, ("spec", "jwtRules", index))
            narrowed._issuers.setdefault(rule.issuer or "", []).append(cause)
        return narrowed

    def believing(self, issuer: str) -> Cause | None:
        """The rule that has an issuer's tokens verified; None when no rule names it, or several do."""
        found = self._issuers.get(issuer, ())
        return found[0] if len(found) == 1 else None

    def cause(self, metadata: core_v3.Metadata | None, section: str = "") -> Cause | None:
        """What a unit's metadata says; None when no resource caused it.

        ``section``: where a VirtualService's rules are, ``http``, ``tls`` or ``tcp``.
        """
        if metadata is None or "istio" not in metadata.filter_metadata:
            return None
        fields = metadata.filter_metadata["istio"].fields
        found = _PATH.fullmatch(fields["config"].string_value) if "config" in fields else None
        if found is None:
            return None
        rule = int(fields["rule"].number_value) if "rule" in fields else None
        match = int(fields["match"].number_value) if "match" in fields else None
        kind = _KINDS.get((found["group"], found["kind"]), found["kind"])
        key = Key(f"{found['group']}/{kind}", found["namespace"], found["name"])
        return Cause(
            kind=kind,
            namespace=key.namespace,
            name=key.name,
            rule=rule,
            match=match,
            place=self.place(key, _path(kind, rule, match, section)),
        )

    def of(self, key: Key, path: Path = ()) -> Cause:
        """The cause that a resource is by itself."""
        kind = key.kind.rpartition("/")[2]
        return Cause(kind=kind, namespace=key.namespace, name=key.name, place=self.place(key, path))

    def place(self, key: Key, path: Path = ()) -> Origin | None:
        """Where a resource, or a field of it, stands."""
        part = self._parts.get(key)
        return None if part is None else part.where(path)


def _path(kind: str, rule: int | None, match: int | None, section: str) -> Path:
    rules, matches = _RULES.get(kind, ("", ""))
    if not rules or rule is None:
        return ()
    if kind == "VirtualService" and section:
        rules = section
    path: Path = ("spec", rules, rule)
    return (*path, matches, match) if matches and match is not None else path


def service_fields(metadata: core_v3.Metadata) -> Mapping[str, Any] | None:
    """``{"host", "name", "namespace"}`` of the service that a cluster is for."""
    if "istio" not in metadata.filter_metadata:
        return None
    fields = metadata.filter_metadata["istio"].fields
    values = fields["services"].list_value.values if "services" in fields else ()
    if not values:
        return None
    return {key: item.string_value for key, item in values[0].struct_value.fields.items()}
