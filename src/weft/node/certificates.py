"""The certificates of a node's workloads: written where their Envoys look, renewed for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from pathlib import Path

from weft.errors import WeftError
from weft.identity.trust import Trust
from weft.node.keys import Credential, Keeper, Signed, read_secrets, write_secrets
from weft.spiffe import SpiffeId

log = logging.getLogger(__name__)


class Certificates:
    """One by directory for an Envoy, one by name for an application.

    ``clock`` gives the time (UTC). ``written`` is called whenever files of an Envoy were.
    """

    def __init__(self, clock: Callable[[], datetime], written: Callable[[], None] = lambda: None) -> None:
        self._clock = clock
        self._written = written
        self._kept: dict[Path | str, tuple[Keeper, asyncio.Task[None]]] = {}
        self._bearers: dict[Path | str, str] = {}
        self._cards: dict[str, str] = {}

    async def keep(
        self,
        directory: Path,
        identity: SpiffeId,
        sign: Callable[[str], Awaitable[Signed]],
        *,
        trust: Trust,
        owner: int | None,
        bearer: str = "",
    ) -> datetime:
        """Write the SDS files for an identity into ``directory`` and keep them fresh; when they expire.

        What an earlier agent left there is used as long as it is valid. ``trust``: what verifies peers;
        ``bearer``: the instance (``namespace/name``) that shows it.

        Raises:
            WeftError: there is none, and ``sign`` fails.
        """
        await self.forget(directory)

        def deliver(credential: Credential) -> None:
            write_secrets(directory, credential, owner=owner)
            self._written()

        keeper = Keeper(f"{identity.namespace}/{identity.service_account}", sign, deliver, clock=self._clock)
        found = read_secrets(directory, str(identity))
        credential = await keeper.start(found)
        if credential is found:
            # What was signed just now came with the newest.
            keeper.trust(trust)
        self._keep(directory, keeper, bearer)
        return credential.not_after

    async def hold(
        self,
        name: str,
        identity: SpiffeId,
        sign: Callable[[str], Awaitable[Signed]],
        deliver: Callable[[Credential], None],
    ) -> Credential:
        """A credential in memory under the name of its bearer: ``deliver`` is given each further one.

        Raises:
            WeftError: ``sign`` fails.
        """
        await self.forget(name)
        keeper = Keeper(f"{identity} for {name}", sign, deliver, clock=self._clock)
        credential = await keeper.start()
        self._keep(name, keeper, name)
        return credential

    def _keep(self, where: Path | str, keeper: Keeper, bearer: str) -> None:
        task = asyncio.create_task(keeper.keep(), name=f"certificate of {keeper.name}")
        task.add_done_callback(_ended)
        self._kept[where] = keeper, task
        self._bearers[where] = bearer
        if card := self._cards.get(bearer):
            _describe(keeper, card)

    def describe(self, bearer: str, card: str) -> None:
        """What the certificates of a bearer are to say of it: those that say otherwise are replaced."""
        self._cards[bearer] = card
        for where, (keeper, _) in self._kept.items():
            if self._bearers[where] == bearer:
                _describe(keeper, card)

    def disregard(self, bearer: str) -> None:
        """It has gone: nothing is to be said of it any more."""
        self._cards.pop(bearer, None)

    async def forget(self, where: Path | str) -> None:
        """Stop renewing there."""
        self._bearers.pop(where, None)
        if found := self._kept.pop(where, None):
            found[1].cancel()
            await asyncio.gather(found[1], return_exceptions=True)

    def expiry(self, directory: Path) -> datetime | None:
        """When the certificate there expires, as far as is known."""
        found = self._kept.get(directory)
        credential = found[0].credential if found else None
        return credential.not_after if credential else None

    def keepers(self) -> tuple[Keeper, ...]:
        """Who renews them."""
        return tuple(keeper for keeper, _ in self._kept.values())

    def hurry(self) -> None:
        """The control plane is back: those that failed try again at once."""
        for keeper in self.keepers():
            if keeper.error is not None:
                keeper.hurry()

    async def close(self) -> None:
        """Renew none any more; the files stay where they are."""
        for directory in tuple(self._kept):
            await self.forget(directory)


def behind(trust: Trust, keepers: Iterable[Keeper]) -> list[Keeper]:
    """Those whose trust bundle is another one."""
    return [one for one in keepers if one.credential and one.credential.trust.version != trust.version]


def trust_all(trust: Trust, keepers: Iterable[Keeper]) -> None:
    """Replace the trust bundle; one that cannot be written keeps nobody else from it."""
    for keeper in keepers:
        try:
            keeper.trust(trust)
        except WeftError as error:
            log.error("the trust bundle of %s was not replaced: %s", keeper.name, error)


def _describe(keeper: Keeper, card: str) -> None:
    if keeper.credential is not None and keeper.credential.card != card:
        keeper.hurry()


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s is not renewed any more", task.get_name(), exc_info=error)
