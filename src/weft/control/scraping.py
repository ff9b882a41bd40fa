"""What Prometheus is told: where series are shown (``GET /sd``); and nodes, who may see theirs.

``GET /sd?role=…`` answers in the form of ``http_sd_configs``: lists of addresses with labels. Roles:

* ``node``: one target a host, with everything that runs there
* ``control-plane``: this control plane
* ``workload``, ``gateway``: one target a workload or gateway, each a part of what its node shows

Without a role: nodes and control plane, so that nothing is scraped twice.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from weft.control.access import subject_of
from weft.control.api.permission import Access
from weft.control.api.roles import Roles
from weft.control.api.rules import Ask
from weft.control.api.subject import AUTHENTICATED, MASTERS, Subject, client_certificate
from weft.control.doors import ROLES, Door, Target, of_control_plane, of_nodes, of_workloads
from weft.control.nodes import answer, body_of
from weft.identity.server import Issuer, Refused, caller_of, key_of
from weft.identity.users import Audience, CredentialError, Users
from weft.spiffe import AdminId, NodeId, UserId

_SERIES: Final = "/metrics"


class ScrapingRoutes:
    """The handlers.

    Args:
        doors: of the nodes that are connected.
        address: where the monitoring port is reached, for who came by this connection.
        revoked: whether the authority has revoked a certificate (DER).
    """

    def __init__(
        self,
        issuer: Issuer,
        users: Users,
        roles: Roles,
        doors: Callable[[], Iterable[Door]],
        address: Callable[[HTTPConnection], str],
        revoked: Callable[[bytes], bool],
    ) -> None:
        self._issuer = issuer
        self._users = users
        self._roles = roles
        self._doors = doors
        self._address = address
        self._revoked = revoked

    def routes(self) -> list[BaseRoute]:
        """For the API's application; ``/sd`` is shown on the monitoring port too."""
        return [
            Route("/sd", answer(self._discover), methods=["GET"]),
            Route("/weft/v1/scrapes", answer(self._admit), methods=["POST"]),
        ]

    async def _discover(self, request: Request) -> Response:
        access: Access = request.state.access
        await access.require(Ask(verb="get", path="/sd"))
        asked = request.query_params.getlist("role") or ["node", "control-plane"]
        for role in asked:
            if role not in ROLES:
                raise Refused(f"{role!r} is no role", status=400, hint=f"one of {', '.join(ROLES)}")
        return JSONResponse([target for role in asked for target in self._targets(role, request)])

    def _targets(self, role: str, request: Request) -> Iterable[Target]:
        if role == "control-plane":
            return [of_control_plane(self._address(request), socket.gethostname())]
        doors = self._doors()
        return of_nodes(doors) if role == "node" else of_workloads(doors, role)

    async def _admit(self, request: Request) -> Response:
        """A node asks whether somebody who came to it may see series: the same who may see ours."""
        certificate = client_certificate(request)
        caller = caller_of(certificate) if certificate is not None else None
        if certificate is None or not isinstance(caller, NodeId):
            raise Refused("only nodes ask this", status=403)
        await self._issuer.known(caller, key_of(certificate))
        body = await body_of(request)
        shown = body if isinstance(body, dict) else {}
        subject = None
        match shown:
            case {"token": str(token)}:
                subject = await self._by_token(token)
            case {"certificate": str(pem)}:
                subject = await self._by_certificate(pem)
            case _:
                raise Refused("expected a token or a certificate (PEM)", status=400)
        if subject is None:
            return JSONResponse({"allowed": False})
        decision = await self._roles.decide(subject, Ask(verb="get", path=_SERIES))
        return JSONResponse({"allowed": decision.allowed, "user": subject.name})

    async def _by_token(self, token: str) -> Subject | None:
        try:
            return subject_of(await self._users.by_token(token), Audience.MONITORING)
        except CredentialError:
            return None

    async def _by_certificate(self, pem: str) -> Subject | None:
        """The node's TLS has verified it; whether it still counts is known here."""
        try:
            certificate = x509.load_pem_x509_certificate(pem.encode())
        except ValueError as error:
            raise Refused("the certificate cannot be read", status=400) from error
        der = certificate.public_bytes(Encoding.DER)
        bearer = caller_of(der)
        if bearer is None or bearer.trust_domain != self._issuer.authority.trust_domain or self._revoked(der):
            return None
        try:
            known = await self._users.by_serial(certificate.serial_number)
            if known is not None and isinstance(bearer, AdminId | UserId):
                return subject_of(known, Audience.MONITORING)
        except CredentialError:
            return None
        if isinstance(bearer, AdminId):
            return Subject(name=bearer.name, groups=(MASTERS, AUTHENTICATED), how="certificate")
        return None
