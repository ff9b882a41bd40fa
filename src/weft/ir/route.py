"""Route tables: what a proxy does with an HTTP request once it knows the port or the listener."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from weft.ir.external_authorization import Authorizer
from weft.ir.match import RequestMatch, TextMatch


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderEdit:
    """Changes to a message's headers, in Envoy's order: remove, then set and add."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


NO_EDIT = HeaderEdit()


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """One weighted target of a route. ``cluster`` is a cluster's name."""

    cluster: str
    weight: int = 1
    request_headers: HeaderEdit = NO_EDIT
    response_headers: HeaderEdit = NO_EDIT
    host_rewrite: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackOff:
    """Exponential back-off between tries: random in [0, base * 2**n), at most ``maximum``."""

    base: timedelta
    maximum: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """``attempts`` counts retries, not tries. ``on`` holds Envoy's retry_on names."""

    attempts: int
    on: tuple[str, ...]
    codes: tuple[int, ...] = ()
    per_try_timeout: timedelta | None = None
    back_off: BackOff | None = None
    avoid_previous_hosts: bool = True
    other_localities: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """How the path changes. ``prefix`` replaces what the match's prefix matched.

    ``regex`` is (pattern, substitution); ``full`` replaces the whole path and keeps the query.
    """

    prefix: str | None = None
    full: str | None = None
    regex: tuple[str, str] | None = None


class HostRewriteFrom(StrEnum):
    """Where a rewritten host comes from, when it is no literal."""

    BACKEND = "backend"


@dataclass(frozen=True, slots=True, kw_only=True)
class HashOn:
    """One source of the hash for ring hash and maglev; exactly one field is set."""

    header: str | None = None
    query: str | None = None
    source_ip: bool = False
    cookie: str | None = None
    cookie_ttl: timedelta | None = None
    cookie_path: str = ""
    cookie_attributes: tuple[tuple[str, str], ...] = ()
    terminal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """A copy of the request, its answer ignored. ``fraction`` in millionths."""

    cluster: str
    fraction: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """Send the request on. ``timeout`` 0 means none; None means Envoy's silence (no timeout in Istio).

    ``missing_status`` (404, 500 or 503) is answered when a destination's cluster does not exist; None is
    Envoy's 503. The Gateway API wants 500 there. ``tunnel``: what follows the request is bytes for the
    destination (a CONNECT ends here).
    """

    destinations: tuple[Destination, ...]
    timeout: timedelta | None = None
    idle_timeout: timedelta | None = None
    retry: Retry | None = None
    rewrite: Rewrite | None = None
    host_rewrite: str | None = None
    host_rewrite_from: HostRewriteFrom | None = None
    append_forwarded_host: bool = False
    hash_on: tuple[HashOn, ...] = ()
    mirrors: tuple[Mirror, ...] = ()
    websocket: bool = True
    missing_status: int | None = None
    tunnel: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """Answer with another address; None keeps the request's own part."""

    code: int = 301
    scheme: str | None = None
    host: str | None = None
    port: int | None = None
    path: str | None = None
    prefix: str | None = None
    regex: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Respond:
    """Answer at once. ``body`` in bytes."""

    status: int
    body: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Injected failure. Fractions are in millionths of the requests."""

    delay: timedelta | None = None
    delay_fraction: int = 0
    abort_status: int | None = None
    abort_grpc_status: int | None = None
    abort_fraction: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cors:
    """Cross-origin rules of a route. ``origins`` are tests of the Origin header."""

    origins: tuple[TextMatch, ...] = ()
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    max_age: timedelta | None = None
    credentials: bool | None = None
    forward_unmatched_preflights: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The resource behind a unit, for Istio's ``filter_metadata.istio.config``; no position, ever.

    ``path`` is Istio's form: ``/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews``.
    ``rule`` and ``match`` are indexes in the resource; None where it has none.
    """

    path: str
    rule: int | None = None
    match: int | None = None


class SessionIn(StrEnum):
    """What carries the name of a session's endpoint, from the answer to the client's next requests."""

    COOKIE = "cookie"
    HEADER = "header"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPersistence:
    """Requests of one session go to the endpoint that answered its first.

    ``name`` is the cookie's or the header's. ``lifetime`` None: as long as the client's own session.
    ``strict``: when the endpoint is gone the request fails, instead of finding another one.
    """

    name: str
    place: SessionIn = SessionIn.COOKIE
    path: str = "/"
    lifetime: timedelta | None = None
    attributes: tuple[tuple[str, str], ...] = ()
    strict: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The first route whose match holds decides. ``stat_prefix``: it has counters of its own by that name.

    ``authorizers``: all of them must let a request pass.
    ``on_demand`` False: none of its clusters is asked for, wherever it is used (``HttpHandler.on_demand``).
    """

    name: str
    match: RequestMatch
    action: Forward | Redirect | Respond
    request_headers: HeaderEdit = NO_EDIT
    response_headers: HeaderEdit = NO_EDIT
    fault: Fault | None = None
    cors: Cors | None = None
    session: SessionPersistence | None = None
    authorizers: tuple[Authorizer, ...] = ()
    operation: str = ""
    stat_prefix: str = ""
    source: Source | None = None
    on_demand: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualHost:
    """Routes of some domains. ``require_tls`` answers plain requests with a redirect (301).

    ``count_attempts``: requests say which attempt they are (``x-envoy-attempt-count``).
    """

    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...]
    request_headers: HeaderEdit = NO_EDIT
    response_headers: HeaderEdit = NO_EDIT
    require_tls: bool = False
    count_attempts: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteTable:
    """An Envoy route configuration: Istio names it by port (``9080``) or by gateway listener.

    ``ignore_port_in_host`` lets ``Host: reviews:9080`` match the domain ``reviews``.
    ``validate_clusters`` False: a route to a cluster that does not exist answers 503 (or 500 by NR).
    ``response_headers`` change what every virtual host answers.
    """

    name: str
    virtual_hosts: tuple[VirtualHost, ...]
    response_headers: HeaderEdit = HeaderEdit()
    ignore_port_in_host: bool = True
    internal_only_headers: tuple[str, ...] = ()
    max_direct_response_body_bytes: int = 1 << 20
