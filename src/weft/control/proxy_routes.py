"""What the API tells of proxies: who has which configuration, and what their Envoys' admin interfaces say.

``GET /weft/v1/proxies``, ``GET /weft/v1/proxies/NAME``, ``GET /weft/v1/convergence/REVISION?timeout=10s``,
``POST /weft/v1/proxies/NAME/admin`` with ``{"method", "path"}``, ``GET /debug/syncz``,
``GET /debug/config_dump?proxyID=NAME``, ``GET /metrics``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from weft.control.api.permission import Access
from weft.control.api.resources import reply
from weft.control.api.rules import Ask as Question
from weft.control.api.status import ApiError
from weft.control.status import Status
from weft.emit.bundle import Bundle
from weft.emit.dump import config_dump
from weft.emit.packed import Packed
from weft.model.catalog import WEFT
from weft.names import CLUSTER_TYPE
from weft.units import parse_duration
from weft.xds.connection import Connection
from weft.xds.messages import Snapshot
from weft.xds.store import ConfigStore
from weft.xds.table import Resource

Ask = Callable[[str, str, str], Awaitable[tuple[int, bytes]]]
"""Asks the Envoy of a workload (``namespace/name``, method, path) through the session of its node.

Raises:
    LookupError: when no node that is connected runs it, or its Envoy does not answer; with the reason.
    TimeoutError: when its node does not answer.
"""

# What may be asked of an Envoy: looking, and its log level. Nothing that stops it or drains it.
_READABLE: Final = frozenset(
    {"/certs", "/clusters", "/config_dump", "/listeners", "/memory", "/ready", "/server_info", "/stats"}
)
_WRITABLE: Final = frozenset({"/logging"})


class ProxyRoutes:
    """The handlers. ``config``: what proxies shall have; ``ask``: reaches what they run."""

    def __init__(self, status: Status, config: ConfigStore, ask: Ask) -> None:
        self._status = status
        self._config = config
        self._ask = ask

    def routes(self) -> list[Route]:
        """For the API's application."""
        return [
            Route("/weft/v1/proxies", _answer(self._list), methods=["GET"]),
            Route("/weft/v1/proxies/{name:path}/admin", _answer(self._admin), methods=["POST"]),
            Route("/weft/v1/proxies/{name:path}", _answer(self._one), methods=["GET"]),
            Route("/weft/v1/convergence/{revision:int}", _answer(self._convergence), methods=["GET"]),
            *self.monitoring(),
        ]

    def monitoring(self) -> list[Route]:
        """For the monitoring port too."""
        return [
            Route("/debug/syncz", _answer(self._syncz), methods=["GET"]),
            Route("/debug/config_dump", _answer(self._dump), methods=["GET"]),
            Route("/metrics", _answer(self._metrics), methods=["GET"]),
        ]

    async def converged(self, revision: int, seconds: float) -> dict[str, Any]:
        """For ``?wait=converged``: waits until every proxy runs a revision, or so long."""
        return (await self._status.wait_converged(revision, seconds)).as_json()

    async def _list(self, request: Request) -> Response:
        seen = await _visible(request)
        return JSONResponse({"proxies": self._status.table(self._in(seen))})

    async def _one(self, request: Request) -> Response:
        found = await self._find(request, request.path_params["name"], "get")
        return found if isinstance(found, Response) else JSONResponse(self._status.table([found])[0])

    async def _convergence(self, request: Request) -> Response:
        access: Access = request.state.access
        await access.require(Question(verb="get", group=WEFT, resource="convergence"))
        try:
            seconds = parse_duration(request.query_params.get("timeout", "0")).total_seconds()
        except ValueError as error:
            return _status(400, str(error))
        return JSONResponse(await self.converged(request.path_params["revision"], seconds))

    async def _admin(self, request: Request) -> Response:
        found = await self._find(request, request.path_params["name"], "create", "admin")
        if isinstance(found, Response):
            return found
        try:
            body = await request.json()
            method, path = str(body.get("method", "GET")).upper(), str(body["path"])
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            return _status(400, 'expected {"method": "GET", "path": "/config_dump"}')
        target = path.partition("?")[0]
        if target not in (_READABLE if method == "GET" else _WRITABLE if method == "POST" else ()):
            return _status(403, f"{method} {target} may not be asked of a proxy")
        name = found.peer.identity.name
        try:
            status, answer = await self._ask(f"{name.namespace}/{name.name}", method, path)
        except LookupError as error:
            return _status(503, f"the proxy {name.name}.{name.namespace} cannot be asked: {error.args[0]}")
        except TimeoutError:
            return _status(504, f"the node of {name.namespace}/{name.name} does not answer")
        return JSONResponse({"status": status, "body": answer.decode(errors="replace")})

    async def _find(self, request: Request, name: str, verb: str, part: str = "") -> Connection | Response:
        """The proxy of that name, if the caller may do ``verb`` with it; what it may not see is not there."""
        access: Access = request.state.access
        every = self._status.proxies.find(name)
        found = [one for one in every if await access.may(_about(one, verb, part))]
        if len(found) == 1:
            return found[0]
        if not found:
            # Who may ask in no namespace at all hears nothing of which names there are.
            ask = Question(verb=verb, group=WEFT, resource="proxies", subresource=part)
            if not await access.may(ask) and not await access.roles.namespaces(access.subject, ask):
                await access.require(ask)
            return _status(404, f"no proxy {name!r} is connected")
        names = ", ".join(
            f"{one.peer.identity.name.name}.{one.peer.identity.name.namespace}" for one in found
        )
        return _status(409, f"{name!r} may be {names}: say which")

    def _in(self, namespaces: frozenset[str] | None) -> list[Connection] | None:
        if namespaces is None:
            return None
        return [
            one
            for one in self._status.proxies.connections()
            if one.peer.identity.name.namespace in namespaces
        ]

    async def _syncz(self, request: Request) -> Response:
        access: Access = request.state.access
        await access.require(Question(verb="get", path=request.url.path))
        rows = []
        for row in self._status.table():
            types = {
                f"{short}_{word}": state[field]
                for short, state in row["types"].items()
                for word, field in (("sent", "sent"), ("acked", "acknowledged"), ("status", "status"))
            }
            rows.append({"proxy": row["proxy"], "istio_version": row["version"], **types})
        return JSONResponse(rows)

    async def _dump(self, request: Request) -> Response:
        """What a proxy shall have, as Envoy would show it; the bytes of secrets are in no dump."""
        name = request.query_params.get("proxyID", "")
        if not name:
            return _status(400, "say which proxy: /debug/config_dump?proxyID=NAME.NAMESPACE")
        found = await self._find(request, name, "get", "config")
        if isinstance(found, Response):
            return found
        proxy = found.peer.id
        snapshot = self._config.snapshot(proxy)
        if snapshot is None:
            return _status(404, f"nothing has been made for {proxy} yet")
        table = self._config.endpoints_of(proxy)
        bundle = Bundle(cast("Mapping[str, Mapping[str, Packed]]", _asked(snapshot, found)))
        endpoints = [cast("Packed", table[one]) for one in bundle.resources[CLUSTER_TYPE] if one in table]
        # Reading a large one takes a while.
        return JSONResponse(await asyncio.to_thread(config_dump, bundle, endpoints, None))

    async def _metrics(self, request: Request) -> Response:
        access: Access = request.state.access
        await access.require(Question(verb="get", path=request.url.path))
        return Response(self._status.metrics.text(), media_type="text/plain; version=0.0.4")


def _asked(snapshot: Snapshot, connection: Connection) -> Mapping[str, Mapping[str, Resource]]:
    """The resources without the clusters that the proxy gets when it asks, and did not ask for."""
    if not snapshot.lazy:
        return snapshot.resources
    names = connection.stream.subscribed(CLUSTER_TYPE)
    clusters = {
        name: resource
        for name, resource in snapshot.of(CLUSTER_TYPE).items()
        if name in names or not snapshot.is_lazy(name)
    }
    return {**snapshot.resources, CLUSTER_TYPE: clusters}


def _about(one: Connection, verb: str, part: str) -> Question:
    name = one.peer.identity.name
    return Question(
        verb=verb, group=WEFT, resource="proxies", subresource=part, namespace=name.namespace, name=name.name
    )


async def _visible(request: Request) -> frozenset[str] | None:
    """The namespaces whose proxies the caller may list; None is all of them.

    Raises:
        ApiError: 403 when there are none.
    """
    access: Access = request.state.access
    ask = Question(verb="list", group=WEFT, resource="proxies")
    if await access.may(ask):
        return None
    found = await access.roles.namespaces(access.subject, ask)
    if not found:
        await access.require(ask)
    return frozenset(found)


def _answer(handle: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            return await handle(request)
        except ApiError as error:
            return reply(error.body(), error.code)

    return answer


def _status(code: int, message: str) -> Response:
    """A refusal in the form of the rest of the API."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
    return JSONResponse(body, status_code=code)
