"""The control plane's own certificate: issued to itself, renewed while it serves."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from weft.identity.ca import Authority

LIFETIME: Final = timedelta(hours=24)
_LOOK_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Shown:
    """A chain, its key, and the bundle that clients are verified by; all PEM."""

    chain: str
    key: str
    bundle: str


class ServingCertificate:
    """What the control plane's TLS ports show and whom they believe.

    Args:
        authority: gives the authority of this moment.
        hosts: DNS names and IP addresses that clients may dial, beside the well-known name.
        clock: the time (UTC).
        changed: is told of each renewal, for servers that take PEM.
    """

    def __init__(
        self,
        authority: Callable[[], Authority],
        clock: Callable[[], datetime],
        *,
        hosts: Iterable[str] = (),
        lifetime: timedelta = LIFETIME,
        changed: Callable[[Shown], None] = lambda shown: None,
    ) -> None:
        self._authority = authority
        self._clock = clock
        self._hosts = tuple(hosts)
        self._lifetime = lifetime
        self._changed = changed
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.verify_mode = ssl.CERT_OPTIONAL
        # A resumed session would bring back a client whose certificate has expired since.
        self._context.num_tickets = 0
        self.shown = self._issue()

    @property
    def context(self) -> ssl.SSLContext:
        """For servers; client certificates are optional. Renewals take effect for new connections."""
        return self._context

    def renew(self) -> None:
        """Show a new certificate from now on; also when the trust bundle has changed."""
        self.shown = self._issue()
        self._changed(self.shown)

    async def keep(self) -> None:
        """Renew at half of each life, for ever. Run it as a task."""
        while True:
            # In short steps by the wall clock: a host that sleeps makes a long wait longer.
            while (left := (self._due - self._clock()).total_seconds()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(min(left, _LOOK_S))
            self.renew()

    def _issue(self) -> Shown:
        authority, now = self._authority(), self._clock()
        chain, key = authority.serve(self._hosts, now=now, lifetime=self._lifetime)
        self._due = now + self._lifetime / 2
        # Python reads keys from files only; this one is in memory.
        descriptor = os.memfd_create("weft-serving-key", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, f"{key}\n{chain}".encode())
            self._context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        self._context.load_verify_locations(cadata=authority.bundle)
        return Shown(chain, key, authority.bundle)
