"""VirtualServices that leave rules to others: roots with the rules of their delegates put in.

Semantics of istio/istio pilot/pkg/model (virtualservice.go, virtualservice_controller.go): a delegate is a
VirtualService without hosts; a rule of it that contradicts the root's rule is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pydantic import PrivateAttr

from weft.compile.memo import Memo
from weft.compile.settings import Settings
from weft.compile.view import exported
from weft.errors import Problem, Severity, did_you_mean
from weft.model.resource import Key
from weft.model.virtual_service import (
    Delegate,
    HTTPMatchRequest,
    HTTPRoute,
    StringMatch,
    VirtualService,
)
from weft.names import expand_host

NOT_FOUND: Final = "IST0101"
CONTRADICTS: Final = "WEFT0110"
MESH: Final = "mesh"

VirtualServices = Mapping[Key, VirtualService]


class PlacedRule(HTTPRoute):
    """A rule of a root after its delegates' rules were put in; it remembers which one it was."""

    _index: int = PrivateAttr(default=0)
    _places: tuple[int | None, ...] = PrivateAttr(default=())

    @property
    def index(self) -> int:
        """The place of the root's rule."""
        return self._index

    def place(self, match: int | None) -> int | None:
        """The place of the root's match behind a match of this rule; None when the root has none."""
        return self._places[match] if match is not None and match < len(self._places) else None


def place_of(rule: HTTPRoute, index: int, match: int | None) -> tuple[int, int | None]:
    """Where a rule and its match stand in the VirtualService as its author wrote it."""
    return (rule.index, rule.place(match)) if isinstance(rule, PlacedRule) else (index, match)


def full_gateway(name: str, namespace: str) -> str:
    """``namespace/name`` of a gateway's name; ``mesh`` stays."""
    return name if name == MESH or "/" in name else f"{namespace}/{name}"


def is_delegate(resource: VirtualService) -> bool:
    """Whether only others' rules lead to it."""
    return not resource.spec.hosts


def rooted(resources: VirtualServices, settings: Settings, memo: Memo) -> VirtualServices:
    """VirtualServices with hosts, their delegates' rules put in; the same mapping when there are none."""
    if not any(is_delegate(resource) or _leaves(resource) for resource in resources.values()):
        return resources
    return {
        key: memo(_merged, resource, _named(resource, resources), settings) if _leaves(resource) else resource
        for key, resource in resources.items()
        if not is_delegate(resource)
    }


def _leaves(resource: VirtualService) -> bool:
    return any(rule.delegate is not None for rule in resource.spec.http or ())


def _key(delegate: Delegate, root: VirtualService) -> Key:
    return Key(root.key.kind, delegate.namespace or root.metadata.namespace, delegate.name or "")


def _named(root: VirtualService, resources: VirtualServices) -> tuple[VirtualService | None, ...]:
    """For each rule of a root the VirtualService that it names."""
    return tuple(
        resources.get(_key(rule.delegate, root)) if rule.delegate is not None else None
        for rule in root.spec.http or ()
    )


def _usable(root: VirtualService, named: VirtualService | None, settings: Settings) -> bool:
    return named is not None and is_delegate(named) and _visible(root, named, settings)


def _visible(root: VirtualService, delegate: VirtualService, settings: Settings) -> bool:
    export = delegate.spec.export_to or settings.export_virtual_services
    return exported(export, delegate.metadata.namespace, root.metadata.namespace)


def _merged(
    root: VirtualService, named: tuple[VirtualService | None, ...], settings: Settings
) -> VirtualService:
    rules: list[HTTPRoute] = []
    for index, (rule, delegate) in enumerate(zip(root.spec.http or (), named, strict=True)):
        if rule.delegate is None:
            rules.append(_placed(dict(rule), index, range(len(rule.match or ()))))
        elif delegate is not None and _usable(root, delegate, settings):
            rules += _rules(root, index, rule, delegate, settings)
    return root.model_copy(update={"spec": root.spec.model_copy(update={"http": tuple(rules)})})


def _rules(
    root: VirtualService, index: int, rule: HTTPRoute, delegate: VirtualService, settings: Settings
) -> Iterator[PlacedRule]:
    for other in delegate.spec.http or ():
        matches = _matches(_in_full(rule.match or (), root), _in_full(other.match or (), delegate))
        if matches is None or other.delegate is not None:
            continue
        fields: dict[str, Any] = {**_destinations(other, delegate, settings), "match": None, "delegate": None}
        for name in _INHERITED:
            if getattr(other, name) is None:
                fields[name] = getattr(rule, name)
        fields["name"] = _joined(rule.name, other.name)
        if matches:
            fields["match"] = tuple(match for _, match in matches)
        yield _placed({**dict(other), **fields}, index, [place for place, _ in matches])


def _placed(fields: dict[str, Any], index: int, places: Iterable[int | None]) -> PlacedRule:
    made = PlacedRule.model_construct(**fields)
    made._index, made._places = index, tuple(places)
    return made


# What a delegate's rule takes from its root's where it says nothing itself.
_INHERITED: Final = (
    "rewrite",
    "direct_response",
    "timeout",
    "retries",
    "fault",
    "mirror",
    "mirror_percent",
    "mirror_percent_",
    "mirror_percentage",
    "mirrors",
    "cors_policy",
    "headers",
)


def _joined(root: str | None, other: str | None) -> str | None:
    return f"{root}-{other}" if root and other else other or root


def _in_full(matches: Iterable[HTTPMatchRequest], owner: VirtualService) -> tuple[HTTPMatchRequest, ...]:
    """Gateways by their full names: a root and its delegate may live in different namespaces."""
    space = owner.metadata.namespace
    return tuple(
        match.model_copy(update={"gateways": tuple(full_gateway(name, space) for name in match.gateways)})
        if match.gateways
        else match
        for match in matches
    )


def _destinations(rule: HTTPRoute, owner: VirtualService, settings: Settings) -> dict[str, Any]:
    """Destinations by their full names: short ones are of the delegate's namespace."""

    def full(part: Any) -> Any:
        host = expand_host(part.host, owner.metadata.namespace, settings.domain)
        return part.model_copy(update={"host": host})

    found: dict[str, Any] = {}
    for name in ("route", "mirrors"):
        parts = getattr(rule, name)
        if parts:
            found[name] = tuple(
                part.model_copy(update={"destination": full(part.destination)}) for part in parts
            )
    if rule.mirror is not None:
        found["mirror"] = full(rule.mirror)
    return found


_TEXTS: Final = ("uri", "scheme", "method", "authority")
_MAPS: Final = ("headers", "without_headers", "query_params")

Placed = tuple[tuple[int | None, HTTPMatchRequest], ...]


def _matches(root: tuple[HTTPMatchRequest, ...], other: tuple[HTTPMatchRequest, ...]) -> Placed | None:
    """Every match of the delegate with those of the root that it refines; None when one refines none."""
    if not root:
        return tuple((None, match) for match in other)
    if not other:
        return tuple(enumerate(root))
    found: list[tuple[int | None, HTTPMatchRequest]] = []
    for match in other:
        fitting = [
            (place, _refined(whole, match)) for place, whole in enumerate(root) if _refines(match, whole)
        ]
        if not fitting:
            return None
        found += fitting
    return tuple(found)


def _refined(root: HTTPMatchRequest, other: HTTPMatchRequest) -> HTTPMatchRequest:
    """Both demands at once."""
    update: dict[str, Any] = {"name": _joined(root.name, other.name)}
    for name in (*_TEXTS, "port", "source_namespace", "gateways", "stat_prefix"):
        update[name] = getattr(other, name) or getattr(root, name)
    for name in (*_MAPS, "source_labels"):
        both = {**(getattr(root, name) or {}), **(getattr(other, name) or {})}
        update[name] = both or None
    return other.model_copy(update=update)


def _refines(other: HTTPMatchRequest, root: HTTPMatchRequest) -> bool:
    """Whether a delegate's match asks for nothing that its root's excludes."""
    if any(not _narrower(getattr(other, name), getattr(root, name)) for name in _TEXTS):
        return False
    for name in _MAPS:
        whole = getattr(root, name) or {}
        tests = (getattr(other, name) or {}).items()
        if any(not _narrower(test, whole.get(key)) for key, test in tests):
            return False
    if bool(other.ignore_uri_case) != bool(root.ignore_uri_case):
        return False
    if root.port and other.port and root.port != other.port:
        return False
    if root.source_namespace and other.source_namespace != root.source_namespace:
        return False
    labels = root.source_labels or {}
    if any(labels.get(key, value) != value for key, value in (other.source_labels or {}).items()):
        return False
    return not root.gateways or set(other.gateways or ()) <= set(root.gateways)


def _narrower(other: StringMatch | None, root: StringMatch | None) -> bool:
    """Whether every text that ``other`` takes is one that ``root`` takes; regexes cannot be compared."""
    if other is None or root is None:
        return True
    if root.regex or other.regex:
        return False
    if root.exact:
        return other.exact == root.exact and not other.prefix
    if root.prefix:
        return (other.prefix or other.exact or "").startswith(root.prefix)
    return False


def problems(root: VirtualService, resources: VirtualServices, settings: Settings) -> Iterator[Problem]:
    """Rules that lead to no delegate, and rules of delegates that contradict those that lead to them."""
    for index, (rule, named) in enumerate(zip(root.spec.http or (), _named(root, resources), strict=True)):
        if rule.delegate is None:
            continue
        path = f"spec.http[{index}].delegate"
        key = _key(rule.delegate, root)
        wanted = f"{key.namespace}/{key.name}"
        if is_delegate(root):
            message = "a delegate cannot delegate: the rule is left out"
            yield _warning(root, CONTRADICTS, message, path, "write the routes here")
        elif named is None:
            known = {f"{k.namespace}/{k.name}" for k, r in resources.items() if is_delegate(r)}
            yield _warning(
                root,
                NOT_FOUND,
                f"no VirtualService is named {wanted}: the rule is left out",
                path,
                did_you_mean(wanted, known) or "create it, without hosts",
            )
        elif not is_delegate(named):
            yield _warning(
                root,
                NOT_FOUND,
                f"VirtualService {wanted} has hosts, so it is no delegate: the rule is left out",
                path,
                "remove its hosts",
            )
        elif not _visible(root, named, settings):
            yield _warning(
                root,
                NOT_FOUND,
                f"VirtualService {wanted} is not exported to {root.metadata.namespace}: the rule is left out",
                path,
                "add the namespace to its exportTo",
            )
        else:
            yield from _contradictions(root, rule, named, wanted, path)


_TOLD_MOST: Final = 5
"""So many rules that contradict one rule are told of one by one; of more only how many they are."""


def _contradictions(
    root: VirtualService, rule: HTTPRoute, named: VirtualService, wanted: str, path: str
) -> Iterator[Problem]:
    """Rules of a delegate that its root's rule excludes."""
    whole = _in_full(rule.match or (), root)
    found = [
        place
        for place, other in enumerate(named.spec.http or ())
        if other.delegate is None and _matches(whole, _in_full(other.match or (), named)) is None
    ]
    hint = "narrow its match down to what the root lets through"
    for place in found[:_TOLD_MOST]:
        message = f"rule {place} of {wanted} asks for what this rule excludes: it is left out"
        yield _warning(root, CONTRADICTS, message, path, hint)
    if len(found) > _TOLD_MOST:
        more = len(found) - _TOLD_MOST
        message = f"{more} more rules of {wanted} ask for what this rule excludes: they are left out"
        yield _warning(root, CONTRADICTS, message, path, hint)


def _warning(resource: VirtualService, code: str, message: str, path: str, hint: str) -> Problem:
    return Problem(code, message, None, hint, path, severity=Severity.WARNING, resource=str(resource.key))
