"""One request's caller and what the caller may do: every handler asks here before it answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from starlette.requests import HTTPConnection

from weft.control.api.roles import ACCOUNT_PREFIX, Decision, Roles
from weft.control.api.rules import Ask
from weft.control.api.status import ApiError
from weft.control.api.subject import AUTHENTICATED, Subject
from weft.model.catalog import KindRow

_AS_USER: Final = "impersonate-user"
_AS_GROUP: Final = "impersonate-group"

Denied = Callable[["Access", Ask], None]
"""Hears of a refusal, or of a look at something secret; of the latter before it is answered."""


async def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who asks, from where, under which request id; and the roles that decide.

    ``known``: whether the credential that was shown is still worth what it was.
    """

    subject: Subject
    roles: Roles
    where: str = ""
    request: str = ""
    denied: Denied = lambda access, ask: None
    seen: Denied = lambda access, ask: None
    known: Callable[[], Awaitable[bool]] = _always

    async def decide(self, ask: Ask) -> Decision:
        """Whether the caller may, and why."""
        return await self.roles.decide(self.subject, ask)

    async def may(self, ask: Ask) -> bool:
        """Whether the caller may."""
        return (await self.decide(ask)).allowed

    async def still_may(self, ask: Ask) -> bool:
        """As ``may``, for what lasts: also when the credential was revoked or has expired meanwhile."""
        return await self.known() and await self.may(ask)

    async def require(self, ask: Ask) -> None:
        """Go on if the caller may.

        Raises:
            ApiError: 403, in the words of Kubernetes.
        """
        if not await self.may(ask):
            self.denied(self, ask)
            raise forbidden(self.subject, ask)


def forbidden(subject: Subject, ask: Ask) -> ApiError:
    """403 for what no rule allows."""
    text = f'User "{subject.name}" cannot {ask}'
    if ask.path:
        return ApiError(403, f"forbidden: {text}")
    name = f"{ask.resource}.{ask.group}" if ask.group else ask.resource
    about = f'{name} "{ask.name}"' if ask.name else name
    details = {"name": ask.name, "group": ask.group, "kind": ask.resource}
    details = {field: value for field, value in details.items() if value}
    return ApiError(403, f"{about} is forbidden: {text}", details=details)


def ask_for(row: KindRow, verb: str, namespace: str | None, name: str = "", part: str = "") -> Ask:
    """About objects of a kind; a Namespace is asked for as in its own namespace, as in Kubernetes."""
    if verb == "create":
        name = ""  # Kubernetes asks before it has read the object
    place = (namespace or "") if row.namespaced else (name if row.id == "/Namespace" else "")
    return Ask(verb=verb, group=row.group, resource=row.plural, subresource=part, namespace=place, name=name)


async def impersonated(connection: HTTPConnection, access: Access) -> Access:
    """The access of whom the caller wants to be taken for (``kubectl --as``), if the caller may do that.

    Raises:
        ApiError: 403 when the caller may not; 400 for what cannot be taken over.
    """
    headers = connection.headers
    user, groups = headers.get(_AS_USER, ""), headers.getlist(_AS_GROUP)
    unknown = [
        name for name in headers if name.startswith("impersonate-") and name not in {_AS_USER, _AS_GROUP}
    ]
    if unknown:
        raise ApiError(400, f"{unknown[0]} is not supported: only a user and groups can be taken over")
    if not user:
        if groups:
            raise ApiError(400, "requested groups without impersonating a user")
        return access
    account = user.removeprefix(ACCOUNT_PREFIX).split(":") if user.startswith(ACCOUNT_PREFIX) else []
    if len(account) == 2:
        namespace, name = account
        await access.require(
            Ask(verb="impersonate", resource="serviceaccounts", namespace=namespace, name=name)
        )
        groups = groups or ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
    else:
        await access.require(Ask(verb="impersonate", resource="users", name=user))
    for group in headers.getlist(_AS_GROUP):
        await access.require(Ask(verb="impersonate", resource="groups", name=group))
    really = access.subject
    subject = Subject(
        name=user, groups=tuple(dict.fromkeys((*groups, AUTHENTICATED))), how=really.how,
        credential=really.credential, by=really.name,
    )  # fmt: skip
    return Access(
        subject=subject, roles=access.roles, where=access.where, request=access.request, denied=access.denied,
        seen=access.seen, known=access.known,
    )  # fmt: skip
