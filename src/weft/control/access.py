"""Who may speak to the API: by a bearer token, by the Unix socket's peer, or by the certificate that TLS has
verified.

An ``authorization`` header decides alone: a token that is refused never falls back to another identity.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from cryptography import x509
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from weft.control.api.resources import reply
from weft.control.api.status import no_such_path
from weft.control.api.subject import (
    AUTHENTICATED,
    MASTERS,
    Authenticate,
    Subject,
    client_certificate,
    unix_peer,
)
from weft.identity.server import caller_of
from weft.identity.users import Audience, Credential, CredentialError, Users, account_groups
from weft.spiffe import AdminId, NodeId, UserId

NODE_GROUP: Final = "system:nodes"
DOOR: Final = "weft.door"
"""In an ASGI scope: which ``Audience`` the door serves; the API where nothing is said."""

Turned = Callable[[HTTPConnection, str], None]
"""Hears why a credential was turned away."""

Revoked = Callable[[bytes], bool]
"""Whether the authority has revoked a certificate (DER)."""


def authenticator(
    trust_domain: Callable[[], str],
    users: Users | None = None,
    *,
    revoked: Revoked = lambda certificate: False,
    turned: Turned = lambda connection, why: None,
) -> Authenticate:
    """Root and the control plane's own user administer by the socket; users by what ``users`` recorded.

    A node's certificate proves who it is and opens nothing but the node's own paths. A workload's opens
    nothing, and neither does one that was ``revoked``.
    """

    async def authenticate(connection: HTTPConnection) -> Subject | None:
        door = Audience(connection.scope.get(DOOR, Audience.API))
        if (header := connection.headers.get("authorization")) is not None:
            return await by_token(connection, header, door)
        if (peer := unix_peer(connection)) is not None:
            if peer.uid in {0, os.geteuid()}:
                groups = (MASTERS, AUTHENTICATED)
                return Subject(name=f"uid:{peer.uid}", groups=groups, how="socket")
            return None
        if (der := client_certificate(connection)) is not None:
            return await by_certificate(connection, der, door)
        return None

    async def by_token(connection: HTTPConnection, header: str, door: Audience) -> Subject | None:
        scheme, _, text = header.partition(" ")
        if users is None or scheme.lower() != "bearer":
            turned(connection, "the authorization is no bearer token")
            return None
        try:
            return subject_of(await users.by_token(text.strip()), door)
        except CredentialError as error:
            turned(connection, error.message)
            return None

    async def by_certificate(connection: HTTPConnection, der: bytes, door: Audience) -> Subject | None:
        caller = caller_of(der)
        if caller is None or caller.trust_domain != trust_domain():
            return None
        certificate = x509.load_der_x509_certificate(der)
        serial = f"{certificate.serial_number:x}"
        if revoked(der):
            turned(connection, f"certificate {serial} of {caller} was revoked")
            return None
        if isinstance(caller, NodeId):
            groups = (NODE_GROUP, AUTHENTICATED)
            name = f"system:node:{caller.name}"
            return Subject(name=name, groups=groups, how="certificate", credential=serial)
        if not isinstance(caller, AdminId | UserId):
            return None
        try:
            known = await users.by_serial(certificate.serial_number) if users is not None else None
            if known is not None:
                return subject_of(known, door)
        except CredentialError as error:
            turned(connection, error.message)
            return None
        if isinstance(caller, AdminId):
            groups = (MASTERS, AUTHENTICATED)
            return Subject(name=caller.name, groups=groups, how="certificate", credential=serial)
        turned(connection, f"certificate {serial} of {caller} is not known here")
        return None

    return authenticate


_MONITORED: Final = frozenset({"/healthz", "/livez", "/readyz", "/version", "/metrics", "/sd"})


def monitoring_only(app: ASGIApp) -> ASGIApp:
    """The application as the monitoring port shows it: health, series and what is for looking into it."""

    async def shown(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if path not in _MONITORED and not path.startswith("/debug/"):
                error = no_such_path()
                await reply(error.body(), error.code)(scope, receive, send)
                return
            scope[DOOR] = Audience.MONITORING
        elif scope["type"] == "websocket":
            await WebSocket(scope, receive, send).close(1008, "no sessions here")
            return
        await app(scope, receive, send)

    return shown


def subject_of(credential: Credential, door: Audience) -> Subject:
    """Whom a credential stands for.

    Raises:
        CredentialError: it does not open this door.
    """
    if door not in credential.audiences:
        raise CredentialError(f"{credential.kind} {credential.id} of {credential.user} is not for the {door}")
    groups = (*credential.groups, *account_groups(credential.user), AUTHENTICATED)
    return Subject(
        name=credential.user,
        groups=tuple(dict.fromkeys(groups)),
        how=str(credential.kind),
        credential=credential.id,
    )
