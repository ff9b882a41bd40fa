"""HTTPRoute ``matches``, and which of them goes first."""

from __future__ import annotations

from weft import ir
from weft.model.http_route import HTTPHeaderMatch, HTTPPathMatch, HTTPQueryParamMatch, HTTPRouteMatch


def request_match(match: HTTPRouteMatch | None) -> ir.RequestMatch:
    """What Envoy tests of a request; None is the default, every path."""
    if match is None:
        return ir.RequestMatch()
    headers: dict[str, ir.HeaderMatch] = {}
    for header in match.headers or ():  # of a name written twice the first holds (specification)
        name = header.name.lower()
        headers.setdefault(name, ir.HeaderMatch(name=name, match=_text(header)))
    query: dict[str, ir.QueryMatch] = {}
    for parameter in match.query_params or ():
        query.setdefault(parameter.name, ir.QueryMatch(name=parameter.name, match=_text(parameter)))
    found = list(headers.values())
    if match.method:
        test = ir.TextMatch(test=ir.TextTest.EXACT, value=str(match.method))
        found.append(ir.HeaderMatch(name=":method", match=test))
    return ir.RequestMatch(path=path_match(match.path), headers=tuple(found), query=tuple(query.values()))


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


def _text(test: HTTPHeaderMatch | HTTPQueryParamMatch) -> ir.TextMatch:
    regex = str(test.type or "Exact") == "RegularExpression"
    return ir.TextMatch(test=ir.TextTest.REGEX if regex else ir.TextTest.EXACT, value=test.value)


_RANK = {ir.PathTest.EXACT: 0, ir.PathTest.PREFIX: 1, ir.PathTest.PATH_PREFIX: 1, ir.PathTest.REGEX: 2}


def precedence(match: ir.RequestMatch) -> tuple[int, int, int, int, int]:
    """Sort key by the specification: exact path, longest path, method, most headers, most parameters.

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
