"""Which listeners a route is bound to, and by which host names (specification of ``parentRefs``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from weft.compile.age import age
from weft.compile.gatewayapi.facts import GROUP, Facts, Route
from weft.compile.gatewayapi.listener_set import attachment, gateway_of
from weft.compile.gatewayapi.listeners import Listener, listeners_of
from weft.compile.gatewayapi.namespaces import admits
from weft.compile.hosts import narrower, specificity
from weft.model.gateway import Gateway
from weft.model.listener_set import ListenerSet
from weft.model.resource import Key
from weft.model.route import ParentReference
from weft.model.tcp_route import TCPRoute
from weft.model.udp_route import UDPRoute

R = TypeVar("R", bound=Route)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A route at a listener of ``owner``, by the host names that both mean."""

    owner: Key
    listener: str
    hostnames: tuple[str, ...]

    def at(self, listener: Listener) -> bool:
        """Whether this is the listener."""
        return self.listener == listener.name and self.owner == listener.owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """What became of one parentRef. ``reason`` is that of the condition Accepted.

    ``gateway`` None: the reference is to no Gateway or ListenerSet of ours, and says nothing about itself.
    ``owner`` is what is referred to; ``gateway`` the Gateway that serves it. ``place`` counts the
    references; Gateways that take routes by default come after those, with a reference made for them.
    """

    place: int
    ref: ParentReference
    gateway: Key | None = None
    owner: Key | None = None
    reason: str = "Accepted"
    message: str = ""
    bindings: tuple[Binding, ...] = ()


Attached = tuple[tuple[R, tuple[Parent, ...]], ...]


def parents_of(route: Route, facts: Facts) -> tuple[Parent, ...]:
    """All parents of a route, whichever kind of route it is."""
    doors = facts.doors
    if facts is not doors:  # services come and go without a route being bound elsewhere
        return facts.memo(parents_of, route, doors)
    refs = tuple(route.spec.parent_refs or ())
    named = tuple(_parent(place, ref, route, facts) for place, ref in enumerate(refs))
    if str(getattr(route.spec, "use_default_gateways", None) or "None") != "All":
        return named
    known = {parent.owner for parent in named}
    implied: list[Parent] = []
    for key, gateway in sorted(facts.memo(_default_gateways, facts).items()):
        if key not in known:
            ref = ParentReference(
                group=GROUP, kind="Gateway", namespace=key.namespace, name=gateway.metadata.name
            )
            implied.append(_parent(len(refs) + len(implied), ref, route, facts))
    # A Gateway that takes routes by default is no parent of those that it does not let in.
    return (*named, *(parent for parent in implied if parent.bindings))


def _default_gateways(facts: Facts) -> dict[Key, Gateway]:
    return {
        key: gateway
        for key, gateway in facts.gateways.items()
        if str(gateway.spec.default_scope or "None") == "All" and facts.ours(gateway)
    }


def attached(routes: Mapping[Key, R], gateway: Gateway, facts: Facts) -> Attached[R]:
    """Routes of one kind with a parent that a Gateway serves, the oldest first."""
    found = facts.memo(_by_gateway, routes, facts.doors).get(gateway.key, ())
    return tuple((routes[key], parents) for key, parents in found)


def _by_gateway(
    routes: Mapping[Key, Route], facts: Facts
) -> dict[Key, tuple[tuple[Key, tuple[Parent, ...]], ...]]:
    found: dict[Key, list[tuple[Key, tuple[Parent, ...]]]] = {}
    for key, route in sorted(routes.items(), key=lambda item: age(item[1].metadata)):
        by_gateway: dict[Key, list[Parent]] = {}
        for parent in facts.memo(parents_of, route, facts):
            if parent.gateway is not None:
                by_gateway.setdefault(parent.gateway, []).append(parent)
        for gateway, parents in by_gateway.items():
            found.setdefault(gateway, []).append((key, tuple(parents)))
    return {gateway: tuple(entries) for gateway, entries in found.items()}


def _parent(place: int, ref: ParentReference, route: Route, facts: Facts) -> Parent:
    space = route.metadata.namespace
    nothing = Parent(place=place, ref=ref)
    kind = str(ref.kind or "Gateway")
    if str(ref.group or GROUP) != GROUP or kind not in {"Gateway", "ListenerSet"}:
        return nothing
    key = Key(f"{GROUP}/{kind}", str(ref.namespace or space), str(ref.name))
    owner: Gateway | ListenerSet | None
    owner = facts.gateways.get(key) if kind == "Gateway" else facts.listener_sets.get(key)
    gateway = gateway_of(owner, facts) if isinstance(owner, ListenerSet) else owner
    if owner is None or gateway is None or not facts.ours(gateway):
        return nothing

    def refused(reason: str, message: str) -> Parent:
        return Parent(place=place, ref=ref, gateway=gateway.key, owner=key, reason=reason, message=message)

    if isinstance(owner, ListenerSet) and not attachment(owner, gateway, facts).holds:
        return refused("NoMatchingParent", f"the Gateway does not take ListenerSet {space}/{ref.name}")
    listeners = [
        listener
        for listener in listeners_of(owner, facts)
        if (not ref.section_name or listener.name == str(ref.section_name))
        and (ref.port is None or listener.port == ref.port)
    ]
    if not listeners:
        return refused("NoMatchingParent", f"the {kind} has no listener of that name and port")
    wanted = str(route.kind)
    labels = facts.labels_of(space)
    allowed = [
        listener
        for listener in listeners
        if wanted in listener.kinds
        and admits(
            listener.allowed.namespaces if listener.allowed is not None else None,
            "Same",
            owner.metadata.namespace,
            space,
            labels,
        )
    ]
    if not allowed:
        return refused("NotAllowedByListeners", f"no listener takes {wanted}s of {space}")
    bindings: list[Binding] = []
    for listener in allowed:
        names = hostnames(listener, _hostnames(route))
        if names:
            bindings.append(Binding(owner=key, listener=listener.name, hostnames=names))
    if not bindings:
        return refused("NoMatchingListenerHostname", "no listener has one of the route's host names")
    return Parent(place=place, ref=ref, gateway=gateway.key, owner=key, bindings=tuple(bindings))


def _hostnames(route: Route) -> Iterable[str]:
    return () if isinstance(route, TCPRoute | UDPRoute) else route.spec.hostnames or ()


def hostnames(listener: Listener, wanted: Iterable[str] | None) -> tuple[str, ...]:
    """Host names that a listener and a route both mean, the most specific first."""
    names = [str(name).lower() for name in wanted or ()] or ["*"]
    both = (narrower(listener.hostname, name) for name in names)
    return tuple(sorted({name for name in both if name is not None}, key=specificity))


def bound(listener: Listener, routes: Attached[R]) -> tuple[tuple[R, tuple[str, ...]], ...]:
    """Routes at a listener with their host names there, the oldest first."""
    found: list[tuple[R, tuple[str, ...]]] = []
    for route, parents in routes:
        names = {
            name
            for parent in parents
            for binding in parent.bindings
            if binding.at(listener)
            for name in binding.hostnames
        }
        if names:
            found.append((route, tuple(sorted(names, key=specificity))))
    return tuple(found)
