"""What of an HTTPRoute or a GRPCRoute no proxy can do: told with its path, and by its status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from weft.compile.gatewayapi.backends import resolved
from weft.compile.gatewayapi.binding import Parent
from weft.compile.gatewayapi.facts import GROUP, Facts
from weft.compile.gatewayapi.filters import filters_of
from weft.compile.gatewayapi.match import complaints
from weft.compile.gatewayapi.mesh import SERVICE, SERVICE_ENTRY
from weft.compile.gatewayapi.rivals import settled
from weft.compile.gatewayapi.routes import RequestRoute
from weft.compile.protocol import Protocol
from weft.errors import Problem, Severity
from weft.model.grpc_route import GRPCRoute
from weft.model.http_route import HTTPRouteFilter
from weft.model.resource import Key
from weft.model.route import RouteFilter, RouteRule

NOT_FOUND: Final = "IST0101"
UNHEEDED: Final = "WEFT0102"
REFUSED: Final = "WEFT0201"  # the words of the route's status, at their place
_GRPC_PORT: Final = "name the port grpc, or set its appProtocol to kubernetes.io/h2c"
_PARENTS: Final = frozenset({f"{GROUP}/Gateway", f"{GROUP}/ListenerSet", SERVICE, SERVICE_ENTRY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """``reason`` is the specification's word for the condition that it makes false, ``hint`` the remedy."""

    path: str
    reason: str
    message: str
    hint: str = ""


def unsound_matches(route: RequestRoute) -> tuple[Flaw, ...]:
    """Matches that are left out. A route without any other is not accepted, else it is partially invalid."""
    return tuple(
        Flaw(
            path=f"spec.rules[{number}].matches[{place}].{path}",
            reason="UnsupportedValue",
            message=complaint,
            hint="the match is left out",
        )
        for number, rule in enumerate(route.spec.rules or ())
        for place, match in enumerate(rule.matches or ())
        for path, complaint in complaints(match)
    )


def matches_something(route: RequestRoute) -> bool:
    """Whether a match remains when unsound ones are left out."""
    rules = route.spec.rules or ()
    return not rules or any(not any(complaints(match)) for rule in rules for match in rule.matches or (None,))


def unknown_filters(route: RequestRoute) -> tuple[Flaw, ...]:
    """Filters by reference to a kind that weft does not know: whoever meets one gets an error."""
    return tuple(
        Flaw(
            path=f"{place}.filters[{index}].extensionRef",
            reason="InvalidKind",
            message=f"weft knows no filter of kind {item.extension_ref.group}/{item.extension_ref.kind}",
            hint="requests that meet it are answered with an error",
        )
        for rule, number in _rules(route)
        for place, filters in _places(rule, f"spec.rules[{number}]")
        for index, item in enumerate(filters)
        if item.extension_ref is not None
    )


def _grpc_authorizers(route: RequestRoute) -> frozenset[str]:
    """Paths of the references to authorizers that speak gRPC."""
    return frozenset(
        f"{place}.filters[{index}].externalAuth.backendRef"
        for rule, number in _rules(route)
        for place, filters in _places(rule, f"spec.rules[{number}]")
        for index, item in enumerate(filters)
        if isinstance(item, HTTPRouteFilter)
        and item.external_auth is not None
        and item.external_auth.protocol == "GRPC"
    )


def _rules(route: RequestRoute) -> Iterator[tuple[RouteRule, int]]:
    for number, rule in enumerate(route.spec.rules or ()):
        yield rule, number


def _places(rule: RouteRule, path: str) -> Iterator[tuple[str, tuple[RouteFilter, ...]]]:
    yield path, rule.filters or ()
    for index, ref in enumerate(rule.backend_refs or ()):
        yield f"{path}.backendRefs[{index}]", ref.filters or ()


def _sessions(route: RequestRoute) -> Iterator[Flaw]:
    """Sessions that last less long, or longer, than they should."""
    for rule, number in _rules(route):
        session, place = rule.session_persistence, f"spec.rules[{number}].sessionPersistence"
        if session is None:
            continue
        named = [ref for ref in rule.backend_refs or () if ref.weight != 0]
        if session.type == "Header" and len(named) > 1:
            message = "a session by header is kept only while the weights happen to choose the same backend"
            yield Flaw(path=f"{place}.type", reason="", message=message, hint="use a cookie")
        if session.type == "Header" and session.absolute_timeout is not None:
            message = "a session by header does not end after a time"
            yield Flaw(path=f"{place}.absoluteTimeout", reason="", message=message, hint="use a cookie")
        if session.absolute_timeout and session.type != "Header" and not session.lasting:
            message = "the cookie of a session that ends after a time lasts as long, as a Permanent one does"
            hint = "leave absoluteTimeout out, or write lifetimeType: Permanent"
            yield Flaw(path=f"{place}.absoluteTimeout", reason="", message=message, hint=hint)


def _backends(route: RequestRoute) -> Iterator[Flaw]:
    """Redirects of backends that a rule never uses."""
    for rule, number in _rules(route):
        if filters_of(rule.filters).redirect is not None and rule.backend_refs:
            message = "requests are redirected: the backends get none"
            yield Flaw(
                path=f"spec.rules[{number}].backendRefs", reason="", message=message, hint="remove them"
            )


def all_problems(routes: Mapping[Key, RequestRoute], facts: Facts) -> tuple[Problem, ...]:
    """What cannot be honoured of routes, and what they refer to in vain, in the order of their names."""
    ground, memo = facts.ground, facts.memo
    found: list[Problem] = []
    for _, route in sorted(routes.items()):
        parents = settled(route, facts, ground)
        mesh = all(parent.gateway is None for parent in parents if parent.owner is not None)
        found += memo(_own_problems, route)
        found += _parent_problems(route, parents, facts)
        found += memo(_backend_problems, route, ground, mesh)
    return tuple(found)


def _own_problems(route: RequestRoute) -> tuple[Problem, ...]:
    flaws = (
        *unsound_matches(route),
        *unknown_filters(route),
        *_sessions(route),
        *_backends(route),
    )
    return tuple(_problem(route.key, UNHEEDED, flaw.message, flaw.path, flaw.hint) for flaw in flaws)


def _parent_problems(route: RequestRoute, parents: tuple[Parent, ...], facts: Facts) -> Iterator[Problem]:
    for parent in parents:
        ref, path = parent.ref, f"spec.parentRefs[{parent.place}]"
        if parent.owner is not None:
            if parent.reason != "Accepted":
                message = f"Accepted is False ({parent.reason}): {parent.message}"
                yield _problem(route.key, REFUSED, message, path, "the route is not in force there")
            continue
        kind = f"{GROUP if ref.group is None else ref.group}/{ref.kind or 'Gateway'}"
        named = Key(kind, str(ref.namespace or route.metadata.namespace), str(ref.name))
        if kind not in _PARENTS:
            message = f"weft has no parents of kind {kind}: the route is not in force there"
            yield _problem(route.key, UNHEEDED, message, f"{path}.kind", "name a Gateway or a Service")
        elif named not in facts.gateways and named not in facts.listener_sets:
            yield _problem(route.key, NOT_FOUND, f"there is no {named}", f"{path}.name", "add it")


def _backend_problems(route: RequestRoute, ground: Facts, mesh: bool) -> tuple[Problem, ...]:
    found: list[Problem] = []
    grpc = _grpc_authorizers(route)
    for path, _, backend in ground.memo(resolved, route, ground, mesh):
        if backend.reason != "ResolvedRefs":
            code = NOT_FOUND if backend.reason == "BackendNotFound" else REFUSED
            hint = "its requests are answered with an error"
            found.append(_problem(route.key, code, backend.message, path, hint))
        elif isinstance(route, GRPCRoute) and backend.protocol is Protocol.HTTP:
            message = (
                f"port {backend.port} of {backend.host} is declared to speak HTTP/1.1, and gRPC is HTTP/2"
            )
            found.append(_problem(route.key, UNHEEDED, message, path, _GRPC_PORT))
        elif path in grpc and backend.protocol is not None and not backend.protocol.is_http2:
            message = (
                f"port {backend.port} of {backend.host} is not declared to speak HTTP/2, and gRPC is HTTP/2: "
                "unless it does all the same, requests are refused"
            )
            found.append(_problem(route.key, UNHEEDED, message, path, _GRPC_PORT))
    return tuple(found)


def _problem(key: Key, code: str, message: str, path: str, hint: str) -> Problem:
    return Problem(code, message, None, hint, path, severity=Severity.WARNING, resource=str(key))
