"""``matches`` of HTTPRoutes and GRPCRoutes, and which of them goes first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from weft import ir
from weft.model.base import Shape
from weft.model.grpc_route import GRPCMethodMatch, GRPCRouteMatch
from weft.model.http_route import HTTPPathMatch, HTTPQueryParamMatch, HTTPRouteMatch
from weft.model.patterns import pattern
from weft.model.route import HeaderMatch

_REGEX: Final = "RegularExpression"
_ANY: Final = "*"
_RANK: Final = {
    ir.PathTest.EXACT: 0,
    ir.PathTest.PREFIX: 1,
    ir.PathTest.PATH_PREFIX: 1,
    ir.PathTest.REGEX: 2,
}

Order = tuple[int, ...]
"""Sort key of a match: the smallest is asked first."""


def http_match(match: HTTPRouteMatch | None) -> ir.RequestMatch:
    """What Envoy tests of a request; None is the default, every path."""
    if match is None:
        return ir.RequestMatch()
    query: dict[str, ir.QueryMatch] = {}
    for parameter in match.query_params or ():  # of a name written twice the first holds (specification)
        query.setdefault(parameter.name, ir.QueryMatch(name=parameter.name, match=_text(parameter)))
    headers = _headers(match.headers)
    if match.method:
        test = ir.TextMatch(test=ir.TextTest.EXACT, value=str(match.method))
        headers = (*headers, ir.HeaderMatch(name=":method", match=test))
    return ir.RequestMatch(path=path_match(match.path), headers=headers, query=tuple(query.values()))


def path_match(path: HTTPPathMatch | None) -> ir.PathMatch:
    """``PathPrefix`` ends at a ``/``; a slash at its end means nothing."""
    value = "/" if path is None or path.value is None else path.value
    match str(path.type) if path is not None and path.type is not None else "PathPrefix":
        case "Exact":
            return ir.PathMatch(test=ir.PathTest.EXACT, value=value)
        case "RegularExpression":
            return ir.PathMatch(test=ir.PathTest.REGEX, value=value)
    stripped = value.rstrip("/")
    if not stripped:
        return ir.EVERY_PATH
    return ir.PathMatch(test=ir.PathTest.PATH_PREFIX, value=stripped)


def grpc_match(match: GRPCRouteMatch | None) -> ir.RequestMatch:
    """What Envoy tests of a call; None is every call."""
    if match is None:
        return ir.RequestMatch()
    return ir.RequestMatch(path=method_match(match.method), headers=_headers(match.headers))


def method_match(method: GRPCMethodMatch | None) -> ir.PathMatch:
    """A service and a method are a path: ``/shop.v1.Orders/GetOrder``."""
    if method is None or not (method.service or method.method):
        return ir.EVERY_PATH
    service, name = method.service, method.method
    if method.type == _REGEX:
        value = f"/{f'(?:{service})' if service else '[^/]+'}/{f'(?:{name})' if name else '.+'}"
        return ir.PathMatch(test=ir.PathTest.REGEX, value=value)
    if not name:
        return ir.PathMatch(test=ir.PathTest.PREFIX, value=f"/{service}/")
    if not service:
        return ir.PathMatch(test=ir.PathTest.REGEX, value=f"/[^/]+/{name}")
    return ir.PathMatch(test=ir.PathTest.EXACT, value=f"/{service}/{name}")


def _headers(headers: Iterable[HeaderMatch] | None) -> tuple[ir.HeaderMatch, ...]:
    found: dict[str, ir.HeaderMatch] = {}
    for header in headers or ():  # of a name written twice the first holds (specification)
        name = header.name.lower()
        found.setdefault(name, ir.HeaderMatch(name=name, match=_text(header)))
    return tuple(found.values())


def _text(test: HeaderMatch | HTTPQueryParamMatch) -> ir.TextMatch:
    """The test of a value; a regular expression ``*`` asks whether there is one (Istio)."""
    regex = test.type == _REGEX
    if regex and test.value == _ANY:
        return ir.TextMatch(test=ir.TextTest.PRESENT)
    return ir.TextMatch(test=ir.TextTest.REGEX if regex else ir.TextTest.EXACT, value=test.value)


def http_order(match: ir.RequestMatch) -> Order:
    """By the specification: exact path, longest path, method, most headers, most parameters.

    Regular expressions come last, as in Istio. Ties go to the oldest route, then to its first rule.
    """
    method = sum(header.name == ":method" for header in match.headers)
    return (
        _RANK.get(match.path.test, 2),
        -len(match.path.value),
        -method,
        -(len(match.headers) - method),
        -len(match.query),
    )


def grpc_order(match: GRPCRouteMatch | None) -> Order:
    """By the specification: longest service, longest method, most headers. Regexes come after names."""
    method = match.method if match is not None else None
    headers = match.headers if match is not None else None
    names = {header.name.lower() for header in headers or ()}
    if method is None:
        return 2, 0, 0, -len(names)
    rank = 1 if method.type == _REGEX else 0
    return rank, -len(method.service or ""), -len(method.method or ""), -len(names)


def complaints(match: Shape | None) -> Iterator[tuple[str, str]]:
    """Path and complaint of each regular expression that no proxy takes: such a match is left out."""
    if not isinstance(match, HTTPRouteMatch | GRPCRouteMatch):
        return
    found: list[tuple[str, str]] = []
    if isinstance(match, HTTPRouteMatch):
        if match.path is not None and match.path.type == _REGEX and match.path.value:
            found.append(("path.value", match.path.value))
        for number, parameter in enumerate(match.query_params or ()):
            if parameter.type == _REGEX and parameter.value != _ANY:
                found.append((f"queryParams[{number}].value", parameter.value))
    elif match.method is not None and match.method.type == _REGEX:
        found += [
            ("method.service", match.method.service or ""),
            ("method.method", match.method.method or ""),
        ]
    for number, header in enumerate(match.headers or ()):
        if header.type == _REGEX and header.value != _ANY:
            found.append((f"headers[{number}].value", header.value))
    for path, text in found:
        complaint = pattern(text) if text else ""
        if complaint:
            yield path, complaint
