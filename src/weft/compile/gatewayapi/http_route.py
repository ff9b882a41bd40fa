"""HTTPRoute: its rules, matches, timeouts and retries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from weft import ir
from weft.compile.gatewayapi.forward import Limits, Rule
from weft.compile.gatewayapi.match import complaints, http_match, http_order
from weft.compile.routes import NO_TIMEOUT
from weft.compile.settings import DEFAULT_RETRY, Settings
from weft.model.http_route import HTTPRoute, HTTPRouteRetry, HTTPRouteRule

_EVERYTHING = HTTPRouteRule()


def http_rules(route: HTTPRoute, port: int, tls: bool, settings: Settings) -> Iterator[Rule]:
    """The rules of a route at a port; a route without rules takes everything, and has nowhere to send it."""
    namespace = route.metadata.namespace
    for index, rule in enumerate(route.spec.rules or (_EVERYTHING,)):
        tests = tuple(
            (place, http_match(match))
            for place, match in enumerate(rule.matches or (None,))
            if not any(complaints(match))
        )
        yield Rule(
            index=index,
            name=rule.name or f"{namespace}.{route.metadata.name}.{index}",
            rule=rule,
            owner=namespace,
            matches=tuple((place, http_order(match), match) for place, match in tests),
            port=port,
            tls=tls,
            limits=limits_of(rule, settings),
            refusal=500,
        )


def limits_of(rule: HTTPRouteRule, settings: Settings) -> Limits:
    """Timeouts and retries; without a retry of its own a rule has the mesh's.

    ``backendRequest`` bounds one try; where nothing is tried again after it, it is the limit of the whole.
    Zero means no limit.
    """
    timeouts = rule.timeouts
    request = (timeouts.request if timeouts is not None else None) or None
    each = (timeouts.backend_request if timeouts is not None else None) or None
    retry = _retry(rule.retry) if rule.retry is not None else settings.retry
    if each is None or retry is None:
        return Limits(timeout=each or request or NO_TIMEOUT, retry=retry)
    if request is None and rule.retry is None:
        return Limits(timeout=each, retry=retry)
    return Limits(timeout=request or NO_TIMEOUT, retry=replace(retry, per_try_timeout=each))


def _retry(rule: HTTPRouteRetry) -> ir.Retry:
    """Tries again where the connection failed or broke, where a try took too long, and after these codes."""
    on = ("connect-failure", "refused-stream", "reset", "unavailable", "cancelled")
    codes = tuple(dict.fromkeys(rule.codes or ()))
    return ir.Retry(
        attempts=rule.attempts if rule.attempts is not None else DEFAULT_RETRY.attempts,
        on=(*on, "retriable-status-codes") if codes else on,
        codes=codes,
        back_off=ir.BackOff(base=rule.backoff) if rule.backoff else None,
    )
