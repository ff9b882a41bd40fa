"""People and machines that use the API: who they are, and the credentials that prove it.

A credential is a bearer token or a client certificate. A token's secret has 256 random bits and is stored
as its SHA-256 (see ``tokens``); of a certificate the serial number is stored. Name and groups stand in the
record and not in the credential, so that a change or a revocation holds at the next request.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from hmac import compare_digest
from secrets import choice, token_urlsafe
from typing import Final, Self

from weft.errors import WeftError
from weft.store.interface import Private

LIFETIME: Final = timedelta(days=30)
LIFETIME_MAX: Final = timedelta(days=366)
PREFIX: Final = "weftuser"
ACCOUNT_PREFIX: Final = "system:serviceaccount:"
MASTERS: Final = "system:masters"
MONITORING: Final = "system:monitoring"
# Groups of the system that a credential may bear; the others are given by how somebody comes in.
_SYSTEM_GROUPS: Final = frozenset({MASTERS, MONITORING})
_REMEMBER: Final = timedelta(days=30)
_USED_EVERY: Final = timedelta(minutes=5)
_ID_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_NO_SECRET: Final = hashlib.sha256(b"").hexdigest()
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@-]{0,126}[A-Za-z0-9])?")
_GROUP: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@:/-]{0,126}[A-Za-z0-9])?")
_ACCOUNT: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}:[a-z0-9][a-z0-9.-]{0,252}")
_TEXT: Final = re.compile(rf"{PREFIX}\.(?P<id>[a-z0-9]{{10}})\.(?P<secret>[A-Za-z0-9_-]{{43}})")


class Audience(StrEnum):
    """The doors that a credential opens."""

    API = "api"
    MONITORING = "monitoring"


class Kind(StrEnum):
    """What a credential is."""

    TOKEN = "token"  # noqa: S105
    CERTIFICATE = "certificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What is stored. ``id`` of a certificate is its serial number in hexadecimal, and ``hash`` is empty."""

    id: str
    user: str
    kind: Kind
    groups: tuple[str, ...] = ()
    audiences: tuple[Audience, ...] = (Audience.API, Audience.MONITORING)
    hash: str = ""
    created: datetime
    expires: datetime
    used: datetime | None = None
    revoked: bool = False

    def state(self, now: datetime) -> str:
        """``usable``, ``expired`` or ``revoked``."""
        if self.revoked:
            return "revoked"
        return "expired" if now >= self.expires else "usable"

    def to_json(self) -> bytes:
        """As it is stored."""
        return json.dumps(asdict(self), default=_text).encode()

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Read what ``to_json`` wrote."""
        fields = json.loads(body)
        for name in ("created", "expires", "used"):
            if fields[name] is not None:
                fields[name] = datetime.fromisoformat(fields[name])
        fields["kind"] = Kind(fields["kind"])
        fields["groups"] = tuple(fields["groups"])
        fields["audiences"] = tuple(map(Audience, fields["audiences"]))
        return cls(**fields)


class CredentialError(WeftError):
    """A credential is not accepted."""


class Users:
    """All credentials, in a private table of the store. ``clock`` gives the time (UTC)."""

    def __init__(self, table: Private, clock: Callable[[], datetime]) -> None:
        self._table = table
        self._clock = clock

    async def token(
        self, user: str, *, groups: Iterable[str] = (), lifetime: timedelta = LIFETIME,
        audiences: Iterable[Audience] = tuple(Audience),
    ) -> tuple[str, Credential]:  # fmt: skip
        """A new token: its text, shown this once, and what is stored.

        Raises:
            WeftError: for a name, group or lifetime that cannot be.
        """
        secret = token_urlsafe(32)
        credential = self._new(
            "".join(choice(_ID_LETTERS) for _ in range(10)), user, Kind.TOKEN, groups, lifetime, audiences,
            _digest(secret),
        )  # fmt: skip
        await self._keep(credential)
        return f"{PREFIX}.{credential.id}.{secret}", credential

    async def certificate(
        self, user: str, serial: int, *, groups: Iterable[str] = (), lifetime: timedelta = LIFETIME,
        audiences: Iterable[Audience] = tuple(Audience),
    ) -> Credential:  # fmt: skip
        """Record a certificate before it is handed out.

        Raises:
            WeftError: as ``token``.
        """
        credential = self._new(f"{serial:x}", user, Kind.CERTIFICATE, groups, lifetime, audiences, hashed="")
        await self._keep(credential)
        return credential

    async def list(self) -> tuple[Credential, ...]:
        """All that are remembered, by user, the newest first."""
        found = [Credential.from_json(body) for body in (await self._table.list()).values()]
        newest = sorted(found, key=lambda one: (one.created, one.id), reverse=True)
        return tuple(sorted(newest, key=lambda one: one.user))

    async def by_token(self, text: str) -> Credential:
        """Whose token this is; an unknown one and a wrong secret get one answer, after the same work.

        Raises:
            CredentialError: it is not known, expired or revoked.
        """
        match = _TEXT.fullmatch(text)
        credential = await self._find(match["id"]) if match else None
        known = credential.hash if credential and credential.kind is Kind.TOKEN else _NO_SECRET
        matches = compare_digest(_digest(match["secret"] if match else ""), known)
        if match is None or credential is None or not matches or credential.kind is not Kind.TOKEN:
            raise CredentialError("this token is not known here")
        return await self._checked(credential)

    async def by_serial(self, serial: int) -> Credential | None:
        """Whose certificate this is; None when it was never recorded.

        Raises:
            CredentialError: it is expired or revoked.
        """
        credential = await self._find(f"{serial:x}")
        return await self._checked(credential) if credential is not None else None

    async def revoke(self, name: str) -> tuple[Credential, ...]:
        """Make a credential (by its id) or all those of a user unusable at once; those concerned.

        Raises:
            CredentialError: when there is none.
        """
        concerned = [one for one in await self.list() if name in (one.id, one.user)]
        if not concerned:
            raise CredentialError(f"there is no user or credential {name!r}", hint="see 'weft user list'")
        revoked = [await self._swap(one.id, revoked=True) for one in concerned]
        return tuple(one for one in revoked if one is not None)

    def _new(
        self, id_: str, user: str, kind: Kind, groups: Iterable[str], lifetime: timedelta,
        audiences: Iterable[Audience], hashed: str,
    ) -> Credential:  # fmt: skip
        if not timedelta(0) < lifetime <= LIFETIME_MAX:
            raise WeftError(
                f"a credential lives for at most {LIFETIME_MAX.days} days",
                hint="write a duration like '720h'",
            )
        now = self._clock()
        return Credential(
            id=id_, user=check_user(user), kind=kind, groups=check_groups(groups), hash=hashed, created=now,
            expires=now + lifetime, audiences=tuple(dict.fromkeys(audiences)),
        )  # fmt: skip

    async def _keep(self, credential: Credential) -> None:
        horizon = self._clock() - _REMEMBER
        for old in await self.list():
            if old.expires < horizon:
                await self._table.delete(old.id)
        if not await self._table.swap(credential.id, None, credential.to_json()):
            raise WeftError("a credential of this id exists", hint="try again")

    async def _find(self, id_: str) -> Credential | None:
        body = await self._table.get(id_)
        return Credential.from_json(body) if body is not None else None

    async def _checked(self, credential: Credential) -> Credential:
        now = self._clock()
        what = f"{credential.kind} {credential.id} of {credential.user}"
        match credential.state(now):
            case "revoked":
                raise CredentialError(f"{what} was revoked")
            case "expired":
                raise CredentialError(f"{what} expired on {credential.expires:%Y-%m-%d at %H:%M:%S} UTC")
        if credential.used is None or now - credential.used >= _USED_EVERY:
            await self._swap(credential.id, used=now)
        return credential

    async def _swap(
        self, id_: str, *, revoked: bool = False, used: datetime | None = None
    ) -> Credential | None:
        """Change a record in one step, whoever else changes it; None when it is gone."""
        while (body := await self._table.get(id_)) is not None:
            old = Credential.from_json(body)
            new = replace(old, revoked=old.revoked or revoked, used=used or old.used)
            if await self._table.swap(id_, body, new.to_json()):
                return new
        return None


def check_user(name: str) -> str:
    """The name itself: of a person, or ``system:serviceaccount:NAMESPACE:NAME``.

    Raises:
        WeftError: when nobody can bear it.
    """
    account = name.removeprefix(ACCOUNT_PREFIX) if name.startswith(ACCOUNT_PREFIX) else None
    form = _NAME.fullmatch(name) if account is None else _ACCOUNT.fullmatch(account)
    if form is None:
        raise WeftError(
            f"{name!r} is no name for a user",
            hint="use letters, digits, '.', '_', '-' and '@', or system:serviceaccount:NAMESPACE:NAME",
        )
    return name


def check_groups(groups: Iterable[str]) -> tuple[str, ...]:
    """The groups, sorted, each once.

    Raises:
        WeftError: for one that a credential cannot bear.
    """
    found = tuple(sorted(set(groups)))
    for group in found:
        if not _GROUP.fullmatch(group) or (group.startswith("system:") and group not in _SYSTEM_GROUPS):
            known = ", ".join(sorted(_SYSTEM_GROUPS))
            raise WeftError(
                f"{group!r} is no group that a credential can bear",
                hint=f"use letters, digits and '._@:/-'; of the system's groups: {known}",
            )
    return found


def account_groups(user: str) -> tuple[str, ...]:
    """The groups that a service account is in by its name; none for other users."""
    if not user.startswith(ACCOUNT_PREFIX):
        return ()
    namespace = user.removeprefix(ACCOUNT_PREFIX).partition(":")[0]
    return ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
