"""Where the authority's key is kept: a private table of the store, encrypted at rest."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from weft.identity.ca import BRING_NEW, Authority
from weft.identity.pem import AuthorityError
from weft.identity.revocation import issuer_key
from weft.identity.rotation import State
from weft.names import TRUST_DOMAIN
from weft.store.interface import Private

_log = logging.getLogger(__name__)

_NAME: Final = "authority"


class Custody:
    """Holds the one authority of a mesh. ``clock`` gives the time (UTC)."""

    def __init__(
        self, table: Private, clock: Callable[[], datetime], *, trust_domain: str = TRUST_DOMAIN
    ) -> None:
        self._table = table
        self._clock = clock
        self._trust_domain = trust_domain

    async def open(self, given: Authority | None = None) -> State:
        """Who signs, and the rotation that is under way. Of several control planes that make or bring an
        authority, the first wins.

        Args:
            given: an authority that the operator brings. A first one is stored; a new intermediate under the
                root that signs already begins to take over.

        Raises:
            AuthorityError: it is damaged or expired, or the given one has another root: the mesh would fall
                in two.
        """
        while True:
            now, body = self._clock(), await self._table.get(_NAME)
            if body is None:
                first = State(given or Authority.create(now, self._trust_domain))
                if await self._table.swap(_NAME, None, first.to_json()):
                    return first
                continue
            stored = State.from_json(body, self._trust_domain)
            if given is None or given.issuer in {signer.issuer for signer in stored.signers}:
                return self._checked(stored)
            if issuer_key(given) in stored.retired:
                # A start that nobody has adapted since must not keep the mesh from its control plane.
                _log.warning(
                    "the given authority was replaced by %s, which goes on; start without the old one",
                    stored.authority.issuer.subject.rfc4514_string(),
                )
                return self._checked(stored)
            if given.roots[0] != stored.authority.roots[0]:
                raise AuthorityError(
                    "this mesh has another root already",
                    hint="start without the given authority, or with an intermediate under the present root; "
                    "another root takes over by 'weft ca rotate'",
                )
            if stored.authority.issuer.not_valid_after_utc <= now:
                renewed = State(given.trust(*stored.authority.roots))
            elif stored.rotation is not None:
                return stored
            else:
                renewed = stored.begin(given, now)
            if await self._table.swap(_NAME, body, renewed.to_json()):
                return renewed

    def _checked(self, state: State) -> State:
        until = state.authority.issuer.not_valid_after_utc
        if until <= self._clock():
            raise AuthorityError(f"the signing certificate expired on {until:%Y-%m-%d} UTC", hint=BRING_NEW)
        return state

    async def replace(self, state: State, *, expect: State) -> None:
        """Store the successor of the state that was read.

        Raises:
            AuthorityError: when another one is stored by now.
        """
        if state.authority.trust_domain != self._trust_domain:
            raise AuthorityError(f"the trust domain of this mesh is {self._trust_domain}")
        body = await self._table.get(_NAME)
        if (
            body is None
            or State.from_json(body, self._trust_domain) != expect
            or not await self._table.swap(_NAME, body, state.to_json())
        ):
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
