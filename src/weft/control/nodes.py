"""What nodes ask of the control plane: enrolment, certificates, the session; join tokens for operators.

The protocol is written down in docs/reference/node-protocol.md.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from weft.control.api.permission import Access
from weft.control.api.resources import reply
from weft.control.api.rules import Ask
from weft.control.api.status import ApiError
from weft.control.api.subject import client_certificate
from weft.control.doors import Door
from weft.control.nametable import NameTable
from weft.control.nodesession import CLOSE_REFUSED, CLOSE_REPLACED, Addresses, Hub, Message, Session
from weft.control.registry import Registry
from weft.errors import WeftError, did_you_mean
from weft.identity.bundle import write_bundle
from weft.identity.jwt_issuer import JwtIssuer, JwtRequest
from weft.identity.nodes import check_node_name
from weft.identity.scope import EVERYTHING, Scope
from weft.identity.server import EnrollRequest, Issuer, Refused, SignRequest, caller_of, key_of
from weft.identity.tokens import LIFETIME, Token
from weft.instance import Instance
from weft.model.catalog import WEFT
from weft.spiffe import NodeId
from weft.start import ProxyStart
from weft.units import parse_duration

# Served without an identity: what is public, and what a join token opens.
OPEN_PATHS: Final = frozenset({"/weft/v1/bundle", "/weft/v1/enroll", "/weft/v1/jwks"})
_BODY_MAX: Final = 64 * 1024


Recorded = Callable[[str, Access, Mapping[str, Any]], None]
Turned = Callable[[HTTPConnection, str], None]


async def _as_it_likes(_: Instance) -> ProxyStart:
    return ProxyStart()


class NodeService:
    """The routes under ``/weft/v1/`` and the sessions behind them.

    Args:
        addresses: where a node that came by this connection shall go on; a control plane that listens on
            every address answers with the one that was dialled.
        loaded: is told which configuration a node's Envoys run, and which trust bundle (``proxies``).
        start: what the proxy of an instance is to be started with.
        recorded: writes to the audit log what operators do; raises when it cannot.
        turned: hears why a host may not join.
    """

    def __init__(
        self,
        issuer: Issuer,
        registry: Registry,
        names: NameTable,
        addresses: Callable[[HTTPConnection], Addresses],
        jwts: JwtIssuer,
        *,
        loaded: Callable[[str, Message], None] = lambda node, message: None,
        start: Callable[[Instance], Awaitable[ProxyStart]] = _as_it_likes,
        recorded: Recorded = lambda event, access, about: None,
        turned: Turned = lambda connection, why: None,
    ) -> None:
        self.issuer = issuer
        self.registry = registry
        self.names = names
        self.addresses = addresses
        self.jwts = jwts
        self.loaded = loaded
        self.start = start
        self._recorded = recorded
        self._turned = turned
        self.sequence: Callable[[], int] = lambda: 1
        """Of the trust bundle; grows with each change."""
        self.foreign_keys: Callable[[], Mapping[str, tuple[Mapping[str, Any], ...]]] = dict
        """JWKs of the tokens of other trust domains."""
        self._sessions: dict[str, Session] = {}

    def routes(self) -> list[BaseRoute]:
        """For the API's application."""
        return [
            Route("/weft/v1/bundle", answer(self._bundle), methods=["GET"]),
            Route("/weft/v1/enroll", answer(self._enroll), methods=["POST"]),
            Route("/weft/v1/certificates", answer(self._sign), methods=["POST"]),
            Route("/weft/v1/jwts", answer(self._sign_jwt), methods=["POST"]),
            Route("/weft/v1/jwks", answer(self._jwks), methods=["GET"]),
            Route("/weft/v1/jwks/federated", answer(self._federated_jwks), methods=["GET"]),
            Route("/weft/v1/tokens", answer(self._tokens), methods=["GET", "POST"]),
            Route("/weft/v1/tokens/{id}", answer(self._revoke), methods=["DELETE"]),
            Route("/weft/v1/nodes", answer(self._nodes), methods=["GET"]),
            Route("/weft/v1/nodes/{name}", answer(self._remove), methods=["DELETE"]),
            WebSocketRoute("/weft/v1/nodes/{name}/session", self._session),
        ]

    async def announce_bundle(self) -> None:
        """Tell every node the trust bundle of now; after each step of replacing a root."""
        trust = self.issuer.trust.to_dict()
        for session in tuple(self._sessions.values()):
            session.send({"type": "bundle", **trust})

    def connected(self) -> tuple[str, ...]:
        """The nodes whose session stands."""
        return tuple(sorted(self._sessions))

    def doors(self) -> Iterator[Door]:
        """Where the nodes that are connected show series, as far as they do."""
        for name, session in sorted(self._sessions.items()):
            if door := Door.parse(name, session.metrics, near=session.near):
                ids = (one.split("/", 1) for one in self.registry.instances(name))
                known = (self.registry.get(namespace, one) for namespace, one in ids)
                yield replace(door, instances=tuple(one for one in known if one is not None))

    async def expel(self, name: str) -> bool:
        """Forget a node, end its session and remove its instances; False when there is none."""
        known = await self.issuer.nodes.remove(name)
        if session := self._sessions.get(name):
            await session.close(CLOSE_REFUSED, "the node was removed")
        if known:
            await self.registry.expel(name)
        return known

    async def end(self, names: frozenset[str]) -> None:
        """End the sessions of these nodes; they may come back if they still can."""
        for name in names & self._sessions.keys():
            await self._sessions[name].close(CLOSE_REFUSED, "the node's certificate was revoked")

    async def ask(self, workload: str, method: str, path: str) -> tuple[int, bytes]:
        """What the Envoy of a workload (``namespace/name``) answers at its admin interface: status and body.

        Raises:
            LookupError: no connected node runs it, or its Envoy does not answer.
            TimeoutError: the node does not answer.
        """
        return await self._running(workload).inquiries.ask(workload, method, path)

    async def hold_tap(self, workload: str, share: int, seconds: float) -> None:
        """Have the Envoy of a workload (``namespace/name``) tell of more requests (``Inquiries.hold_tap``).

        Raises:
            LookupError: no connected node runs it, or its Envoy does not do so.
            TimeoutError: the node does not answer.
        """
        await self._running(workload).inquiries.hold_tap(workload, share, seconds)

    def meters(self, namespace: str) -> Iterator[tuple[str, tuple[Instance, ...], Awaitable[bytes]]]:
        """The nodes that run something of a namespace, or of all: what, and what it uses
        (``Inquiries.usage``).
        """
        for name, session in sorted(self._sessions.items()):
            ids = (one.split("/", 1) for one in self.registry.instances(name))
            known = [self.registry.get(*one) for one in ids if not namespace or one[0] == namespace]
            if here := tuple(one for one in known if one is not None):
                yield name, here, session.inquiries.usage(namespace)

    def pages(self) -> Iterator[tuple[str, Awaitable[bytes]]]:
        """The nodes that are connected, and what each shows of itself (``Inquiries.series``)."""
        for name, session in sorted(self._sessions.items()):
            yield name, session.inquiries.series()

    def _running(self, workload: str) -> Session:
        for name, session in self._sessions.items():
            if workload in self.registry.instances(name):
                return session
        raise LookupError("no node that is connected runs it")

    async def _bundle(self, request: Request) -> Response:
        """Open to all: it is public, a node that joins checks it against its token, and other trust domains
        read it in SPIFFE's form.
        """
        authority = self.issuer.authority
        tokens = await self.jwts.keys()
        published = write_bundle(authority.roots, sequence=self.sequence() + tokens.generation)
        published["keys"] += [{**key, "use": "jwt-svid"} for key in tokens.public()]
        return JSONResponse({**published, "bundle": authority.bundle, "trustDomain": authority.trust_domain})

    async def _enroll(self, request: Request) -> Response:
        asked = EnrollRequest.parse(await body_of(request))
        try:
            signed = await self.issuer.enroll(asked)
        except Refused as refusal:
            self._turned(request, f"node {asked.node[:64]!r} may not join: {refusal.message[:256]}")
            raise
        where = self.addresses(request)
        about = {"trustDomain": self.issuer.authority.trust_domain, "xds": where.xds, "api": where.api}
        return JSONResponse({**signed.to_dict(), **about})

    async def _sign(self, request: Request) -> Response:
        caller, key = _caller(request)
        asked = SignRequest.parse(await body_of(request))
        signed = await self.issuer.sign(caller, key, asked, self.registry.card)
        return JSONResponse(signed.to_dict())

    async def _sign_jwt(self, request: Request) -> Response:
        caller, key = _caller(request)
        token, until = await self.jwts.sign(caller, key, JwtRequest.parse(await body_of(request)))
        return JSONResponse({"token": token, "notAfter": _when(until)})

    async def _jwks(self, request: Request) -> Response:
        """Open to all: it is public, and applications verify tokens with it."""
        return JSONResponse(await self.jwts.jwks())

    async def _federated_jwks(self, request: Request) -> Response:
        """For nodes: whom this mesh trusts is its own affair."""
        await self.issuer.known(*_caller(request))
        sets = {domain: {"keys": list(keys)} for domain, keys in self.foreign_keys().items()}
        return JSONResponse({"trustDomains": sets})

    async def _tokens(self, request: Request) -> Response:
        await _require(request, "list" if request.method == "GET" else "create", "tokens")
        if request.method == "GET":
            found = [self._describe(token) for token in await self.issuer.tokens.list()]
            return JSONResponse({"tokens": found})
        body = await body_of(request)
        if not isinstance(body, dict):
            raise Refused("expected a JSON object", status=400)
        allow, lifetime, uses = body.get("allow"), body.get("lifetime"), body.get("uses", 1)
        if not isinstance(uses, int) or not (allow is None or isinstance(allow, list)):
            raise Refused("uses is a number, allow a list of texts", status=400)
        scope = Scope.of(str(pattern) for pattern in allow) if allow else EVERYTHING
        node = check_node_name(str(body["node"])) if body.get("node") else ""
        about = {"allow": scope.patterns, "node": node, "lifetime": str(_lifetime(lifetime)), "uses": uses}
        self._recorded("join-token", request.state.access, about)
        text, token = await self.issuer.tokens.create(
            self.issuer.authority.pin, scope=scope, node=node, lifetime=_lifetime(lifetime), uses=uses
        )
        return JSONResponse({"token": str(text), **self._describe(token)}, status_code=201)

    async def _revoke(self, request: Request) -> Response:
        name = request.path_params["id"]
        await _require(request, "delete", "tokens", name)
        self._recorded("join-token-revoked", request.state.access, {"token": name})
        try:
            token = await self.issuer.tokens.revoke(request.path_params["id"])
        except WeftError as error:
            raise Refused(error.message, status=404, hint=error.hint) from error
        return JSONResponse(self._describe(token))

    async def _nodes(self, request: Request) -> Response:
        await _require(request, "list", "nodes")
        found = [
            {
                "name": node.name,
                "allow": list(node.scope.patterns),
                "addresses": list(node.addresses),
                "joined": _when(node.joined),
                "connected": node.name in self._sessions,
                "instances": list(self.registry.instances(node.name)),
            }
            for node in await self.issuer.nodes.list()
        ]
        return JSONResponse({"nodes": found})

    async def _remove(self, request: Request) -> Response:
        name = request.path_params["name"]
        await _require(request, "delete", "nodes", name)
        self._recorded("node-removed", request.state.access, {"node": name})
        if not await self.expel(name):
            access: Access = request.state.access
            may_know = await access.may(Ask(verb="list", group=WEFT, resource="nodes"))
            known = [node.name for node in await self.issuer.nodes.list()] if may_know else []
            hint = did_you_mean(name, known) or "'weft nodes list' shows those that have joined"
            raise Refused(f"there is no node {name!r}", status=404, hint=hint)
        return JSONResponse({"name": name})

    def _describe(self, token: Token) -> Message:
        return {
            "id": token.id,
            "state": token.state(self.issuer.now()),
            "allow": list(token.scope.patterns),
            "node": token.node or None,
            "created": _when(token.created),
            "expires": _when(token.expires),
            "uses": token.uses,
            "used": token.used,
        }

    async def _session(self, socket: WebSocket) -> None:
        name = socket.path_params["name"]
        try:
            caller, key = _caller(socket)
            if caller.name != name:
                raise Refused(f"this certificate is node {caller.name!r}'s, not {name!r}'s", status=403)
            node = await self.issuer.known(caller, key)
        except Refused as refusal:
            await socket.send_denial_response(_refusal(refusal))
            return
        await socket.accept()
        if old := self._sessions.get(name):
            # A node that lost its connection comes back before this end knows that it is lost.
            await old.close(CLOSE_REPLACED, "the node has opened another session")
        hub = Hub(self.issuer, self.registry, self.names, self.loaded, self.start)
        session = self._sessions[name] = Session(hub, node, key, socket, self.addresses(socket))
        try:
            await session.run()
        finally:
            if self._sessions.get(name) is session:
                del self._sessions[name]
                self.registry.detach(name, session.heard)


async def _require(request: Request, verb: str, resource: str, name: str = "") -> None:
    access: Access = request.state.access
    await access.require(Ask(verb=verb, group=WEFT, resource=resource, name=name))


def _caller(connection: HTTPConnection) -> tuple[NodeId, str]:
    """The node whose certificate the TLS layer has verified, and the hash of its key.

    Raises:
        Refused: 401 without one, 403 when it is nobody's or a workload's.
    """
    certificate = client_certificate(connection)
    if certificate is None:
        raise Refused(
            "a node certificate is required",
            status=401,
            hint="join first, with a token from 'weft token create'",
        )
    caller = caller_of(certificate)
    if not isinstance(caller, NodeId):
        raise Refused(f"{caller or 'this certificate'} is not a node", status=403)
    return caller, key_of(certificate)


def answer(handle: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Refusals become answers."""

    async def answered(request: Request) -> Response:
        try:
            return await handle(request)
        except ApiError as error:
            return reply(error.body(), error.code)
        except Refused as refusal:
            return _refusal(refusal)
        except WeftError as error:
            return _refusal(Refused(error.message, status=400, hint=error.hint))

    return answered


def _refusal(refusal: Refused) -> Response:
    """As the rest of the API says no: a Kubernetes ``Status``, with the remedy beside the message."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": refusal.message,
        "hint": refusal.hint,
        "code": refusal.status,
    }
    return JSONResponse(body, status_code=refusal.status)


async def body_of(request: Request) -> object:
    """The JSON of a small request.

    Raises:
        Refused: 413, 400.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _BODY_MAX:
            raise Refused("the request is larger than 64 KiB", status=413)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused("the request is no JSON", status=400) from error


def _lifetime(text: object) -> timedelta:
    if text is None:
        return LIFETIME
    try:
        return parse_duration(text)
    except ValueError as error:
        raise Refused(str(error), status=400) from error


def _when(time: datetime) -> str:
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")
