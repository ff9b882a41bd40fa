"""Follows the files of an authority that others renew: a new intermediate takes over once it is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from weft.control.rotation import Trustee
from weft.errors import WeftError
from weft.identity.ca import Authority
from weft.identity.custody import read_authority
from weft.identity.handover import check_trusted, find_files
from weft.identity.revocation import issuer_key

_log = logging.getLogger(__name__)

# Secrets that Kubernetes mounts change by a symbolic link, which no watch on the file sees.
_LOOK_S: Final = 2.0

Files = tuple[Path, Path, Path]
_Seen = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnAuthority:
    """PEM files of an authority that the operator brings: its key, its chain, the roots to trust.

    Or a ``directory`` that cert-manager or Istio's conventions fill. Either is followed.
    """

    key: Path = Path()
    chain: Path = Path()
    roots: Path = Path()
    directory: Path | None = None

    def files(self) -> tuple[Path, Path, Path]:
        """Key, chain and roots.

        Raises:
            AuthorityError: the directory does not hold them.
        """
        if self.directory is not None:
            return find_files(self.directory)
        return self.key, self.chain, self.roots

    def read(self, now: datetime, trust_domain: str) -> Authority:
        """What lies there.

        Raises:
            AuthorityError: a file cannot be read, or what it holds does not fit.
        """
        return read_authority(*self.files(), now=now, trust_domain=trust_domain)


class Handover:
    """Looks at key, chain and roots (PEM) again and again.

    Args:
        own: where they are.

    ``error`` is why what lies there did not take over; the present authority goes on then.
    """

    def __init__(self, trustee: Trustee, own: OwnAuthority, *, look_s: float = _LOOK_S) -> None:
        self.error: WeftError | None = None
        self._trustee = trustee
        self._own = own
        self._look_s = look_s
        self._seen: _Seen | None = None

    def doubts(self) -> Iterable[str]:
        """For whoever looks at the authority."""
        if self.error is not None:
            yield f"the authority that lies in its files does not take over: {self.error}"

    async def run(self) -> None:
        """For ever."""
        while True:
            await self.look()
            await asyncio.sleep(self._look_s)

    async def look(self) -> None:
        """Take over what has changed since the last look."""
        try:
            files = self._own.files()
            seen = _seen(files)
            if seen == self._seen:
                return
            await self._take()
            self._seen, self.error = seen, None
        except (WeftError, OSError) as error:
            # Files may be half written, or another rotation go on: they are read again at the next look.
            why = error if isinstance(error, WeftError) else WeftError(str(error))
            if self.error is None or str(self.error) != str(why):
                _log.error("the authority that lies in its files does not take over: %s", why)
            self.error = why

    async def _take(self) -> None:
        trustee = self._trustee
        given = self._own.read(trustee.now(), trustee.authority.trust_domain)
        state = trustee.state
        if given.issuer in {one.issuer for one in state.signers} or issuer_key(given) in state.retired:
            return
        check_trusted(given, trustee.authority)
        _log.info("%s takes over", given.issuer.subject.rfc4514_string())
        await trustee.rotate(given)


def _seen(files: Files) -> _Seen:
    found = (path.stat() for path in files)
    return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in found)
