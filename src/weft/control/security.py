"""Who signs, who may come in, and the record of both: what the rest of the control plane is built on."""

from __future__ import annotations

import os
import socket
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass

from cryptography import x509

from weft.control.api.kubeconfig import kubeconfig, write_kubeconfig
from weft.control.audit import AuditLog
from weft.control.chain import NAME
from weft.control.credentials import ADMIN_LIFETIME, Credentials
from weft.control.metrics import Metrics
from weft.control.options import ControlOptions, Listening, now
from weft.control.rotation import Trustee
from weft.identity.custody import Custody
from weft.identity.jwt_issuer import JwtIssuer
from weft.identity.ledger import Issued, Ledger
from weft.identity.nodes import Nodes
from weft.identity.server import Issuer
from weft.identity.tokens import Tokens
from weft.identity.users import MASTERS, Users
from weft.store.interface import Private
from weft.store.sqlite import SqliteStore

AUDIT_LOG = NAME


@dataclass(frozen=True, slots=True)
class Security:
    """``trustee`` keeps the roots, ``issuer`` signs for nodes and workloads, ``credentials`` are our own."""

    trustee: Trustee
    credentials: Credentials
    audit: AuditLog
    users: Users
    issuer: Issuer
    jwts: JwtIssuer


async def open_security(
    options: ControlOptions, store: SqliteStore, metrics: Metrics, stack: AsyncExitStack
) -> Security:
    """All of it, from what the store keeps; the audit log is closed with ``stack``.

    Raises:
        WeftError: what is kept cannot be read, or the authority that was given cannot be used.
    """
    trustee = await _trustee(options, store)
    hosts = ("localhost", "127.0.0.1", "::1", socket.gethostname(), *options.advertise)
    if options.listen not in {"0.0.0.0", "::", ""}:
        hosts = (*hosts, options.listen)
    audit = AuditLog(options.state / AUDIT_LOG, key=await _kept_key(store.private("audit")))
    stack.callback(audit.close)

    def signed(issued: Issued) -> None:
        audit.write("certificate", asdict(issued))
        metrics.issued.add()

    issuer = Issuer(
        lambda: trustee.authority,
        Tokens(store.private("tokens"), now),
        Nodes(store.private("nodes")),
        now,
        audit=signed,
        record=trustee.ledger.add,
        trust=lambda: trustee.trust,
        lifetime=options.certificate_lifetime,
    )
    return Security(
        trustee=trustee,
        credentials=Credentials(lambda: trustee.authority, hosts),
        audit=audit,
        users=Users(store.private("users"), now),
        issuer=issuer,
        jwts=JwtIssuer(issuer, store.private("jwt"), audit=lambda issued: audit.write("jwt", asdict(issued))),
    )


async def _trustee(options: ControlOptions, store: SqliteStore) -> Trustee:
    own, domain = options.own_authority, options.trust_domain
    ledger = await Ledger(store.private("issued"), store.private("revoked"), now).open()
    custody = Custody(store.private("authority"), now, trust_domain=domain)
    return await Trustee.open(custody, ledger, now, own.read(now(), domain) if own else None)


async def _kept_key(table: Private) -> bytes:
    """The key of the audit log's fingerprints: made once, so that equal values stay recognisable."""
    if (key := await table.get("key")) is None:
        key = os.urandom(32)
        if not await table.swap("key", None, key):
            key = await table.get("key") or key
    return key


class AdminFile:
    """The kubeconfig of whoever runs the control plane."""

    def __init__(self, security: Security, listening: Listening) -> None:
        self._security = security
        self._listening = listening
        self._signer: x509.Certificate | None = None
        self._chain = self._key = ""

    async def write(self) -> None:
        """With the roots of now; with another certificate when somebody else signs now."""
        security = self._security
        authority = security.trustee.authority
        if self._signer != authority.issuer:
            self._chain, self._key = security.credentials.admin("admin")
            serial = x509.load_pem_x509_certificate(self._chain.encode()).serial_number
            issued = {"identity": "admin", "serial": f"{serial:x}", "how": "itself"}
            security.audit.write("certificate", issued)
            # So that it can be revoked like everybody's.
            await security.users.certificate("admin", serial, groups=(MASTERS,), lifetime=ADMIN_LIFETIME)
            self._signer = authority.issuer
        config = kubeconfig(
            server=self._listening.api,
            ca=authority.bundle.encode(),
            certificate=self._chain.encode(),
            key=self._key.encode(),
        )
        write_kubeconfig(self._listening.kubeconfig, config)

    def remove(self) -> None:
        """It leads nowhere once the control plane has ended."""
        self._listening.kubeconfig.unlink(missing_ok=True)
