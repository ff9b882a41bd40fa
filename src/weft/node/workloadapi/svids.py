"""The identities that applications have asked for: a key and certificate each, apart from their Envoy's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any, Final, Generic, Protocol, TypeVar

from weft.errors import WeftError
from weft.identity.trust import Trust
from weft.node.keys import Credential
from weft.spiffe import SpiffeId

log = logging.getLogger(__name__)

# New keys are published a day before they sign.
_REFRESH_S: Final = 300.0
_RETRY_S: Final = 5.0
# Of each workload, for as many audiences.
_TOKENS_MAX: Final = 64

KeySets = dict[str, dict[str, Any]]
"""JWK sets by trust domain."""


class Source(Protocol):
    """The control plane, as the session with it has it."""

    @property
    def trust_domain(self) -> str:
        """Of this mesh."""

    @property
    def trust(self) -> Trust:
        """What peers are verified by now."""

    def on_trust(self, call: Callable[[Trust], None]) -> None:
        """Call back with each further one."""

    def now(self) -> datetime:
        """The time (UTC)."""

    async def hold(self, name: str, identity: SpiffeId, deliver: Callable[[Credential], None]) -> Credential:
        """A credential in memory under a name of the holder's; ``deliver`` is given each further one.

        Raises:
            WeftError: it was refused, or nobody answers.
        """

    async def release(self, name: str) -> None:
        """Renew it no more."""

    async def sign_jwt(self, identity: SpiffeId, audience: tuple[str, ...]) -> tuple[str, datetime]:
        """A new JWT-SVID, and when it expires.

        Raises:
            WeftError: it was refused, or nobody answers.
        """

    async def read_jwks(self) -> KeySets:
        """The JWK sets of the own trust domain and of those that are federated, by trust domain.

        Raises:
            WeftError: nobody answers.
        """


Value = TypeVar("Value")


class Changing(Generic[Value]):
    """A value that many follow."""

    def __init__(self, value: Value) -> None:
        self.value = value
        self._changed = asyncio.Event()

    def set(self, value: Value) -> None:
        """Another value; the same is no change."""
        if value != self.value:
            self.value = value
            self._changed.set()
            self._changed = asyncio.Event()

    async def follow(self) -> AsyncIterator[Value]:
        """The value of now, then each further one; what changes while one is being used comes as one."""
        while True:
            changed, value = self._changed, self.value
            yield value
            await changed.wait()


class Svids:
    """What applications hold. ``drop`` when a workload has gone, ``close`` at the end."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.trust = Changing(source.trust)
        source.on_trust(self.trust.set)
        self._held: dict[str, Changing[Credential]] = {}
        self._asking: dict[str, asyncio.Lock] = {}
        self._tokens: dict[str, dict[tuple[str, ...], tuple[str, datetime]]] = {}
        self._keys: Changing[KeySets] | None = None
        self._refreshing: asyncio.Task[None] | None = None

    async def credential(self, name: str, identity: SpiffeId) -> Changing[Credential]:
        """The credential of a workload; the first call has it issued.

        Raises:
            WeftError: it was refused, or nobody answers.
        """
        # Of several calls at once one asks; the others take what it gets.
        async with self._asking.setdefault(name, asyncio.Lock()):
            held = self._held.get(name)
            if held is None:
                changes: list[Changing[Credential]] = []

                def deliver(fresh: Credential) -> None:
                    for change in changes:
                        change.set(fresh)

                held = Changing(await self.source.hold(name, identity, deliver))
                changes.append(held)
                self._held[name] = held
            return held

    async def token(self, name: str, identity: SpiffeId, audience: tuple[str, ...]) -> str:
        """A JWT-SVID of a workload, with half of its life ahead: who asks for each request gets the same.

        Raises:
            WeftError: it was refused, or nobody answers.
        """
        held, wanted = self._tokens.setdefault(name, {}), tuple(sorted(audience))
        now = self.source.now()
        if (known := held.get(wanted)) is not None and now < known[1]:
            return known[0]
        token, until = await self.source.sign_jwt(identity, audience)
        while len(held) >= _TOKENS_MAX:
            del held[next(iter(held))]
        held[wanted] = token, now + (until - now) / 2
        return token

    async def keys(self) -> Changing[KeySets]:
        """The JWK sets; kept fresh from the first call on.

        Raises:
            WeftError: nobody answers, and none is known.
        """
        if self._keys is None:
            found = await self.source.read_jwks()
            if self._keys is None:
                self._keys = Changing(found)
                self._refreshing = asyncio.create_task(self._refresh(self._keys), name="JWK sets")
        return self._keys

    async def drop(self, name: str) -> None:
        """Forget what a workload holds."""
        self._asking.pop(name, None)
        self._tokens.pop(name, None)
        if self._held.pop(name, None) is not None:
            await self.source.release(name)

    def names(self) -> tuple[str, ...]:
        """The workloads that hold something."""
        return tuple(self._held.keys() | self._tokens.keys())

    async def close(self) -> None:
        """Forget all."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        for name in self.names():
            await self.drop(name)

    async def _refresh(self, keys: Changing[KeySets]) -> None:
        pause = _REFRESH_S
        while True:
            await asyncio.sleep(pause)
            try:
                keys.set(await self.source.read_jwks())
                pause = _REFRESH_S
            except WeftError as error:
                log.debug("the JWK sets were not refreshed: %s", error)
                pause = _RETRY_S
