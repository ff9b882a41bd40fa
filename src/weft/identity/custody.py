"""Where the authority's key is kept: a private table of the store, encrypted at rest."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from weft.identity.ca import Authority, AuthorityError
from weft.names import TRUST_DOMAIN
from weft.store.interface import Private

_NAME: Final = "authority"


class Custody:
    """Holds the one authority of a mesh. ``clock`` gives the time (UTC)."""

    def __init__(
        self, table: Private, clock: Callable[[], datetime], *, trust_domain: str = TRUST_DOMAIN
    ) -> None:
        self._table = table
        self._clock = clock
        self._trust_domain = trust_domain

    async def open(self) -> Authority:
        """The stored authority, made now if there is none. Of several that make one, the first wins.

        Raises:
            AuthorityError: it is damaged or expired.
        """
        while (body := await self._table.get(_NAME)) is None:
            fresh = Authority.create(self._clock(), self._trust_domain)
            if await self._table.swap(_NAME, None, fresh.to_pem()):
                return fresh
        authority = Authority.from_pem(body, self._trust_domain)
        if authority.issuer.not_valid_after_utc <= self._clock():
            raise AuthorityError(
                f"the signing certificate expired on {authority.issuer.not_valid_after_utc:%Y-%m-%d} UTC",
                hint="bring a new one with 'weft ca import'",
            )
        return authority

    async def replace(self, authority: Authority, *, expect: Authority | None) -> None:
        """Store a successor of the authority that was read (None: there is none yet).

        Raises:
            AuthorityError: when another one is stored by now.
        """
        if authority.trust_domain != self._trust_domain:
            raise AuthorityError(f"the trust domain of this mesh is {self._trust_domain}")
        old = expect.to_pem() if expect else None
        if not await self._table.swap(_NAME, old, authority.to_pem()):
            raise AuthorityError("the authority was changed by somebody else", hint="read it again")
