"""What a VirtualService's HTTP rule does beside forwarding: redirect, answer, rewrite, retry, fail."""

from __future__ import annotations

import base64
from dataclasses import replace
from http import HTTPStatus
from typing import Final

from weft import ir
from weft.compile.settings import DEFAULT_RETRY, INBOUND_RETRY
from weft.model.virtual_service import (
    HTTPDirectResponse,
    HTTPFaultInjection,
    HTTPRedirect,
    HTTPRetry,
    HTTPRewrite,
)
from weft.units import millionths

_STATUSES: Final = frozenset(status.value for status in HTTPStatus)
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_GRPC_STATUS: Final = {
    name: code
    for code, name in enumerate(
        (
            "OK",
            "CANCELLED",
            "UNKNOWN",
            "INVALID_ARGUMENT",
            "DEADLINE_EXCEEDED",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "ABORTED",
            "OUT_OF_RANGE",
            "UNIMPLEMENTED",
            "INTERNAL",
            "UNAVAILABLE",
            "DATA_LOSS",
            "UNAUTHENTICATED",
        )
    )
}


def redirect(rule: HTTPRedirect, port: int, tls: bool) -> ir.Redirect:
    """Another address. ``FROM_REQUEST_PORT`` is the listener's port; a scheme's own is left out."""
    number = rule.port
    if rule.derive_port == "FROM_REQUEST_PORT":
        number = port
    scheme = rule.scheme or ("https" if tls else "http")
    if number == _DEFAULT_PORTS.get(scheme):
        number = None
    return ir.Redirect(
        code=rule.redirect_code if rule.redirect_code in REDIRECTS else 301,
        scheme=rule.scheme or None,
        host=rule.authority or None,
        port=number,
        path=(rule.uri or None) if not rule.prefix_rewrite else None,
        prefix=rule.prefix_rewrite or None,
    )


def direct_response(rule: HTTPDirectResponse) -> ir.Respond:
    """An answer of its own."""
    body: bytes | None = None
    if rule.body is not None:
        if rule.body.string is not None:
            body = rule.body.string.encode()
        elif rule.body.bytes_ is not None:
            body = base64.b64decode(rule.body.bytes_)
    return ir.Respond(status=rule.status, body=body)


def rewrite(rule: HTTPRewrite | None) -> ir.Rewrite | None:
    """How the path changes; the authority is the route's business."""
    if rule is None:
        return None
    if rule.uri_regex_rewrite is not None:
        regex = rule.uri_regex_rewrite
        return ir.Rewrite(regex=(regex.match or "", regex.rewrite or ""))
    return ir.Rewrite(prefix=rule.uri) if rule.uri else None


def retry_of(rule: HTTPRetry, hashed: bool) -> ir.Retry | None:
    """Retries as a rule says. Numbers among ``retryOn`` are status codes; zero attempts turn retries off."""
    if not rule.attempts or rule.attempts < 0:
        return None
    conditions: tuple[str, ...] = DEFAULT_RETRY.on
    codes: tuple[int, ...] = ()
    if rule.retry_on:
        parts = [part.strip() for part in rule.retry_on.split(",") if part.strip()]
        codes = tuple(int(part) for part in parts if part.isdigit() and int(part) in _STATUSES)
        conditions = tuple(part for part in parts if not (part.isdigit() and int(part) in _STATUSES))
        if codes and "retriable-status-codes" not in conditions:
            conditions = (*conditions, "retriable-status-codes")
    avoid = rule.retry_ignore_previous_hosts
    return ir.Retry(
        attempts=rule.attempts,
        on=conditions,
        codes=codes,
        per_try_timeout=rule.per_try_timeout,
        back_off=ir.BackOff(base=rule.backoff) if rule.backoff is not None else None,
        avoid_previous_hosts=not hashed if avoid is None else avoid,
        other_localities=bool(rule.retry_remote_localities),
    )


def inbound_retry_of(rule: HTTPRetry) -> ir.Retry | None:
    """Retries towards the application itself: there is no other one, and a try takes as long as it takes."""
    found = retry_of(rule, hashed=True)
    if found is None:
        return None
    return replace(
        found,
        on=found.on if rule.retry_on else INBOUND_RETRY.on,
        per_try_timeout=None,
        avoid_previous_hosts=False,
        other_localities=False,
    )


def fault(rule: HTTPFaultInjection | None) -> ir.Fault | None:
    """Delays and aborts. Without a percentage they meet no request (Istio)."""
    if rule is None:
        return None
    delay = rule.delay
    abort = rule.abort
    value = ir.Fault()
    if delay is not None and delay.fixed_delay is not None:
        percent = delay.percentage.value or 0 if delay.percentage else delay.percent or 0
        value = ir.Fault(delay=delay.fixed_delay, delay_fraction=millionths(percent))
    if abort is not None and (abort.http_status is not None or abort.grpc_status is not None):
        percent = abort.percentage.value or 0 if abort.percentage else 0
        value = ir.Fault(
            delay=value.delay,
            delay_fraction=value.delay_fraction,
            abort_status=abort.http_status,
            abort_grpc_status=None if abort.grpc_status is None else _grpc(abort.grpc_status),
            abort_fraction=millionths(percent),
        )
    return None if value == ir.Fault() else value


def _grpc(name: str) -> int:
    return int(name) if name.isdigit() else _GRPC_STATUS.get(name, 2)
