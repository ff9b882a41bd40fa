"""HTTPRoute rules as routes, each with the key that decides its place."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from weft import ir
from weft.compile.gatewayapi.backends import UNKNOWN, backend_of
from weft.compile.gatewayapi.facts import Facts
from weft.compile.gatewayapi.filters import (
    Filters,
    cors_of,
    filters_of,
    mirror_fraction,
    redirect_of,
    rewrite_of,
)
from weft.compile.gatewayapi.match import precedence, request_match
from weft.compile.routes import NO_TIMEOUT
from weft.compile.settings import DEFAULT_RETRY
from weft.compile.sources import source
from weft.model.http_route import HTTPBackendRef, HTTPRoute, HTTPRouteRetry, HTTPRouteRule

Order = tuple[int, ...]
Ordered = tuple[tuple[Order, ir.Route], ...]


def routes_of(route: HTTPRoute, port: int, tls: bool, facts: Facts) -> Ordered:
    """All routes of all rules at a port of a gateway, with the specification's precedence of each."""
    found: list[tuple[Order, ir.Route]] = []
    for index, rule in enumerate(route.spec.rules or (_EVERYTHING,)):
        filters = filters_of(rule.filters)
        for place, match in enumerate(rule.matches or (None,)):
            tests = request_match(match)
            action = _action(rule, filters, tests.path, route, port, tls, facts)
            request, response = filters.request, filters.response
            if isinstance(action, ir.Forward) and len(action.destinations) == 1:
                only = action.destinations[0]
                request, response = (
                    _joined(request, only.request_headers),
                    _joined(response, only.response_headers),
                )
                action = replace(action, destinations=(ir.Destination(cluster=only.cluster),))
            name = f"{route.metadata.namespace}.{route.metadata.name}.{index}"
            found.append(
                (
                    precedence(tests),
                    ir.Route(
                        name=name,
                        match=tests,
                        action=action,
                        request_headers=request,
                        response_headers=response,
                        cors=cors_of(filters.cors),
                        operation=f"{name}{tests.path.value}",
                        source=source(route.key, index, place),
                    ),
                )
            )
    return tuple(found)


_EVERYTHING = HTTPRouteRule()


def _joined(first: ir.HeaderEdit, second: ir.HeaderEdit) -> ir.HeaderEdit:
    return ir.HeaderEdit(
        set=first.set + second.set, add=first.add + second.add, remove=first.remove + second.remove
    )


def _action(
    rule: HTTPRouteRule,
    filters: Filters,
    path: ir.PathMatch,
    route: HTTPRoute,
    port: int,
    tls: bool,
    facts: Facts,
) -> ir.Forward | ir.Redirect | ir.Respond:
    if filters.unknown:
        return ir.Respond(status=500)
    if filters.redirect is not None:
        return redirect_of(filters.redirect, path, port, tls)
    owner = route.metadata.namespace
    destinations = tuple(
        destination
        for ref in rule.backend_refs or ()
        if (destination := _destination(ref, owner, facts)).weight
    )
    if not destinations or all(part.cluster == UNKNOWN for part in destinations):
        return ir.Respond(status=500)
    mirrors = tuple(
        ir.Mirror(cluster=backend.cluster, fraction=mirror_fraction(mirror))
        for mirror in filters.mirrors
        if (backend := backend_of(mirror.backend_ref, owner, facts)).cluster != UNKNOWN
    )
    timeouts = rule.timeouts
    request = timeouts.request if timeouts else None
    each = timeouts.backend_request if timeouts else None
    host = filters.rewrite.hostname if filters.rewrite is not None else None
    return ir.Forward(
        destinations=destinations,
        timeout=request if request is not None else each if each is not None else NO_TIMEOUT,
        retry=_retry(rule.retry, each, facts),
        rewrite=rewrite_of(filters.rewrite, path),
        host_rewrite=str(host) if host else None,
        mirrors=tuple(mirror for mirror in mirrors if mirror.fraction),
        missing_status=500,
    )


def _destination(ref: HTTPBackendRef, owner: str, facts: Facts) -> ir.Destination:
    own = filters_of(ref.filters)
    backend = backend_of(ref, owner, facts)
    return ir.Destination(
        cluster=UNKNOWN if own.unknown else backend.cluster,
        weight=1 if ref.weight is None else ref.weight,
        request_headers=own.request,
        response_headers=own.response,
        host_rewrite=own.rewrite.hostname if own.rewrite is not None else None,
    )


def _retry(rule: HTTPRouteRetry | None, each: timedelta | None, facts: Facts) -> ir.Retry | None:
    """Retries of a rule; without any the mesh's own. ``each`` bounds one try."""
    if rule is None:
        retry = facts.settings.retry
        return retry and replace(retry, per_try_timeout=each)
    on = ("connect-failure", "refused-stream", "unavailable", "cancelled")
    codes = tuple(rule.codes or ())
    return ir.Retry(
        attempts=rule.attempts or DEFAULT_RETRY.attempts,
        on=(*on, "retriable-status-codes") if codes else on,
        codes=codes,
        per_try_timeout=each,
        back_off=ir.BackOff(base=rule.backoff) if rule.backoff else None,
    )
