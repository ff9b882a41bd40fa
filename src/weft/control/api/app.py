"""The API as one ASGI application: Kubernetes' paths, weft's own, and whatever routes it is given."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from weft.control.api import discovery, openapi, reviews
from weft.control.api.apply import Applier
from weft.control.api.doorway import share_of
from weft.control.api.objects import Objects
from weft.control.api.permission import Access, Denied, impersonated
from weft.control.api.resources import Converged, Resources, reply
from weft.control.api.roles import Roles
from weft.control.api.rules import Ask
from weft.control.api.shares import Share, Shares, lasts
from weft.control.api.status import ApiError, no_such_path
from weft.control.api.subject import (
    ANONYMOUS,
    AUTHENTICATED,
    MASTERS,
    UNAUTHENTICATED,
    Authenticate,
    Subject,
    origin,
    unix_peer,
)
from weft.control.api.table import NO_CELLS, Cells
from weft.errors import WeftError

log = logging.getLogger(__name__)

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")
# Answered without an identity: health and the version, and enrolment, whose proof is in its body.
_OPEN_PATHS: Final = frozenset({"/healthz", "/livez", "/readyz", "/version"})
_MAX_BODY_BYTES: Final = 8 * 1024 * 1024

Endpoint = Callable[[Request], Awaitable[Response]]


def create_app(
    objects: Objects, *, authenticate: Authenticate, stop: asyncio.Event,
    converged: Converged | None = None, routes: Sequence[BaseRoute] = (),
    open_paths: frozenset[str] = frozenset(), cells: Cells = NO_CELLS,
    denied: Denied = lambda access, ask: None, seen: Denied = lambda access, ask: None,
) -> ASGIApp:  # fmt: skip
    """The application. ``stop`` ends watches; ``open_paths`` of ``routes`` are served to anybody.

    ``request.state.subject`` is who calls, ``request.state.access`` what the caller may; ``denied`` hears of
    what the caller may not, ``seen`` of secrets that are read.
    """
    converged = converged or _at_once
    resources = Resources(objects, converged, stop, cells)
    applier = Applier(objects, converged)
    paths: dict[str, Endpoint] = {
        "/api": resources.core,
        "/api/{rest:path}": resources.core,
        "/apis": resources.named,
        "/apis/authentication.k8s.io/v1/selfsubjectreviews": reviews.who,
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews": reviews.may,
        "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews": reviews.rules,
        "/apis/authorization.k8s.io/v1/subjectaccessreviews": reviews.others_may,
        "/apis/authorization.k8s.io/v1/namespaces/{namespace}/localsubjectaccessreviews": (
            reviews.others_may_here
        ),
        "/apis/{rest:path}": resources.named,
        "/openapi/v3": _by_path(openapi.index),
        "/openapi/v3/{rest:path}": _by_path(openapi.document),
        "/version": _version,
        "/weft/v1/apply": applier.handle,
    }
    table: list[BaseRoute] = [*routes]
    table += [Route(path, _guarded(endpoint), methods=list(METHODS)) for path, endpoint in paths.items()]
    table += [Route(f"/{name}", _healthy) for name in ("healthz", "livez", "readyz")]
    app = Starlette(
        routes=table,
        exception_handlers={404: _refused_by_router, 405: _refused_by_router, Exception: _failed},
    )
    # kubectl asks for /api/ and /api alike; a redirect would lose the body.
    app.router.redirect_slashes = False
    return _Gate(app, authenticate, objects.roles, _OPEN_PATHS | open_paths, denied, seen)


def _by_path(endpoint: Endpoint) -> Endpoint:
    """What is no resource is for those whom a rule about its path allows it."""

    async def asked(request: Request) -> Response:
        access: Access = request.state.access
        await access.require(Ask(verb=request.method.lower(), path=request.url.path))
        return await endpoint(request)

    return asked


def _guarded(endpoint: Endpoint) -> Endpoint:
    async def guarded(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ApiError as error:
            return reply(error.body(), error.code)
        except WeftError as error:
            log.error("%s %s: %s", request.method, request.url.path, error.message)
            # 503: what cannot be recorded or stored now may be later, once there is room on the disk.
            return reply({**ApiError(503, error.message).body(), "hint": error.hint}, 503)

    return guarded


class _Gate:
    """Nobody passes without an identity, and no body is larger than it may be."""

    def __init__(
        self,
        app: ASGIApp,
        authenticate: Authenticate,
        roles: Roles,
        open_paths: frozenset[str],
        denied: Denied,
        seen: Denied,
    ) -> None:
        self._app = app
        self._authenticate = authenticate
        self._roles = roles
        self._open = open_paths
        self._denied = denied
        self._seen = seen
        self._shares = Shares()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        subject = await self._authenticate(connection)
        if subject is None and scope["path"] not in self._open:
            await _turn_away(scope, receive, send)
            return
        request_id = secrets.token_hex(8)

        async def known() -> bool:
            return await self._authenticate(connection) == subject

        access = Access(
            subject=subject or _STRANGER, roles=self._roles, where=origin(connection), request=request_id,
            denied=self._denied, seen=self._seen, known=known,
        )  # fmt: skip
        try:
            access = await impersonated(connection, access)
        except ApiError as error:
            await reply(error.body(), error.code)(scope, receive, send)
            return
        connection.state.subject = access.subject
        connection.state.access = access
        send = _numbered(send, request_id)
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        started = False

        async def starting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        caller = access.subject.by or access.subject.name
        if subject is None:  # nodes that join must not stand behind a stranger's
            caller = f"address {share_of(connection.client.host) if connection.client else ''}"
        try:
            async with self._shares.of(caller, lasts=lasts(scope["path"], connection.query_params)) as share:
                await self._app(scope, _bounded(receive, share), starting)
        except ApiError as error:
            if not started:
                await reply(error.body(), error.code)(scope, receive, send)


_STRANGER: Final = Subject(name=ANONYMOUS, groups=(UNAUTHENTICATED,))


def _numbered(send: Send, request_id: str) -> Send:
    """The request's id with the answer: the audit log has it too."""

    async def numbered(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"audit-id", request_id.encode())]
        await send(message)

    return numbered


def _bounded(receive: Receive, share: Share) -> Receive:
    """Stops reading a body that is too long, whatever length it claims to have."""
    read = 0

    async def bounded() -> Message:
        nonlocal read
        message = await receive()
        if message["type"] == "http.request":
            part = len(message.get("body", b""))
            read += part
            share.take(part)
            if read > _MAX_BODY_BYTES:
                raise ApiError(413, f"the body is larger than {_MAX_BODY_BYTES} bytes: send it in parts")
        return message

    return bounded


async def _turn_away(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).close(1008, "Unauthorized")
        return
    await reply(ApiError(401, "Unauthorized").body(), 401)(scope, receive, send)


async def _refused_by_router(request: Request, error: Exception) -> Response:
    code = getattr(error, "status_code", 404)
    refusal = no_such_path() if code == 404 else ApiError(code, "the server does not allow this method")
    return reply(refusal.body(), refusal.code)


async def _failed(request: Request, error: Exception) -> Response:
    # Starlette's outermost layer logs the traceback after this answer.
    log.error("%s %s failed", request.method, request.url.path)
    return reply(ApiError(500, f"weft itself failed: {type(error).__name__}").body(), 500)


async def _version(_: Request) -> Response:
    return JSONResponse(discovery.version())


async def _healthy(_: Request) -> Response:
    return PlainTextResponse("ok")


async def _at_once(revision: int, _: float) -> Mapping[str, Any]:
    return {"converged": True, "revision": revision, "proxies": 0, "missing": []}


def same_user(uid: int) -> Authenticate:
    """Root and ``uid`` are administrators on the Unix socket; nobody else is known."""

    async def authenticate(connection: HTTPConnection) -> Subject | None:
        peer = unix_peer(connection)
        if peer is not None and peer.uid in {0, uid}:
            return Subject(name=f"unix:{peer.uid}", groups=(MASTERS, AUTHENTICATED), how="socket")
        return None

    return authenticate


def any_of(*methods: Authenticate) -> Authenticate:
    """The first method that knows the caller."""

    async def authenticate(connection: HTTPConnection) -> Subject | None:
        for method in methods:
            subject = await method(connection)
            if subject is not None:
                return subject
        return None

    return authenticate
