"""Which certificates were given out and still hold, and which of them were revoked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final, Self

from weft.identity.ca import Authority
from weft.identity.pem import AuthorityError
from weft.identity.revocation import Revoked, issuer_key, may_sign_lists, read_lists, sign_list
from weft.store.interface import Private

_LISTS: Final = "lists"
_EPOCH: Final = "epoch"
_REVOKED: Final = "revoked/"
_PRUNE_EVERY: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate. ``serial`` is hexadecimal, ``key`` the SHA-256 of its public key, ``issuer`` that of the
    key that signed it. ``token`` is the id of the join token, for an enrolment.
    """

    time: datetime
    identity: str
    serial: str
    not_after: datetime
    key: str
    node: str
    token: str = ""
    issuer: str = ""

    def to_json(self) -> bytes:
        """As it is stored."""
        fields = asdict(self) | {"time": self.time.isoformat(), "not_after": self.not_after.isoformat()}
        return json.dumps(fields).encode()

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Read what ``to_json`` wrote."""
        fields = json.loads(body)
        for name in ("time", "not_after"):
            fields[name] = datetime.fromisoformat(fields[name])
        return cls(**fields)


class Ledger:
    """Keeps both in private tables and in memory, where a handshake asks. ``open`` it first."""

    def __init__(self, issued: Private, revoked: Private, clock: Callable[[], datetime]) -> None:
        self._table = issued
        self._revocations = revoked
        self._clock = clock
        self._issued: dict[str, Issued] = {}
        self._revoked: dict[str, Revoked] = {}
        self._lists: dict[str, str] = {}
        self._number = 0
        self._added = 0
        self.epoch = 0
        """Connections of an earlier epoch were verified before something was revoked, and are ended."""
        self.pending = False
        """Something was revoked in this epoch."""

    async def open(self) -> Ledger:
        """Read what is stored."""
        found = (Issued.from_json(body) for body in (await self._table.list()).values())
        self._issued = {one.serial: one for one in found}
        revoked = (Revoked.from_json(body) for body in (await self._revocations.list(_REVOKED)).values())
        self._revoked = {one.serial: one for one in revoked}
        if (body := await self._revocations.get(_LISTS)) is not None:
            kept = json.loads(body)
            self._number, self._lists = kept["number"], kept["lists"]
        if (body := await self._revocations.get(_EPOCH)) is not None:
            self.epoch, self.pending = json.loads(body)
        await self._prune()
        return self

    async def add(self, issued: Issued) -> None:
        """Remember a certificate, before it is handed out."""
        await self._table.put(issued.serial, issued.to_json())
        self._issued[issued.serial] = issued
        self._added += 1
        if self._added % _PRUNE_EVERY == 0:
            await self._prune()

    def issued(self) -> tuple[Issued, ...]:
        """Those that have not expired, the newest first."""
        now = self._clock()
        valid = (one for one in self._issued.values() if one.not_after > now)
        return tuple(sorted(valid, key=lambda one: one.time, reverse=True))

    def revoked(self) -> tuple[Revoked, ...]:
        """Those that have not expired, the newest first."""
        now = self._clock()
        valid = (one for one in self._revoked.values() if one.until > now)
        return tuple(sorted(valid, key=lambda one: one.time, reverse=True))

    def is_revoked(self, serial: str) -> bool:
        """Whether the certificate with this serial number (hexadecimal) is worth nothing."""
        return serial in self._revoked

    async def revoke(self, entries: Iterable[Revoked]) -> tuple[Revoked, ...]:
        """Durably; those that were not revoked before."""
        fresh = tuple(entry for entry in entries if entry.serial not in self._revoked)
        if fresh:
            # Before them: whoever stops in between must not leave connections that stand.
            await self._enter(self.epoch, pending=True)
        for entry in fresh:
            await self._revocations.put(f"{_REVOKED}{entry.serial}", entry.to_json())
            self._revoked[entry.serial] = entry
        return fresh

    async def end_epoch(self, *, everywhere: bool) -> None:
        """The next one begins; ``everywhere``: all look at the newest lists, so none is needed after it."""
        await self._enter(self.epoch + 1, pending=not everywhere)

    async def _enter(self, epoch: int, *, pending: bool) -> None:
        await self._revocations.put(_EPOCH, json.dumps([epoch, pending]).encode())
        self.epoch, self.pending = epoch, pending

    async def lists(self, signers: Sequence[Authority]) -> str:
        """The lists to deliver, PEM; empty while nothing is revoked.

        What was signed before is given again as long as nothing has changed, after a restart too: whoever has
        loaded it need not load it again. Authorities that sign no more keep their last list as long as a
        certificate of theirs is valid.
        """
        now, revoked = self._clock(), self.revoked()
        active = {issuer_key(signer): signer for signer in signers}
        valid = {one.issuer for one in self._issued.values() if one.not_after > now}
        lists = {key: pem for key, pem in self._lists.items() if key in active or key in valid}
        for key, signer in active.items():
            want = frozenset(entry.serial for entry in revoked if entry.issuer == key)
            if key in lists and set(read_lists(lists[key]).values()) == {want}:
                continue
            if not may_sign_lists(signer.issuer):
                continue
            self._number += 1
            lists[key] = sign_list(signer, revoked, number=self._number, now=now)
        if lists != self._lists:
            body = json.dumps({"number": self._number, "lists": lists}).encode()
            await self._revocations.put(_LISTS, body)
            self._lists = lists
        if not revoked:
            return ""
        first = [key for key in active if key in lists]
        return "".join(lists[key] for key in (*first, *sorted(lists.keys() - active.keys())))

    async def _prune(self) -> None:
        now = self._clock()
        for serial in [one.serial for one in self._issued.values() if one.not_after <= now]:
            await self._table.delete(serial)
            del self._issued[serial]
        for serial in [one.serial for one in self._revoked.values() if one.until <= now]:
            await self._revocations.delete(f"{_REVOKED}{serial}")
            del self._revoked[serial]


def check_signs_lists(signers: Iterable[Authority]) -> None:
    """That revoking is possible.

    Raises:
        AuthorityError: an authority may sign no lists, so that everything that it signed would be refused.
    """
    for signer in signers:
        if not may_sign_lists(signer.issuer):
            raise AuthorityError(
                f"{signer.issuer.subject.rfc4514_string()} may not sign revocation lists",
                hint="replace it by one made with keyUsage=keyCertSign,cRLSign: weft ca rotate",
            )
