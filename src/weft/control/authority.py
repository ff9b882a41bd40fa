"""The API of the authority, for administrators: its state, its replacement, what it issued and revoked.

``GET /weft/v1/ca``, ``POST /weft/v1/ca/rotation``, ``GET /weft/v1/ca/certificates``, ``GET`` and ``POST
/weft/v1/ca/revocations``, ``POST /weft/v1/ca/request``, ``POST /weft/v1/ca/intermediate``; all JSON
(docs/reference/ca-api.md).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from cryptography import x509
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from weft.control.api.permission import Access
from weft.control.api.resources import reply
from weft.control.api.rules import Ask
from weft.control.api.status import ApiError
from weft.control.rotation import Trustee
from weft.errors import WeftError
from weft.identity import handover
from weft.identity.ca import Authority
from weft.identity.expiry import is_due
from weft.identity.ledger import Issued
from weft.identity.pin import spki_sha256
from weft.identity.revocation import Revoked, issuer_key, read_serial
from weft.identity.rotation import AGENT, Loaded, Member
from weft.identity.server import Issuer, Refused
from weft.model.catalog import WEFT
from weft.spiffe import NodeId
from weft.store.interface import Private
from weft.units import parse_duration

_BODY_MAX: Final = 512 * 1024
_REQUEST: Final = "request"


class Fleet(Protocol):
    """What is known of the nodes."""

    def connected(self) -> tuple[str, ...]:
        """Those whose session stands."""

    async def expel(self, name: str) -> bool:
        """Forget a node and end its session; False when there is none."""

    async def end(self, names: frozenset[str]) -> None:
        """End the sessions of these nodes; they may come back if they still can."""


class AuthorityRoutes:
    """The handlers.

    Args:
        instances: of a node, as ``namespace/name``.
        kept: where the key of a request waits for its certificate.
        record: writes a line of the audit log.
    """

    def __init__(
        self,
        trustee: Trustee,
        issuer: Issuer,
        fleet: Fleet,
        instances: Callable[[str], tuple[str, ...]],
        kept: Private,
        record: Callable[[str, Access, Mapping[str, Any]], None] = lambda event, access, about: None,
    ) -> None:
        self._trustee = trustee
        self._issuer = issuer
        self._fleet = fleet
        self._instances = instances
        self._kept = kept
        self.doubts: list[Callable[[], Iterable[str]]] = []
        """What else an operator should know of, by whoever knows it."""
        self._record = record

    def routes(self) -> list[BaseRoute]:
        """For the API's application."""
        return [
            Route("/weft/v1/ca", _admin(self._status), methods=["GET"]),
            Route("/weft/v1/ca/rotation", _admin(self._rotate), methods=["POST"]),
            Route("/weft/v1/ca/certificates", _admin(self._certificates), methods=["GET"]),
            Route("/weft/v1/ca/revocations", _admin(self._revocations), methods=["GET"]),
            Route("/weft/v1/ca/revocations", _admin(self._revoke), methods=["POST"]),
            Route("/weft/v1/ca/request", _admin(self._request), methods=["POST"]),
            Route("/weft/v1/ca/intermediate", _admin(self._install), methods=["POST"]),
        ]

    async def members(self, reports: Mapping[str, Mapping[str, Loaded]]) -> Mapping[str, Member]:
        """Every node that joined, for the trustee."""
        connected = frozenset(self._fleet.connected())
        return {
            node.name: Member(
                connected=node.name in connected,
                parts=frozenset({AGENT, *self._instances(node.name)}),
                loaded=reports.get(node.name, {}),
            )
            for node in await self._issuer.nodes.list()
        }

    async def status(self) -> dict[str, Any]:
        """The state of the authority and of all that depends on it."""
        trustee = self._trustee
        authority, rotation, now = trustee.authority, trustee.state.rotation, trustee.now()
        by_serial = {one.serial: one for one in trustee.ledger.issued()}
        nodes = []
        for name, member in (await self.members(trustee.reports)).items():
            parts = [self._part(part, member.loaded.get(part), by_serial) for part in sorted(member.parts)]
            nodes.append({"name": name, "connected": member.connected, "parts": parts})
        turning = None
        if rotation is not None:
            turning = {
                "phase": rotation.phase.value,
                "started": _when(rotation.started),
                "since": _when(rotation.since),
                "from": _subject(rotation.predecessor.issuer),
                "to": _subject(rotation.successor.issuer),
                "skip": list(rotation.skip),
                "timeout": rotation.timeout.total_seconds() if rotation.timeout is not None else None,
                "missing": [
                    {"node": one.node, "proxy": one.part or None, "why": one.why}
                    for one in await trustee.missing()
                ],
            }
        return {
            "trustDomain": authority.trust_domain,
            "trustDomains": [name for name, _ in trustee.trust.domains] or [authority.trust_domain],
            "issuer": _described(authority.issuer),
            "roots": [
                {**_described(root), "signs": position == 0} for position, root in enumerate(authority.roots)
            ],
            "trust": trustee.trust.version,
            "rotation": turning,
            "revoked": len(trustee.ledger.revoked()),
            "nodes": nodes,
            "warnings": self._warnings(authority, now),
        }

    def _part(self, part: str, loaded: Loaded | None, issued: Mapping[str, Issued]) -> dict[str, Any]:
        trustee = self._trustee
        known = issued.get(loaded.serial) if loaded else None
        return {
            "name": part or "agent",
            "trusts": loaded is not None and loaded.trust == trustee.trust.version,
            "certified": loaded is not None and loaded.issuer == issuer_key(trustee.authority),
            "serial": loaded.serial if loaded else None,
            "notAfter": _when(known.not_after) if known else None,
        }

    def _warnings(self, authority: Authority, now: datetime) -> list[str]:
        found = []
        for what, certificate in (
            ("the signing certificate", authority.issuer),
            *(("the root", root) for root in authority.roots if root != authority.issuer),
        ):
            if is_due(certificate, now):
                found.append(
                    f"{what} {_subject(certificate)} expires on {certificate.not_valid_after_utc:%Y-%m-%d}: "
                    "replace it with 'weft ca rotate'"
                )
        if self._trustee.ledger.revoked() and not self._trustee.checks_lists:
            found.append(
                "proxies do not look at revocation lists while several trust domains are trusted and a root "
                "without a list vouches for this one; the control plane still refuses what was revoked"
            )
        found += [text for doubt in self.doubts for text in doubt()]
        if self._trustee.error is not None:
            found.append(f"the last step was not taken: {self._trustee.error}")
        return found

    async def _status(self, _request: Request) -> Response:
        return JSONResponse(await self.status())

    async def _rotate(self, request: Request) -> Response:
        body = await _body(request)
        skip, limit = body.get("skip") or [], body.get("timeout")
        if not isinstance(skip, list):
            raise Refused("skip is a list of nodes", status=400)
        unknown = {str(name) for name in skip} - {node.name for node in await self._issuer.nodes.list()}
        if unknown:
            raise Refused(f"there is no node {sorted(unknown)[0]!r}", status=400, hint="see 'weft nodes'")
        successor = None
        if any(body.get(name) for name in ("key", "chain", "roots")):
            key, chain, roots = (_text(body, name) for name in ("key", "chain", "roots"))
            successor = Authority.bring(
                key.encode(),
                chain.encode(),
                roots.encode(),
                now=self._trustee.now(),
                trust_domain=self._trustee.authority.trust_domain,
            )
        timeout = _duration(limit) if limit else None
        self._audit(request, "rotate", skip=skip)
        await self._trustee.rotate(
            successor,
            skip=[str(name) for name in skip],
            timeout=timeout,
            exact=successor is not None,
        )
        return JSONResponse(await self.status())

    async def _certificates(self, _request: Request) -> Response:
        ledger = self._trustee.ledger
        return JSONResponse(
            {
                "certificates": [
                    {
                        "serial": one.serial,
                        "identity": one.identity,
                        "node": one.node,
                        "issued": _when(one.time),
                        "notAfter": _when(one.not_after),
                        "issuer": one.issuer,
                        "revoked": ledger.is_revoked(one.serial),
                    }
                    for one in ledger.issued()
                ]
            }
        )

    async def _revocations(self, _request: Request) -> Response:
        return JSONResponse({"revoked": [_revoked(entry) for entry in self._trustee.ledger.revoked()]})

    async def _revoke(self, request: Request) -> Response:
        body = await _body(request)
        said = {name: _text(body, name) for name in ("serial", "identity", "node", "token") if name in body}
        if len(said) != 1:
            raise Refused("name one of serial, identity, node and token", status=400)
        ((kind, value),) = said.items()
        reason = str(body.get("reason") or "")[:256]
        self._audit(request, "revoke", **{kind: value}, reason=reason)
        nodes = await self._nodes(kind, value)
        serial = read_serial(value) if kind == "serial" else ""
        self._trustee.check_revocable()
        # Who is out may ask for nothing any more: before the books are read, or it would get more meanwhile.
        for name in nodes:
            await self._fleet.expel(name)

        def chosen(one: Issued) -> bool:
            by = {"identity": one.identity, "node": one.node, "token": one.token}
            return by.get(kind) == value or one.node in nodes

        fresh = await self._trustee.revoke(chosen, serial=serial, reason=reason)
        # What was being signed when they were turned out.
        fresh += await self._trustee.revoke(chosen, reason=reason)
        await self._fleet.end(frozenset(_node_of(entry.identity) for entry in fresh) - {""})
        if not fresh and not nodes:
            raise Refused(f"no valid certificate has {kind} {value!r}", status=404, hint="see 'weft ca list'")
        self._audit(request, "revoked", **{kind: value}, serials=[entry.serial for entry in fresh])
        return JSONResponse({"revoked": [_revoked(entry) for entry in fresh], "nodes": sorted(nodes)})

    async def _nodes(self, kind: str, value: str) -> frozenset[str]:
        """The nodes that are turned out."""
        known = await self._issuer.nodes.list()
        if kind == "node":
            return frozenset(node.name for node in known if node.name == value)
        if kind != "token":
            return frozenset()
        found = frozenset(node.name for node in known if node.token == value)
        try:
            await self._issuer.tokens.revoke(value)
        except WeftError as error:
            if not found:
                raise Refused(error.message, status=404, hint=error.hint) from error
        return found

    async def _request(self, request: Request) -> Response:
        key, text = handover.ask(self._trustee.authority.trust_domain)
        self._audit(request, "request")
        await self._kept.put(_REQUEST, key.encode())
        return JSONResponse({"request": text}, status_code=201)

    async def _install(self, request: Request) -> Response:
        body = await _body(request)
        key = await self._kept.get(_REQUEST)
        if key is None:
            raise Refused("no request waits for a certificate", status=409, hint="make one: weft ca request")
        present = self._trustee.authority
        roots = str(body.get("roots") or "")
        given = handover.install(
            key,
            _text(body, "chain").encode(),
            (roots or present.bundle).encode(),
            now=self._trustee.now(),
            trust_domain=present.trust_domain,
        )
        if not roots:
            handover.check_trusted(given, present)
        self._audit(request, "install", issuer=_subject(given.issuer))
        await self._trustee.rotate(given, exact=bool(roots))
        await self._kept.delete(_REQUEST)
        return JSONResponse(await self.status())

    def _audit(self, request: Request, verb: str, **about: Any) -> None:
        self._record("ca", request.state.access, {"verb": verb, **about})


def _admin(handle: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """For those whose roles allow ``certificateauthorities`` of ``weft.dev``; refusals become answers."""

    async def answer(request: Request) -> Response:
        try:
            access: Access = request.state.access
            verb = "get" if request.method == "GET" else "update"
            await access.require(Ask(verb=verb, group=WEFT, resource="certificateauthorities"))
            return await handle(request)
        except ApiError as error:
            return reply(error.body(), error.code)
        except WeftError as error:
            code = error.status if isinstance(error, Refused) else 400
            body = {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Failure",
                "message": error.message,
                "hint": error.hint,
                "code": code,
            }
            return JSONResponse(body, status_code=code)

    return answer


async def _body(request: Request) -> dict[str, Any]:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _BODY_MAX:
            raise Refused("the request is larger than 512 KiB", status=413)
    try:
        said = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise Refused("the request is no JSON", status=400) from error
    if not isinstance(said, dict):
        raise Refused("expected a JSON object", status=400)
    return said


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise Refused(f"{name}: expected a text", status=400)
    return value


def _duration(text: object) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise Refused(str(error), status=400) from error


def _node_of(identity: str) -> str:
    try:
        return NodeId.parse(identity).name
    except ValueError:
        return ""


def _revoked(entry: Revoked) -> dict[str, Any]:
    return {
        "serial": entry.serial,
        "identity": entry.identity,
        "node": entry.node,
        "revoked": _when(entry.time),
        "until": _when(entry.until),
        "reason": entry.reason,
    }


def _described(certificate: x509.Certificate) -> dict[str, Any]:
    return {
        "subject": _subject(certificate),
        "serial": f"{certificate.serial_number:x}",
        "key": spki_sha256(certificate.public_key()),
        "notBefore": _when(certificate.not_valid_before_utc),
        "notAfter": _when(certificate.not_valid_after_utc),
    }


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()


def _when(time: datetime) -> str:
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")
