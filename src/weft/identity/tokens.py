"""Join tokens: made by an operator, used by a node once (or a few times), stored as a hash.

The secret has 256 random bits, so that nobody can guess it from its SHA-256: a slow hash (scrypt) protects
texts that people choose, here it would only let strangers burn our CPU.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from hmac import compare_digest
from secrets import choice, token_urlsafe
from typing import Final, Self

from weft.errors import WeftError
from weft.identity.join import JoinToken, TokenError
from weft.identity.scope import EVERYTHING, Scope
from weft.store.interface import Private

LIFETIME: Final = timedelta(hours=1)
LIFETIME_MAX: Final = timedelta(days=30)
# An expired token is still known for a while, so that its bearer is told what happened to it.
_REMEMBER: Final = timedelta(days=7)
_ID_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_NEW_TOKEN: Final = "make a new one with 'weft token create' where the control plane runs"  # noqa: S105
_NO_SECRET: Final = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What is stored of a token. ``node`` empty: for any new node; else for the node of that name only,
    which may then also come back with another key.
    """

    id: str
    hash: str
    scope: Scope = EVERYTHING
    node: str = ""
    created: datetime
    expires: datetime
    uses: int = 1
    used: int = 0
    revoked: bool = False

    @property
    def left(self) -> int:
        """How often it may still be used."""
        return 0 if self.revoked else max(0, self.uses - self.used)

    def state(self, now: datetime) -> str:
        """``usable``, ``expired``, ``used`` or ``revoked``."""
        if self.revoked:
            return "revoked"
        if now >= self.expires:
            return "expired"
        return "usable" if self.left else "used"

    def to_json(self) -> bytes:
        """As it is stored."""
        times = {"created": self.created.isoformat(), "expires": self.expires.isoformat()}
        return json.dumps({**asdict(self), "scope": self.scope.patterns, **times}).encode()

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Read what ``to_json`` wrote."""
        fields = json.loads(body)
        fields["scope"] = Scope(tuple(fields["scope"]))
        fields["created"] = datetime.fromisoformat(fields["created"])
        fields["expires"] = datetime.fromisoformat(fields["expires"])
        return cls(**fields)


class Tokens:
    """All join tokens, in a private table of the store. ``clock`` gives the time (UTC)."""

    def __init__(self, table: Private, clock: Callable[[], datetime]) -> None:
        self._table = table
        self._clock = clock

    async def create(
        self,
        pin: str,
        *,
        scope: Scope = EVERYTHING,
        node: str = "",
        lifetime: timedelta = LIFETIME,
        uses: int = 1,
    ) -> tuple[JoinToken, Token]:
        """A new token: the text, shown this once, and what is stored.

        Raises:
            WeftError: for a lifetime outside (0, 30 days] or fewer than one use.
        """
        if not timedelta(0) < lifetime <= LIFETIME_MAX:
            raise WeftError("a join token lives for at most 30 days", hint="write a duration like '1h'")
        if uses < 1:
            raise WeftError("a token that nobody may use is no token", hint="write 1 or more uses")
        await self._forget()
        now = self._clock()
        text = JoinToken("".join(choice(_ID_LETTERS) for _ in range(10)), token_urlsafe(32), pin)
        token = Token(
            id=text.id,
            hash=_digest(text.secret),
            scope=scope,
            node=node,
            created=now,
            expires=now + lifetime,
            uses=uses,
        )
        await self._table.put(token.id, token.to_json())
        return text, token

    async def list(self) -> tuple[Token, ...]:
        """All that are remembered, the newest first."""
        found = [Token.from_json(body) for body in (await self._table.list()).values()]
        return tuple(sorted(found, key=lambda token: (token.created, token.id), reverse=True))

    async def revoke(self, token_id: str) -> Token:
        """Make it unusable at once. Nodes that joined with it stay.

        Raises:
            TokenError: when there is none.
        """
        while True:
            body = await self._table.get(token_id)
            if body is None:
                raise TokenError(f"there is no join token {token_id!r}", hint="see 'weft token list'")
            token = replace(Token.from_json(body), revoked=True)
            if await self._table.swap(token_id, body, token.to_json()):
                return token

    async def check(self, text: JoinToken, *, node: str) -> Token:
        """The token, if ``node`` could use it now; nothing is counted.

        Raises:
            TokenError: unknown, revoked, expired, used up, or made for another node.
        """
        return (await self._find(text, node))[0]

    async def use(self, text: JoinToken, *, node: str) -> Token:
        """Count one use, in one step: of two that come at once for the last use, one is refused.

        Raises:
            TokenError: as ``check``.
        """
        while True:
            token, body = await self._find(text, node)
            used = replace(token, used=token.used + 1)
            if await self._table.swap(token.id, body, used.to_json()):
                return used

    async def _find(self, text: JoinToken, node: str) -> tuple[Token, bytes]:
        body = await self._table.get(text.id)
        token = Token.from_json(body) if body is not None else None
        # A wrong secret and an unknown id get one answer, after the same work.
        matches = compare_digest(_digest(text.secret), token.hash if token else _NO_SECRET)
        if body is None or token is None or not matches:
            raise TokenError("this join token is not known here", hint=_NEW_TOKEN)
        match token.state(self._clock()):
            case "revoked":
                raise TokenError(f"join token {token.id} was revoked", hint=_NEW_TOKEN)
            case "expired":
                raise TokenError(
                    f"join token {token.id} expired on {token.expires:%Y-%m-%d at %H:%M:%S} UTC",
                    hint=f"{_NEW_TOKEN} (and compare the clocks, if that is in the future)",
                )
            case "used":
                raise TokenError(
                    f"join token {token.id} has been used {_times(token.used)} already", hint=_NEW_TOKEN
                )
        if token.node and token.node != node:
            raise TokenError(
                f"join token {token.id} is for node {token.node!r}, this is {node!r}", hint=_NEW_TOKEN
            )
        return token, body

    async def _forget(self) -> None:
        horizon = self._clock() - _REMEMBER
        for token in await self.list():
            if token.expires < horizon:
                await self._table.delete(token.id)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
