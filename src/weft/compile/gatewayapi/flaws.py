"""What of an HTTPRoute or a GRPCRoute no proxy can do: told with its path, and by its status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from weft.compile.gatewayapi.backends import backend_of, references
from weft.compile.gatewayapi.facts import Facts
from weft.compile.gatewayapi.filters import filters_of
from weft.compile.gatewayapi.match import complaints
from weft.compile.gatewayapi.mesh import SERVICE, SERVICE_ENTRY
from weft.compile.gatewayapi.rivals import settled
from weft.compile.gatewayapi.routes import RequestRoute
from weft.errors import Problem, Severity
from weft.model.resource import Key
from weft.model.route import RouteFilter, RouteRule

NOT_FOUND: Final = "IST0101"
UNHEEDED: Final = "WEFT0102"
_PARENTS: Final = frozenset(
    {
        "gateway.networking.k8s.io/Gateway",
        "gateway.networking.k8s.io/ListenerSet",
        SERVICE,
        SERVICE_ENTRY,
    }
)


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
        cookie = session.cookie
        lasting = cookie is not None and cookie.lifetime_type == "Permanent"
        if session.absolute_timeout and session.type != "Header" and not lasting:
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


def route_problems(route: RequestRoute, facts: Facts) -> tuple[Problem, ...]:
    """All that cannot be honoured of a route, and what it refers to in vain."""
    key = route.key
    found = [
        _problem(key, UNHEEDED, flaw.message, flaw.path, flaw.hint)
        for flaw in (*unsound_matches(route), *unknown_filters(route), *_sessions(route), *_backends(route))
    ]
    parents = settled(route, facts)
    for place, ref in enumerate(route.spec.parent_refs or ()):
        kind = f"{'gateway.networking.k8s.io' if ref.group is None else ref.group}/{ref.kind or 'Gateway'}"
        if kind not in _PARENTS:
            message = f"weft has no parents of kind {kind}: the route is not in force there"
            found.append(_problem(key, UNHEEDED, message, f"spec.parentRefs[{place}].kind", "name a Gateway"))
    found += (
        _problem(key, NOT_FOUND, parent.message, f"spec.parentRefs[{parent.place}]", "")
        for parent in parents
        if parent.owner is not None and parent.gateway is None and parent.reason != "Accepted"
    )
    mesh = any(parent.owner is not None and parent.gateway is None for parent in parents)
    only_mesh = mesh and all(parent.gateway is None for parent in parents)
    for path, reference in references(route):
        backend = backend_of(reference, route.metadata.namespace, facts, type(route).__name__, mesh=only_mesh)
        if backend.reason != "ResolvedRefs":
            code = NOT_FOUND if backend.reason == "BackendNotFound" else UNHEEDED
            found.append(
                _problem(key, code, backend.message, path, "its requests are answered with an error")
            )
    return tuple(found)


def all_problems(routes: Mapping[Key, RequestRoute], facts: Facts) -> tuple[Problem, ...]:
    """Those of all routes, in the order of their names."""
    return tuple(problem for _, route in sorted(routes.items()) for problem in route_problems(route, facts))


def _problem(key: Key, code: str, message: str, path: str, hint: str) -> Problem:
    return Problem(code, message, None, hint, path, severity=Severity.WARNING, resource=str(key))
