"""``/weft/v1/users``: credentials for people and machines are made, listed and revoked.

Making one is speaking for somebody: beside ``create users`` in the group ``weft.dev`` it takes the verb
``impersonate`` on the user and on every group, as Kubernetes has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from weft.control.api.permission import Access
from weft.control.api.rules import Ask
from weft.control.nodes import Recorded, answer, body_of
from weft.control.nodesession import Addresses
from weft.errors import WeftError
from weft.identity.ca import Authority
from weft.identity.server import Refused
from weft.identity.users import LIFETIME, Audience, Credential, Users, check_groups, check_user
from weft.model.catalog import WEFT
from weft.spiffe import UserId
from weft.units import parse_duration


class UserRoutes:
    """The handlers."""

    def __init__(
        self,
        users: Users,
        authority: Callable[[], Authority],
        clock: Callable[[], datetime],
        recorded: Recorded = lambda event, access, about: None,
        addresses: Callable[[HTTPConnection], Addresses] | None = None,
    ) -> None:
        self._users = users
        self._authority = authority
        self._clock = clock
        self._recorded = recorded
        self._addresses = addresses

    def routes(self) -> list[BaseRoute]:
        """For the API's application."""
        return [
            Route("/weft/v1/users", answer(self._users_), methods=["GET", "POST"]),
            Route("/weft/v1/users/{name}", answer(self._revoke), methods=["DELETE"]),
        ]

    async def _users_(self, request: Request) -> Response:
        access: Access = request.state.access
        if request.method == "GET":
            await access.require(_ask("list"))
            return JSONResponse({"users": [self._shown(one) for one in await self._users.list()]})
        await access.require(_ask("create"))
        body = await body_of(request)
        if not isinstance(body, dict):
            raise Refused("expected a JSON object", status=400)
        name, groups = check_user(str(body.get("name") or "")), check_groups(_texts(body, "groups"))
        await access.require(Ask(verb="impersonate", resource="users", name=name))
        for group in groups:
            await access.require(Ask(verb="impersonate", resource="groups", name=group))
        audiences = [_audience(text) for text in _texts(body, "audiences")] or list(Audience)
        lifetime = _lifetime(body.get("lifetime"))
        about = {"user": name, "groups": groups, "audiences": audiences}
        authority = self._authority()
        csr = body.get("csr")
        if csr is None:
            self._recorded("token", access, {**about, "lifetime": str(lifetime)})
            text, made = await self._users.token(name, groups=groups, lifetime=lifetime, audiences=audiences)
            answer = {"token": text}
        else:
            identity = UserId.of(authority.trust_domain, name)
            chain = authority.sign(str(csr), identity, now=self._clock(), lifetime=lifetime)
            serial = x509.load_pem_x509_certificate(chain.encode()).serial_number
            about |= {"identity": str(identity), "serial": f"{serial:x}"}
            self._recorded("certificate", access, about)
            made = await self._users.certificate(
                name, serial, groups=groups, lifetime=lifetime, audiences=audiences
            )
            answer = {"certificate": chain}
        api = self._addresses(request).api if self._addresses is not None else ""
        about = {"bundle": authority.bundle, "server": api}
        return JSONResponse({**answer, **about, **self._shown(made)}, status_code=201)

    async def _revoke(self, request: Request) -> Response:
        access: Access = request.state.access
        name = request.path_params["name"]
        await access.require(_ask("delete", name))
        self._recorded("revoke", access, {"user": name})
        try:
            revoked = await self._users.revoke(name)
        except WeftError as error:
            raise Refused(error.message, status=404, hint=error.hint) from error
        return JSONResponse({"users": [self._shown(one) for one in revoked]})

    def _shown(self, one: Credential) -> dict[str, Any]:
        return {
            "id": one.id,
            "name": one.user,
            "kind": one.kind,
            "groups": list(one.groups),
            "audiences": list(one.audiences),
            "state": one.state(self._clock()),
            "created": _when(one.created),
            "expires": _when(one.expires),
            "used": _when(one.used) if one.used else None,
        }


_RESOURCE: Final = "users"


def _ask(verb: str, name: str = "") -> Ask:
    return Ask(verb=verb, group=WEFT, resource=_RESOURCE, name=name)


def _texts(body: Mapping[str, Any], name: str) -> list[str]:
    found = body.get(name) or []
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise Refused(f"{name}: expected a list of texts", status=400)
    return found


def _audience(text: str) -> Audience:
    try:
        return Audience(text)
    except ValueError:
        known = ", ".join(Audience)
        raise Refused(f"audiences: {text!r} is none of {known}", status=400) from None


def _lifetime(text: object) -> timedelta:
    if text is None:
        return LIFETIME
    try:
        return parse_duration(text)
    except ValueError as error:
        raise Refused(f"lifetime: {error}", status=400) from error


def _when(time: datetime) -> str:
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")
