"""The control plane's own certificate: made by its authority, renewed at half-life, shown on every port."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import CertificateSigningRequestBuilder, Name

from weft.identity.ca import Authority
from weft.spiffe import AdminId
from weft.xds.server import Certificates

_log = logging.getLogger(__name__)

LIFETIME: Final = timedelta(days=30)
ADMIN_LIFETIME: Final = timedelta(days=365)
# How often the clock is looked at: one long sleep does not pass while a laptop is suspended.
_STEP: Final = timedelta(seconds=30)


def _now() -> datetime:
    return datetime.now(UTC)


class Credentials:
    """What the ports show. ``hosts`` are the DNS names and addresses that the API is dialled by."""

    def __init__(
        self,
        authority: Callable[[], Authority],
        hosts: Iterable[str],
        *,
        lifetime: timedelta = LIFETIME,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._authority = authority
        self._hosts = tuple(hosts)
        self._lifetime = lifetime
        self._now = now
        self._current = self._make()
        self._fresh = self._fresh_context()

    def current(self) -> Certificates:
        """Chain, key and roots in PEM, for gRPC; called from other threads."""
        return self._current

    def context(self) -> ssl.SSLContext:
        """TLS for the API: a client certificate is verified if one is sent. It is kept up to date."""
        context = self._fresh_context()
        # Roots can be added to a context and never removed: each handshake goes on with the newest one.
        context.sni_callback = self._freshen
        return context

    def _freshen(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._fresh

    def renew(self) -> None:
        """Make a new certificate now; connections that stand are not touched."""
        self._current = self._make()
        self._fresh = self._fresh_context()

    async def keep(self) -> None:
        """Renew at half-life and when the authority's bundle changes, for ever."""
        step = min(_STEP, self._lifetime / 20)
        while True:
            await asyncio.sleep(step.total_seconds())
            if self._now() >= self._renew_at or self._current.roots != self._authority().bundle.encode():
                self.renew()
                _log.info("the control plane's certificate was renewed")

    def admin(self, name: str) -> tuple[str, str]:
        """A certificate (chain, PEM) and key of an administrator, for a kubeconfig."""
        key = ec.generate_private_key(ec.SECP256R1())
        request = CertificateSigningRequestBuilder(Name([])).sign(key, SHA256())
        authority = self._authority()
        chain = authority.sign(
            request.public_bytes(serialization.Encoding.PEM).decode(),
            AdminId(authority.trust_domain, name),
            now=self._now(),
            lifetime=ADMIN_LIFETIME,
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return chain, pem.decode()

    def _make(self) -> Certificates:
        authority, now = self._authority(), self._now()
        chain, key = authority.serve(self._hosts, now=now, lifetime=self._lifetime)
        self._renew_at = now + self._lifetime / 2
        return Certificates(chain.encode(), key.encode(), authority.bundle.encode())

    def _fresh_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_OPTIONAL
        context.set_alpn_protocols(["http/1.1"])
        # A resumed session would keep a client whose root is trusted no more.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        # OpenSSL's Python binding reads keys from files only; this one is in memory.
        descriptor = os.memfd_create("weft-server-key", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, self._current.key + b"\n" + self._current.chain)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        context.load_verify_locations(cadata=self._current.roots.decode())
        return context
