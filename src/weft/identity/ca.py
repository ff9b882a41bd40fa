"""The certificate authority: a key, whom it answers for, and what it signs. Pure: no clock, no files.

Of a certificate request only the public key is taken, once its signature proves that the asker holds the
private one. Names, extensions and lifetimes are the authority's own decision.

Formats: RFC 5280 (certificates), RFC 2986 (requests), SPIFFE X509-SVID (one URI SAN, digitalSignature only).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from ipaddress import ip_address
from secrets import token_hex
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from weft.identity.card import other_name
from weft.identity.pem import (
    AuthorityError,
    read_certificates,
    read_key,
    read_request,
    write_certificates,
    write_key,
)
from weft.identity.pin import spki_sha256
from weft.names import CONTROL_PLANE_ACCOUNT, CONTROL_PLANE_HOST, NODE_HOST, ROOT_NAMESPACE, TRUST_DOMAIN
from weft.spiffe import AdminId, NodeId, SpiffeId, UserId

ROOT_LIFETIME: Final = timedelta(days=3650)
WORKLOAD_LIFETIME: Final = timedelta(hours=24)
NODE_LIFETIME: Final = timedelta(days=30)
# Clocks of hosts differ: a certificate is valid a little before it was made.
BACKDATE: Final = timedelta(minutes=1)

BRING_NEW: Final = "start the control plane with a new signing certificate under the same root"


@dataclass(frozen=True, slots=True)
class Authority:
    """What signs, and what is trusted.

    ``chain`` starts with the certificate of ``key`` and ends below the root; it is empty when the root
    itself signs. ``roots`` is the bundle that peers are verified against: the issuing root first, then
    those that are still, or already, trusted while the root is being replaced.
    """

    trust_domain: str
    # Not compared: the issuer's certificate says which key it is.
    key: ec.EllipticCurvePrivateKey = field(compare=False, repr=False)
    chain: tuple[x509.Certificate, ...]
    roots: tuple[x509.Certificate, ...]

    @classmethod
    def create(cls, now: datetime, trust_domain: str = TRUST_DOMAIN) -> Self:
        """A new root (P-256, ten years) that signs by itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "weft"),
                x509.NameAttribute(NameOID.COMMON_NAME, f"weft root {now:%Y-%m-%d} {token_hex(4)}"),
            ]
        )
        builder = (
            _builder(subject, subject, key.public_key(), key.public_key(), now, now + ROOT_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(authority=True), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]),
                critical=False,
            )
        )
        return cls(trust_domain, key, (), (builder.sign(key, hashes.SHA256()),))

    @classmethod
    def bring(
        cls,
        key_pem: bytes,
        chain_pem: bytes,
        roots_pem: bytes,
        *,
        now: datetime,
        trust_domain: str = TRUST_DOMAIN,
    ) -> Self:
        """An authority of one's own: a root with its key, or an intermediate with its chain and root.

        Args:
            key_pem: the private key (P-256, not encrypted) of the first certificate in ``chain_pem``.
            chain_pem: the signing certificate, then its issuers; the root may be left out.
            roots_pem: the roots to trust, the one that the chain leads to first.

        Raises:
            AuthorityError: what does not fit, and what to give instead.
        """
        key = read_key(key_pem)
        chain, roots = read_certificates(chain_pem), read_certificates(roots_pem)
        if chain[0].public_key() != key.public_key():
            raise AuthorityError(
                "the private key does not belong to the signing certificate",
                hint="the first certificate of the chain must be the one that the key was made for",
            )
        while len(chain) > 1 and chain[-1] in roots:
            chain = chain[:-1]
        top = chain[-1]
        root = next((root for root in roots if top == root or _issued(top, root)), None)
        if root is None:
            raise AuthorityError(
                f"no given root signed {_title(top)}", hint="add the root that the chain leads to"
            )
        for above, below in zip(chain[1:], chain, strict=False):
            if not _issued(below, above):
                raise AuthorityError(
                    f"{_title(above)} did not sign {_title(below)}",
                    hint="order the chain: signing certificate, its issuer, and so on",
                )
        for position, certificate in enumerate((root,) if top == root else (*chain, root)):
            _check_signer(certificate, below=position, now=now)
        ordered = (root, *(other for other in roots if other != root))
        return cls(trust_domain, key, () if top == root else chain, ordered)

    @property
    def issuer(self) -> x509.Certificate:
        """The certificate of ``key``."""
        return self.chain[0] if self.chain else self.roots[0]

    @property
    def identity(self) -> SpiffeId:
        """Who the control plane itself is. No node may host it."""
        return SpiffeId(self.trust_domain, ROOT_NAMESPACE, CONTROL_PLANE_ACCOUNT)

    @property
    def bundle(self) -> str:
        """The roots, PEM."""
        return write_certificates(self.roots)

    @property
    def pin(self) -> str:
        """What a join token says of the issuing root: SHA-256 of its public key, base64url."""
        return spki_sha256(self.roots[0].public_key())

    def sign(
        self,
        csr: str,
        identity: SpiffeId | NodeId | AdminId | UserId,
        *,
        now: datetime,
        lifetime: timedelta = WORKLOAD_LIFETIME,
        card: str = "",
    ) -> str:
        """A certificate for the key of a request, with the intermediates that lead to the root; PEM.

        Valid from a minute before ``now``; never longer than the issuer itself. Nodes bear a DNS name too:
        what scrapes them verifies nothing else. ``card``: what it says of a workload beside its identity
        (``weft.card``).

        Raises:
            RequestError: the request is not PEM, not signed by its own key, or its key is not P-256.
            AuthorityError: the identity is of another trust domain, or the issuer has expired.
        """
        if identity.trust_domain != self.trust_domain:
            raise AuthorityError(
                f"{identity} is not of the trust domain {self.trust_domain}",
                hint="ask the control plane of that trust domain",
            )
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(identity))]
        if isinstance(identity, NodeId):
            names.append(x509.DNSName(NODE_HOST))
        if card:
            names.append(other_name(card))
        return self._issue(read_request(csr), names, now, lifetime)

    def serve(self, hosts: Iterable[str] = (), *, now: datetime, lifetime: timedelta) -> tuple[str, str]:
        """The control plane's own certificate (chain, PEM) and its private key (PKCS 8, PEM).

        It bears the control plane's identity, its well-known DNS name (which nobody else gets: clients
        verify that one, so that they may dial any address) and ``hosts``, DNS names or IP addresses.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(self.identity))]
        names += [_host_name(host) for host in dict.fromkeys((CONTROL_PLANE_HOST, *hosts))]
        return self._issue(key.public_key(), names, now, lifetime), write_key(key)

    def trust(self, *roots: x509.Certificate) -> Authority:
        """The same, with more roots in the bundle; the first step of replacing a root."""
        return replace(self, roots=(*self.roots, *(root for root in roots if root not in self.roots)))

    def succeed(self, successor: Authority) -> Authority:
        """``successor`` signs from now on and the old roots stay trusted; the second step.

        Raises:
            AuthorityError: when the successor's root is not in the bundle yet, so that peers that have not
                reloaded would refuse its certificates.
        """
        if successor.roots[0] not in self.roots:
            raise AuthorityError(
                "the new root is not trusted by the mesh yet", hint="distribute it first, then switch"
            )
        return successor.trust(*self.roots)

    def distrust(self, root: x509.Certificate) -> Authority:
        """The same without a root; the last step.

        Raises:
            AuthorityError: for the root that signs.
        """
        if root == self.roots[0]:
            raise AuthorityError("this root still signs", hint="switch to its successor first")
        return replace(self, roots=tuple(other for other in self.roots if other != root))

    def to_pem(self) -> bytes:
        """Everything, the private key included: key, chain, and the roots after an empty line."""
        parts = (write_key(self.key), write_certificates(self.chain), "\n", self.bundle)
        return "".join(parts).encode()

    @classmethod
    def from_pem(cls, pem: bytes, trust_domain: str = TRUST_DOMAIN) -> Self:
        """Read what ``to_pem`` wrote.

        Raises:
            AuthorityError: for anything else.
        """
        signer, _, roots = pem.partition(b"\n\n")
        chain = read_certificates(signer) if b"BEGIN CERT" in signer else ()
        authority = cls(trust_domain, read_key(signer), chain, read_certificates(roots))
        if authority.issuer.public_key() != authority.key.public_key():
            raise AuthorityError("the stored authority is damaged", hint="restore it from a backup")
        return authority

    def _issue(
        self,
        public_key: ec.EllipticCurvePublicKey,
        names: Sequence[x509.GeneralName],
        now: datetime,
        lifetime: timedelta,
    ) -> str:
        issuer = self.issuer
        until = min(now + lifetime, issuer.not_valid_after_utc)
        if until <= now:
            raise AuthorityError(
                f"the signing certificate expired on {issuer.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
                hint=BRING_NEW,
            )
        signer = self.key.public_key()
        builder = (
            # No subject: the name is the URI. The SAN is critical then (RFC 5280, 4.2.1.6).
            _builder(x509.Name([]), issuer.subject, public_key, signer, now - BACKDATE, until)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
        )
        leaf = builder.sign(self.key, hashes.SHA256())
        return write_certificates((leaf, *self.chain))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePublicKey,
    since: datetime,
    until: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _title(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "the certificate without a subject"


def _check_signer(certificate: x509.Certificate, *, below: int, now: datetime) -> None:
    """``below``: how many authorities of the chain stand under this one."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as error:
        raise AuthorityError(
            f"{_title(certificate)} does not say what it may sign",
            hint="make it with basicConstraints=CA:TRUE and keyUsage=keyCertSign",
        ) from error
    if not constraints.ca or not usage.key_cert_sign:
        raise AuthorityError(
            f"{_title(certificate)} may not sign certificates",
            hint="make it with basicConstraints=CA:TRUE and keyUsage=keyCertSign",
        )
    if constraints.path_length is not None and constraints.path_length < below:
        raise AuthorityError(
            f"{_title(certificate)} allows {constraints.path_length} authorities below it, there are {below}",
            hint="make it with a longer pathlen, or sign with an authority nearer to it",
        )
    if not certificate.not_valid_before_utc - BACKDATE <= now < certificate.not_valid_after_utc:
        raise AuthorityError(
            f"{_title(certificate)} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, not now",
            hint="renew it, or set this machine's clock",
        )
