"""What becomes of the requests that a rule matches: sent on by weight, redirected, or refused."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import accumulate

from weft import ir
from weft.compile.gatewayapi.backends import UNKNOWN, Backends
from weft.compile.gatewayapi.external_auth import authorizers_of
from weft.compile.gatewayapi.filters import (
    NO_FILTERS,
    Filters,
    cors_of,
    filters_of,
    mirror_fraction,
    redirect_of,
    rewrite_of,
    then,
)
from weft.compile.gatewayapi.match import Order
from weft.model.route import HTTPRequestMirrorFilter, RouteBackend, RouteRule, SessionPersistence
from weft.units import MILLIONTHS


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a request may take, and when it is tried again."""

    timeout: timedelta
    retry: ir.Retry | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule of a route of some kind, and where it stands.

    ``matches`` are their places in the rule, the keys of their order and their tests. ``port`` and ``tls``
    are the listener's. ``refusal`` is the status of what leads nowhere.
    """

    index: int
    name: str
    rule: RouteRule
    owner: str
    matches: tuple[tuple[int, Order, ir.RequestMatch], ...]
    port: int
    tls: bool
    limits: Limits
    refusal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What becomes of some of a match's requests; of several shares the first that a request is of.

    ``below``: those whose draw, in millionths, is below this; None: all. ``cookie``: those that bear this
    name and value.
    """

    action: ir.Forward | ir.Redirect | ir.Respond
    below: int | None = None
    cookie: tuple[str, str] | None = None
    request: ir.HeaderEdit = ir.NO_EDIT
    response: ir.HeaderEdit = ir.NO_EDIT
    cors: ir.Cors | None = None
    session: ir.SessionPersistence | None = None
    authorizers: tuple[ir.Authorizer, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A backend that gets requests, and the filters on the way to it."""

    cluster: str
    weight: int
    own: Filters
    hash_on: ir.HashOn | None
    session: ir.SessionPersistence | None


def shares_of(unit: Rule, path: ir.PathMatch, backends: Backends) -> tuple[Share, ...]:
    """The shares of a match's requests: one, unless backends have filters that Envoy keeps on routes only."""
    common = filters_of(unit.rule.filters)
    if common.unknown:
        return (Share(action=ir.Respond(status=unit.refusal)),)
    asked = authorizers_of(common.external, unit.owner, backends)
    if asked is None:
        return (Share(action=ir.Respond(status=unit.refusal)),)
    if common.redirect is not None:
        redirect = redirect_of(common.redirect, path, unit.port, unit.tls)
        return (Share(action=redirect, response=common.response, authorizers=asked),)
    parts = tuple(
        _part(ref, unit.owner, backends)
        for ref in unit.rule.backend_refs or ()
        if ref.weight is None or ref.weight
    )
    if all(part.cluster == UNKNOWN for part in parts):
        return (Share(action=ir.Respond(status=unit.refusal), response=common.response),)
    session = session_of(unit.rule.session_persistence, f"{unit.owner}/{unit.name}")
    pinned: tuple[Share, ...] = ()
    if session is not None and session.place is ir.SessionIn.COOKIE and len(parts) > 1:
        pinned = tuple(
            replace(_share(unit, common, (part,), path, backends, session), cookie=_pin(session, part))
            for part in parts
            if part.cluster != UNKNOWN
        )
        parts = tuple(_pinning(part, session) for part in parts)
    if len(parts) == 1 or not any(part.own.beyond_weights for part in parts):
        return (*pinned, _share(unit, common, parts, path, backends, session))
    total = sum(part.weight for part in parts)
    bounds = [reached * MILLIONTHS // total for reached in accumulate(part.weight for part in parts)]
    return pinned + tuple(
        replace(
            _share(unit, common, (part,), path, backends, session),
            below=bound if bound < MILLIONTHS else None,
        )
        for part, bound in zip(parts, bounds, strict=True)
    )


def _part(ref: RouteBackend, owner: str, backends: Backends) -> _Part:
    own = filters_of(ref.filters)
    reached = backends.find(ref, owner)
    return _Part(
        cluster=UNKNOWN if own.unknown else reached.cluster,
        weight=1 if ref.weight is None else ref.weight,
        own=own,
        hash_on=reached.hash_on,
        session=reached.session,
    )


def _share(
    unit: Rule,
    common: Filters,
    parts: tuple[_Part, ...],
    path: ir.PathMatch,
    backends: Backends,
    session: ir.SessionPersistence | None,
) -> Share:
    """All parts by weight; what only one of them wants is possible when it is the only one."""
    only = parts[0].own if len(parts) == 1 else NO_FILTERS
    asked = authorizers_of((*common.external, *only.external), unit.owner, backends)
    request, response = then(common.request, only.request), then(common.response, only.response)
    if asked is None or (len(parts) == 1 and parts[0].cluster == UNKNOWN):
        return Share(action=ir.Respond(status=unit.refusal), response=response)
    if only.redirect is not None:
        redirect = redirect_of(only.redirect, path, unit.port, unit.tls)
        return Share(action=redirect, response=response, authorizers=asked)
    host = only.host or common.host
    destinations: tuple[ir.Destination, ...] = (ir.Destination(cluster=parts[0].cluster),)
    if len(parts) > 1:
        # A backend's filters come after the rule's, whereas Envoy would apply them before: where some backend
        # has its own, each bears the rule's, too.
        requests = any(part.own.request != ir.NO_EDIT for part in parts)
        responses = any(part.own.response != ir.NO_EDIT for part in parts)
        hosts = any(part.own.host for part in parts)
        destinations = tuple(
            ir.Destination(
                cluster=part.cluster,
                weight=part.weight,
                request_headers=then(request, part.own.request) if requests else ir.NO_EDIT,
                response_headers=then(response, part.own.response) if responses else ir.NO_EDIT,
                host_rewrite=(part.own.host or host) if hosts else None,
            )
            for part in parts
        )
        request = ir.NO_EDIT if requests else request
        response = ir.NO_EDIT if responses else response
        host = None if hosts else host
    hashes = tuple(dict.fromkeys(part.hash_on for part in parts if part.hash_on is not None))
    retry = unit.limits.retry
    return Share(
        action=ir.Forward(
            destinations=destinations,
            timeout=unit.limits.timeout,
            retry=replace(retry, avoid_previous_hosts=False) if retry is not None and hashes else retry,
            rewrite=rewrite_of(only.rewrite, path) or rewrite_of(common.rewrite, path),
            host_rewrite=host,
            hash_on=hashes,
            mirrors=_mirrors((*common.mirrors, *only.mirrors), unit.owner, backends),
            missing_status=unit.refusal,
        ),
        request=request,
        response=response,
        cors=cors_of(only.cors or common.cors),
        session=session or next((part.session for part in parts if part.session is not None), None),
        authorizers=asked,
    )


def _mirrors(
    filters: tuple[HTTPRequestMirrorFilter, ...], owner: str, backends: Backends
) -> tuple[ir.Mirror, ...]:
    """Copies to what there is; a share of zero means none."""
    found = ((backends.find(item.backend_ref, owner).cluster, mirror_fraction(item)) for item in filters)
    return tuple(
        ir.Mirror(cluster=cluster, fraction=fraction)
        for cluster, fraction in found
        if cluster != UNKNOWN and fraction
    )


def session_of(rule: SessionPersistence | None, name: str) -> ir.SessionPersistence | None:
    """How a client's requests find the same endpoint again; ``name`` names its cookie if nothing else does.

    A session that ends after a time is known by when it began: its cookie bears that, and ends then, too.
    """
    if rule is None:
        return None
    if rule.type == "Header":
        return ir.SessionPersistence(name=rule.token or "x-session", place=ir.SessionIn.HEADER)
    return ir.SessionPersistence(
        name=rule.token or f"weft-{_digest(name)}",
        path=(rule.cookie.path if rule.cookie is not None else None) or "/",
        lifetime=rule.absolute_timeout or None,
    )


def _pin(session: ir.SessionPersistence, part: _Part) -> tuple[str, str]:
    """The cookie that tells to which of several backends a session belongs: weights are for new ones."""
    return f"{session.name}-to", _digest(part.cluster)


def _pinning(part: _Part, session: ir.SessionPersistence) -> _Part:
    """The backend with an answer that says so."""
    name, value = _pin(session, part)
    age = f"; Max-Age={session.lifetime // timedelta(seconds=1)}" if session.lifetime is not None else ""
    cookie = f"{name}={value}; Path={session.path}{age}; HttpOnly".replace("%", "%%")
    said = ir.HeaderEdit(add=(("set-cookie", cookie),))
    return replace(part, own=replace(part.own, response=then(part.own.response, said)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
