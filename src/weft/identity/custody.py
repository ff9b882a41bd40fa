"""Where the authority's key is kept: a private table of the store, encrypted at rest."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from weft.identity.ca import BRING_NEW, Authority
from weft.identity.pem import AuthorityError
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

    async def open(self, given: Authority | None = None) -> Authority:
        """The authority of the mesh. Of several control planes that make or bring one, the first wins.

        Args:
            given: an authority that the operator brings. A first one is stored; a new intermediate under the
                root that signs already takes over at once.

        Raises:
            AuthorityError: it is damaged or expired, or the given one has another root: the mesh would fall
                in two.
        """
        while True:
            body = await self._table.get(_NAME)
            if body is None:
                fresh = given or Authority.create(self._clock(), self._trust_domain)
                if await self._table.swap(_NAME, None, fresh.to_pem()):
                    return fresh
                continue
            stored = Authority.from_pem(body, self._trust_domain)
            if given is None or given.issuer == stored.issuer:
                return self._checked(stored)
            if given.roots[0] != stored.roots[0]:
                raise AuthorityError(
                    "this mesh has another root already",
                    hint="start without the given authority, or with an intermediate under the present root",
                )
            renewed = given.trust(*stored.roots)
            if await self._table.swap(_NAME, body, renewed.to_pem()):
                return renewed

    def _checked(self, authority: Authority) -> Authority:
        until = authority.issuer.not_valid_after_utc
        if until <= self._clock():
            raise AuthorityError(f"the signing certificate expired on {until:%Y-%m-%d} UTC", hint=BRING_NEW)
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


def read_authority(
    key: Path, chain: Path, roots: Path, *, now: datetime, trust_domain: str = TRUST_DOMAIN
) -> Authority:
    """An authority that an operator brings in PEM files.

    Raises:
        AuthorityError: a file cannot be read, or what it holds does not fit.
    """
    try:
        parts = [path.read_bytes() for path in (key, chain, roots)]
    except OSError as error:
        raise AuthorityError(
            f"{error.filename} cannot be read: {error.strerror}",
            hint="give PEM files that this user can read",
        ) from error
    return Authority.bring(*parts, now=now, trust_domain=trust_domain)
