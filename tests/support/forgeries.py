"""Certificates that nobody should accept, and what is wrong with each: most the trusted root has signed."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support.certificates import Pair

_PEM = serialization.Encoding.PEM
_DAY = datetime.timedelta(days=1)
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


def uri(name: str) -> x509.UniformResourceIdentifier:
    """A name as it is, whatever is in it."""
    return x509.UniformResourceIdentifier(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a certificate shall be like; the default is a good one of 24 hours.

    ``since`` and ``until`` are from now. ``issuer``: ``root``, ``itself``, ``stranger`` (another root) or
    ``limited`` (an intermediate that may sign names of another domain only). ``subject``: a common name.
    """

    names: tuple[x509.GeneralName, ...] = ()
    since: datetime.timedelta = -datetime.timedelta(minutes=5)
    until: datetime.timedelta = _DAY
    usages: tuple[x509.ObjectIdentifier, ...] = BOTH
    authority: bool = False
    issuer: str = "root"
    subject: str = ""


@dataclass
class Forger:
    """Makes them under one root. ``key`` and ``root`` are those of the authority that is believed."""

    key: ec.EllipticCurvePrivateKey
    root: x509.Certificate
    made: dict[str, tuple[ec.EllipticCurvePrivateKey, x509.Certificate]] = field(default_factory=dict)

    def make(self, wish: Wish) -> Pair:
        """The chain and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        chain: Sequence[x509.Certificate] = ()
        match wish.issuer:
            case "itself":
                signer, issuer = key, x509.Name([])
            case "stranger":
                signer, above = self._authority("stranger", None)
                issuer = above.subject
            case "limited":
                signer, above = self._authority("limited", (self.key, self.root))
                issuer, chain = above.subject, (above,)
            case _:
                signer, issuer = self.key, self.root.subject
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_named(wish.subject))
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + wish.since)
            .not_valid_after(now + wish.until)
            .add_extension(x509.BasicConstraints(ca=wish.authority, path_length=None), critical=True)
            .add_extension(_usage(authority=wish.authority), critical=True)
        )
        if wish.usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(wish.usages), critical=False)
        if wish.names:
            builder = builder.add_extension(x509.SubjectAlternativeName(wish.names), critical=True)
        leaf = builder.sign(signer, hashes.SHA256())
        text = "".join(one.public_bytes(_PEM).decode() for one in (leaf, *chain))
        private = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return Pair(text, private.decode())

    def _authority(
        self, name: str, above: tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None
    ) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        if name in self.made:
            return self.made[name]
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer, issuer = (key, subject) if above is None else (above[0], above[1].subject)
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(authority=True), critical=True)
        )
        if above is not None:
            limits = x509.NameConstraints(permitted_subtrees=[uri("partner.example")], excluded_subtrees=None)
            builder = builder.add_extension(limits, critical=True)
        self.made[name] = key, builder.sign(signer, hashes.SHA256())
        return self.made[name]


def _named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def wishes(identity: str, other: str) -> Mapping[str, Wish]:
    """Bad certificates by what is wrong; each bears ``identity`` as far as it can.

    ``other`` is another identity of the same mesh.
    """
    good = Wish(names=(uri(identity),))
    domain, _, path = identity.removeprefix("spiffe://").partition("/")

    def named(*names: str) -> Wish:
        return replace(good, names=tuple(uri(name) for name in names))

    return {
        "expired": replace(good, since=-2 * _DAY, until=-datetime.timedelta(seconds=5)),
        "not yet valid": replace(good, since=datetime.timedelta(hours=1)),
        "self-signed": replace(good, issuer="itself"),
        "another mesh's root": replace(good, issuer="stranger"),
        "an intermediate limited to other names": replace(good, issuer="limited"),
        "for servers only": replace(good, usages=(ExtendedKeyUsageOID.SERVER_AUTH,)),
        "for mail only": replace(good, usages=(ExtendedKeyUsageOID.EMAIL_PROTECTION,)),
        "an authority itself": replace(good, authority=True),
        "two identities": named(identity, other),
        "two identities, the other first": named(other, identity),
        "no name": replace(good, names=()),
        "a host's name only": replace(good, names=(x509.DNSName(f"{domain}"),)),
        "the identity as a host's name": replace(good, names=(x509.DNSName(identity),)),
        "another trust domain": named(f"spiffe://evil.example/{path}"),
        "a trust domain that begins alike": named(f"spiffe://{domain}.evil.example/{path}"),
        "a trust domain that ends alike": named(f"spiffe://evil.{domain}/{path}"),
        "a user in front": named(f"spiffe://{domain}@evil.example/{path}"),
        "a user in front of ours": named(f"spiffe://evil@{domain}/{path}"),
        "a port": named(f"spiffe://{domain}:443/{path}"),
        "the domain in upper case": named(f"spiffe://{domain.upper()}/{path}"),
        "the scheme in upper case": named(f"SPIFFE://{domain}/{path}"),
        "another scheme": named(f"https://{domain}/{path}"),
        "a query": named(f"{identity}?x=1"),
        "a fragment": named(f"{identity}#x"),
        "a slash at the end": named(f"{identity}/"),
        "an empty segment": named(f"spiffe://{domain}//{path}"),
        "a way up": named(f"spiffe://{domain}/ns/x/../{path.removeprefix('ns/')}"),
        "a dot": named(f"spiffe://{domain}/./{path}"),
        "escaped": named(f"spiffe://{domain}/{path.replace('/', '%2f')}"),
        "a space": named(f"{identity} "),
        "NUL at the end": named(f"{identity}\0"),
        "NUL and more": named(f"{identity}\0.evil.example"),
        "NUL in the domain": named(f"spiffe://{domain}\0.evil.example/{path}"),
        "no path": named(f"spiffe://{domain}"),
        "an empty path": named(f"spiffe://{domain}/"),
    }
