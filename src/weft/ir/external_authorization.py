"""Decisions that somebody outside of the proxy makes: it is asked about each request or connection."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from weft.ir.authorization import AccessRules
from weft.ir.match import TextMatch


class AuthorizerProtocol(StrEnum):
    """``GRPC``: Envoy's ``envoy.service.auth.v3.Authorization``. ``HTTP``: 200 means yes."""

    GRPC = "grpc"
    HTTP = "http"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownBody:
    """How much of a body is shown. ``partial``: of a longer one its beginning; else that is refused (413).

    ``as_bytes``: it need not be text (gRPC).
    """

    max_bytes: int
    partial: bool = False
    as_bytes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorizer:
    """Who decides, what it is shown, and what becomes of its answer.

    ``name`` is its own in a connection manager, which tells authorizers apart by it. ``host`` is what it is
    called in the question's authority (gRPC) or URI. ``headers`` are tests of the names of the headers that
    it is shown: without any all are (gRPC), or only those that HTTP always shows: Host, the method, the path,
    Content-Length and Authorization. ``added_headers`` are shown as well.

    Of an answer by HTTP, ``upstream_headers`` go to the application, ``denial_headers`` to the client with a
    refusal (without a test all do), ``answer_headers`` to the client with the application's answer.
    ``any_upstream_headers``: all may go to the application that do not frame or route a message.

    ``fail_open``: when it cannot be asked, the request passes; else it gets ``error_status`` (403 if None).
    ``reroute``: the route is chosen again, by the headers that the answer gave the request.
    """

    name: str
    cluster: str
    host: str
    protocol: AuthorizerProtocol
    timeout: timedelta
    path_prefix: str = ""
    headers: tuple[TextMatch, ...] = ()
    added_headers: tuple[tuple[str, str], ...] = ()
    upstream_headers: tuple[TextMatch, ...] = ()
    any_upstream_headers: bool = False
    denial_headers: tuple[TextMatch, ...] = ()
    answer_headers: tuple[TextMatch, ...] = ()
    body: ShownBody | None = None
    fail_open: bool = False
    error_status: int | None = None
    reroute: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Consultation:
    """An authorizer decides about what ``rules`` fit; everything else passes without a question.

    None: there is nobody to ask, so that what they fit is refused. The rules have the action ``DENY``.
    """

    authorizer: Authorizer | None
    rules: AccessRules
