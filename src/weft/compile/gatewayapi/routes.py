"""HTTPRoutes and GRPCRoutes as routes, each with the key that decides its place."""

from __future__ import annotations

from dataclasses import replace

from weft import ir
from weft.compile.gatewayapi.backends import Backends
from weft.compile.gatewayapi.filters import quoted
from weft.compile.gatewayapi.forward import Share, shares_of
from weft.compile.gatewayapi.grpc_route import grpc_rules
from weft.compile.gatewayapi.http_route import http_rules
from weft.compile.gatewayapi.match import Order
from weft.compile.settings import Settings
from weft.compile.sources import source
from weft.model.grpc_route import GRPCRoute
from weft.model.http_route import HTTPRoute

RequestRoute = HTTPRoute | GRPCRoute
Ordered = tuple[tuple[Order, ir.Route], ...]


def routes_of(route: RequestRoute, port: int, tls: bool, backends: Backends, settings: Settings) -> Ordered:
    """All routes of all rules at a port, with the specification's precedence of each.

    Of equal keys the first goes first. ``tls``: the listener ends it, which redirects need to know.
    """
    rules = (
        http_rules(route, port, tls, settings)
        if isinstance(route, HTTPRoute)
        else grpc_rules(route, port, tls, settings)
    )
    return tuple(
        (
            order,
            ir.Route(
                name=rule.name,
                match=_of_share(tests, share),
                action=share.action,
                request_headers=share.request,
                response_headers=share.response,
                cors=share.cors,
                session=share.session,
                authorizers=share.authorizers,
                operation=f"{rule.name}{tests.path.value}",
                source=source(route.key, rule.index, place),
            ),
        )
        for rule in rules
        for place, order, tests in rule.matches
        for share in shares_of(rule, tests.path, backends)
    )


def _of_share(tests: ir.RequestMatch, share: Share) -> ir.RequestMatch:
    headers = tests.headers
    if share.cookie is not None:
        name, value = (quoted(part) for part in share.cookie)
        cookie = ir.TextMatch(test=ir.TextTest.REGEX, value=f"(?:.*;\\s*)?{name}={value}(?:;.*)?")
        headers = (*headers, ir.HeaderMatch(name="cookie", match=cookie))
    if headers is tests.headers and share.below is None:
        return tests
    return replace(tests, headers=headers, below=share.below)
