"""Which listeners a route is bound to, and by which host names (specification of ``parentRefs``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from weft.compile.gatewayapi.facts import GROUP, Facts
from weft.compile.gatewayapi.listeners import Listener, listeners_of
from weft.compile.hosts import narrower, specificity
from weft.model.gateway import Gateway
from weft.model.http_route import HTTPRoute
from weft.model.resource import Key, LabelSelector
from weft.model.route import ParentReference


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A route at a listener, by the host names that both mean."""

    listener: str
    hostnames: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """What became of one parentRef. ``reason`` is that of the condition Accepted.

    ``gateway`` None: the reference is to no Gateway of ours, and says nothing about itself.
    """

    place: int
    gateway: Key | None
    reason: str = "Accepted"
    message: str = ""
    bindings: tuple[Binding, ...] = ()


def parents_of(route: HTTPRoute, facts: Facts) -> tuple[Parent, ...]:
    """All parents of a route."""
    return tuple(_parent(place, ref, route, facts) for place, ref in enumerate(route.spec.parent_refs or ()))


def _parent(place: int, ref: ParentReference, route: HTTPRoute, facts: Facts) -> Parent:
    owner = route.metadata.namespace
    if str(ref.group or GROUP) != GROUP or str(ref.kind or "Gateway") != "Gateway":
        return Parent(place=place, gateway=None)
    namespace = str(ref.namespace or owner)
    gateway = facts.gateways.get(Key(f"{GROUP}/Gateway", namespace, str(ref.name)))
    if gateway is None or not facts.ours(gateway):
        return Parent(place=place, gateway=None)
    listeners = [
        (listener, item)
        for listener, item in zip(listeners_of(gateway, facts), gateway.spec.listeners or (), strict=True)
        if (not ref.section_name or listener.name == str(ref.section_name))
        and (ref.port is None or listener.port == ref.port)
    ]
    refused = Parent(place=place, gateway=gateway.key)
    if not listeners:
        return _because(refused, "NoMatchingParent", "the Gateway has no listener of that name and port")
    allowed = [
        listener
        for listener, item in listeners
        if "HTTPRoute" in listener.kinds and _admits(item.allowed_routes, gateway, owner, facts)
    ]
    if not allowed:
        return _because(refused, "NotAllowedByListeners", f"no listener takes HTTPRoutes of {owner}")
    bindings: list[Binding] = []
    for listener in allowed:
        names = hostnames(listener, route.spec.hostnames)
        if names:
            bindings.append(Binding(listener=listener.name, hostnames=names))
    if not bindings:
        return _because(
            refused, "NoMatchingListenerHostname", "no listener has one of the route's host names"
        )
    return Parent(place=place, gateway=gateway.key, bindings=tuple(bindings))


def _because(parent: Parent, reason: str, message: str) -> Parent:
    return Parent(place=parent.place, gateway=parent.gateway, reason=reason, message=message)


def _admits(allowed: object, gateway: Gateway, namespace: str, facts: Facts) -> bool:
    """Whether ``allowedRoutes.namespaces`` lets routes of a namespace in; the default is its own."""
    spaces = getattr(allowed, "namespaces", None)
    match str(spaces.from_ or "Same") if spaces is not None else "Same":
        case "All":
            return True
        case "Selector":
            return selected(spaces.selector, facts.labels_of(namespace)) if spaces else False
        case "None":
            return False
    return namespace == gateway.metadata.namespace


def selected(selector: LabelSelector | None, labels: Mapping[str, str]) -> bool:
    """Kubernetes' label selector; an absent one selects nothing, an empty one everything."""
    if selector is None:
        return False
    if any(labels.get(name) != value for name, value in (selector.match_labels or {}).items()):
        return False
    for demand in selector.match_expressions or ():
        value = labels.get(demand.key)
        holds = {
            "In": value is not None and value in (demand.values or ()),
            "NotIn": value is None or value not in (demand.values or ()),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[str(demand.operator)]
        if not holds:
            return False
    return True


def hostnames(listener: Listener, wanted: Iterable[str] | None) -> tuple[str, ...]:
    """Host names that a listener and a route both mean, the most specific first."""
    names = [str(name).lower() for name in wanted or ()] or ["*"]
    both = (narrower(listener.hostname, name) for name in names)
    return tuple(sorted({name for name in both if name is not None}, key=specificity))
