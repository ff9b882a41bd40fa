"""Signing JWT-SVIDs for nodes, and the keys that verifiers need; the keys lie in a private table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from secrets import token_hex
from typing import Any, Final, Self

from weft.identity.jwt import SigningKeys, SvidError, check_audience, issue
from weft.identity.server import Issuer, Refused
from weft.spiffe import NodeId
from weft.store.interface import Private

_NAME: Final = "keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtRequest:
    """A node asks for a token of a workload that it hosts."""

    namespace: str
    service_account: str
    audience: tuple[str, ...]

    @classmethod
    def parse(cls, body: object) -> Self:
        """Read the JSON form.

        Raises:
            Refused: a field is missing or of another type.
        """
        fields: Mapping[str, Any] = body if isinstance(body, dict) else {}
        namespace, account = fields.get("namespace"), fields.get("serviceAccount")
        if not isinstance(namespace, str) or not isinstance(account, str):
            raise Refused("namespace and serviceAccount: expected texts", status=400)
        try:
            audience = check_audience(fields.get("audience"))
        except SvidError as error:
            raise Refused(error.message, status=400, hint=error.hint) from error
        return cls(namespace=namespace, service_account=account, audience=audience)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedJwt:
    """One line of the audit log; ``id`` is the token's ``jti``."""

    time: datetime
    identity: str
    id: str
    audience: tuple[str, ...]
    not_after: datetime
    key: str
    node: str


class JwtIssuer:
    """Answers nodes. ``audit`` is told of every token before it is handed out."""

    def __init__(self, issuer: Issuer, table: Private, *, audit: Callable[[IssuedJwt], None]) -> None:
        self._issuer = issuer
        self._table = table
        self._audit = audit
        self._known: SigningKeys | None = None

    async def keys(self) -> SigningKeys:
        """The keys of now. Of several control planes that make the next one, the first wins."""
        now = self._issuer.now()
        if self._known is not None and self._known.at(now) is self._known:
            return self._known
        while True:
            body = await self._table.get(_NAME)
            old = SigningKeys.from_json(body) if body is not None else None
            new = old.at(now) if old is not None else SigningKeys.create(now)
            if new is old or await self._table.swap(_NAME, body, new.to_json()):
                self._known = new
                return new

    async def jwks(self) -> dict[str, Any]:
        """The JWK set that verifies what is signed here."""
        return {"keys": (await self.keys()).public()}

    async def sign(self, caller: NodeId, caller_key: str, request: JwtRequest) -> tuple[str, datetime]:
        """A token for one of the identities that the calling node may host, and when it expires.

        Raises:
            Refused: as for a certificate of that identity.
        """
        node = await self._issuer.known(caller, caller_key)
        identity = self._issuer.entitled(node, request.namespace, request.service_account)
        now, token_id = self._issuer.now(), token_hex(16)
        key = (await self.keys()).signer(now)
        token, until = issue(key, identity, request.audience, now=now, token_id=token_id)
        self._audit(
            IssuedJwt(
                time=now,
                identity=str(identity),
                id=token_id,
                audience=request.audience,
                not_after=until,
                key=key.id,
                node=node.name,
            )
        )
        return token, until
