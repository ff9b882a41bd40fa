"""Who signs and what is trusted now: the one place that changes it, step by step, as nodes report.

Each change is stored before anybody is told, so that a control plane that stops in any step goes on from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509

from weft.errors import WeftError
from weft.identity.ca import Authority
from weft.identity.custody import Custody
from weft.identity.ledger import Issued, Ledger, check_signs_lists
from weft.identity.pem import AuthorityError
from weft.identity.revocation import Revoked, issuer_key, roots_without
from weft.identity.rotation import Loaded, Member, Missing, State, missing, step
from weft.identity.trust import Trust

_log = logging.getLogger(__name__)

_TICK_S: Final = 1.0
# What a node may say of itself; hashes and serial numbers are shorter.
_PARTS_MAX: Final = 10_000
_NAME_MAX: Final = 512
_TEXT_MAX: Final = 64
_QUIET_S: Final = 0.05
# Certificates expire, and with them their places in the lists.
_IDLE_S: Final = 60.0
# Nodes that have not loaded a revocation by then are not waited for.
_PATIENCE: Final = timedelta(seconds=10)

Members = Callable[[Mapping[str, Mapping[str, Loaded]]], Awaitable[Mapping[str, Member]]]
"""All nodes that joined, given what each has reported."""


class Trustee:
    """Holds the state of the authority. ``open`` makes one; ``run`` drives it.

    ``members`` and ``told`` are set once the parts that know nodes exist: who they are, and what is called
    (in order) after each change.
    """

    def __init__(self, custody: Custody, ledger: Ledger, state: State, clock: Callable[[], datetime]) -> None:
        self.ledger = ledger
        self.state = state
        self.members: Members = _nobody
        self.told: list[Callable[[], Awaitable[None] | None]] = []
        self.error: WeftError | None = None
        self._custody = custody
        self._clock = clock
        self._trust = Trust(pem=state.authority.bundle, issuer=issuer_key(state.authority))
        self._domains: dict[str, str] = {}
        self._added = ""
        self._aliases: tuple[str, ...] = ()
        self._reports: dict[str, dict[str, Loaded]] = {}
        self._revoked_at: datetime | None = None
        self._cut_at: datetime | None = None
        self._changed = asyncio.Event()
        self._lock = asyncio.Lock()

    @classmethod
    async def open(
        cls,
        custody: Custody,
        ledger: Ledger,
        clock: Callable[[], datetime],
        given: Authority | None = None,
    ) -> Trustee:
        """With what is stored; ``given`` as ``Custody.open`` takes it.

        Raises:
            AuthorityError: as ``Custody.open``.
        """
        made = cls(custody, ledger, await custody.open(given), clock)
        await made.refresh()
        return made

    @property
    def authority(self) -> Authority:
        """Who signs now."""
        return self.state.authority

    @property
    def trust(self) -> Trust:
        """What peers are verified by now."""
        return self._trust

    @property
    def reports(self) -> Mapping[str, Mapping[str, Loaded]]:
        """What nodes have said that is loaded, by node and part."""
        return self._reports

    def now(self) -> datetime:
        """The time by which everything here is judged (UTC)."""
        return self._clock()

    def revoked(self, certificate: bytes) -> bool:
        """Whether a certificate (DER) is worth nothing any more; one that cannot be read is."""
        try:
            serial = x509.load_der_x509_certificate(certificate).serial_number
        except ValueError:
            return True
        return self.ledger.is_revoked(f"{serial:x}")

    def hear(self, node: str, message: Mapping[str, Any]) -> None:
        """A node's ``proxies`` report."""
        loaded, parts = message.get("loaded"), {}
        for part, said in loaded.items() if isinstance(loaded, Mapping) else ():
            if isinstance(said, Mapping):
                texts = (str(said.get(name) or "")[:_TEXT_MAX] for name in ("trust", "issuer", "serial"))
                trust, issuer, serial = texts
                parts[str(part)[:_NAME_MAX]] = Loaded(trust=trust, issuer=issuer, serial=serial)
            if len(parts) == _PARTS_MAX:
                break
        self._reports[node] = parts
        self._changed.set()

    async def missing(self) -> tuple[Missing, ...]:
        """Who the present step waits for."""
        members = await self.members(self._reports)
        return missing(self.state, self._trust.version, members, self._clock())

    async def rotate(
        self,
        successor: Authority | None,
        *,
        skip: Iterable[str] = (),
        timeout: timedelta | None = None,
        exact: bool = False,
    ) -> None:
        """Begin, or go on with what is under way: then ``skip`` and ``timeout`` are taken over.

        Args:
            successor: None makes a new root, unless a rotation is under way.
            exact: as ``State.begin`` takes it.

        Raises:
            AuthorityError: a rotation to another authority is under way, or this one signs already.
        """
        async with self._lock:
            now, running = self._clock(), self.state.rotation
            if running is None:
                fresh = successor or Authority.create(now, self.authority.trust_domain)
                state = self.state.begin(fresh, now, skip=skip, timeout=timeout, exact=exact)
            elif successor is not None and successor.issuer != running.successor.issuer:
                raise AuthorityError(
                    "the authority is being replaced by another one already",
                    hint="follow that with 'weft ca status', then replace it again",
                )
            else:
                merged = tuple(sorted({*running.skip, *skip}))
                limit = timeout if timeout is not None else running.timeout
                state = replace(self.state, rotation=replace(running, skip=merged, timeout=limit))
            await self._become(state)
        self._changed.set()

    async def revoke(
        self, chosen: Callable[[Issued], bool], *, reason: str = "", serial: str = ""
    ) -> tuple[Revoked, ...]:
        """Make certificates worthless: those that ``chosen`` takes, and that with ``serial``, known or not.

        Raises:
            AuthorityError: the authority may sign no revocation lists, or other roots would be cut off.
        """
        async with self._lock:
            self.check_revocable()
            now = self._clock()
            rows = [one for one in self.ledger.issued() if chosen(one) or one.serial == serial]
            entries = [
                Revoked(
                    issuer=one.issuer,
                    serial=one.serial,
                    identity=one.identity,
                    node=one.node,
                    time=now,
                    until=one.not_after,
                    reason=reason,
                )
                for one in rows
            ]
            if serial and not rows:
                until = self.authority.issuer.not_valid_after_utc
                entries.append(
                    Revoked(
                        issuer=issuer_key(self.authority),
                        serial=serial,
                        identity="",
                        node="",
                        time=now,
                        until=until,
                        reason=reason,
                    )
                )
            fresh = await self.ledger.revoke(entries)
            if not fresh:
                # To say it anew would cost everybody the connections that stand.
                return ()
            self._revoked_at, self._cut_at = now, None
            await self._publish()
        self._changed.set()
        return fresh

    def check_revocable(self) -> None:
        """That revoking is possible.

        Raises:
            AuthorityError: the authority may sign no revocation lists, or other roots would be cut off.
        """
        check_signs_lists(self.state.signers)
        if others := roots_without(self.authority.bundle, self.state.signers):
            raise AuthorityError(
                f"proxies that look at a list would refuse whatever {', '.join(others)} signed, "
                "since this authority cannot make its list",
                hint="leave it out first: weft ca rotate --key … --chain … --roots …",
            )

    async def federate(self, domains: Mapping[str, str], added: str, aliases: tuple[str, ...]) -> None:
        """Other trust domains with their roots (PEM), roots that vouch for the own one too, its aliases.

        A domain without roots is one that nobody vouches for yet, the own authority neither.
        """
        own = {self.authority.trust_domain, *aliases}
        added += "".join(pem for name, pem in sorted(domains.items()) if name in own)
        domains = {name: pem for name, pem in domains.items() if name not in own}
        if (dict(domains), added, aliases) == (self._domains, self._added, self._aliases):
            return
        async with self._lock:
            self._domains, self._added, self._aliases = dict(domains), added, aliases
            await self._publish()

    async def refresh(self) -> bool:
        """Make the trust of now; whether it differs from the last one."""
        lists = await self.ledger.lists(self.state.signers)
        roots = self.authority.bundle
        pairs: tuple[tuple[str, str], ...] = ()
        if self._domains or self._added:
            own = roots + self._added + (lists if self.checks_lists else "")
            names = (self.authority.trust_domain, *self._aliases)
            others = {name: pem for name, pem in self._domains.items() if pem}
            pairs = tuple(sorted({**others, **dict.fromkeys(names, own)}.items()))
        fresh = Trust(pem=roots + lists, domains=pairs, issuer=issuer_key(self.authority))
        changed, self._trust = fresh != self._trust, fresh
        return changed

    @property
    def checks_lists(self) -> bool:
        """Whether proxies look at revocation lists. Where several domains are trusted they demand one of each
        authority in a chain, so also of a root whose key is not here.
        """
        several = bool(self._domains or self._added)
        return not several or not (self._added or any(signer.chain for signer in self.state.signers))

    async def run(self) -> None:
        """Take each step as soon as nobody is missing, for ever."""
        await self._tell()
        while True:
            try:
                busy = self.state.rotation is not None or self.ledger.pending
                async with asyncio.timeout(_TICK_S if busy else _IDLE_S):
                    await self._changed.wait()
                # A thousand nodes report at about the same time: they are looked at together.
                await asyncio.sleep(_QUIET_S)
            except TimeoutError:
                pass
            self._changed.clear()
            try:
                await self._step()
                self.error = None
            except WeftError as error:
                _log.error("the authority was not replaced: %s", error)
                self.error = error
                # Another control plane may have taken the step: go on from what is stored.
                with contextlib.suppress(WeftError):
                    self.state = await self._custody.open()
                    await self._publish()
            except Exception:
                _log.exception("the authority was not replaced; it is tried again")

    async def _step(self) -> None:
        async with self._lock:
            if self.ledger.pending:
                await self._cut()
            if self.state.rotation is None:
                if await self.refresh():
                    await self._tell()
                return
            members = await self.members(self._reports)
            state = step(self.state, self._trust.version, members, self._clock())
            if state != self.state:
                await self._become(state)
                self._changed.set()

    async def _cut(self) -> None:
        """End the connections that were verified before: once all that can be reached look at the new lists,
        for else they would come back; after a while in any case, and then once more.
        """
        members = await self.members(self._reports)
        loaded = all(
            (said := member.loaded.get(part)) is not None and said.trust == self._trust.version
            for member in members.values()
            if member.connected
            for part in member.parts
        )
        since = self._revoked_at or self._clock()
        late = self._cut_at is None and self._clock() - since > _PATIENCE
        self._revoked_at = since
        if loaded or late:
            await self.ledger.end_epoch(everywhere=loaded)
            self._cut_at = None if loaded else self._clock()
            self._revoked_at = None if loaded else since
            await self._tell()

    async def _become(self, state: State) -> None:
        if state == self.state:
            return
        await self._custody.replace(state, expect=self.state)
        self.state = state
        rotation = state.rotation
        _log.warning(
            "replacing the authority: %s",
            f"{rotation.phase}"
            if rotation
            else f"{state.authority.issuer.subject.rfc4514_string()} has taken over",
        )
        await self._publish()

    async def _publish(self) -> None:
        await self.refresh()
        await self._tell()

    async def _tell(self) -> None:
        for call in self.told:
            try:
                if (waiting := call()) is not None:
                    await waiting
            except Exception:
                # One who cannot hear of it, as with a full disk, must not keep the others from it.
                _log.exception("a part of the control plane does not know of the authority's change")


async def _nobody(_: Mapping[str, Mapping[str, Loaded]]) -> Mapping[str, Member]:
    return {}
