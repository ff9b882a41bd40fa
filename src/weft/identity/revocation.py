"""Which certificates are worth nothing any more, and the lists that say so to Envoys (RFC 5280, 5).

A list is made for every authority whose certificates may still be shown: an Envoy that has one list demands
one for each issuer that it meets. None is delivered as long as nothing is revoked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from weft.identity.ca import BACKDATE, Authority
from weft.identity.pem import AuthorityError
from weft.identity.pin import spki_sha256

# Serial numbers have at most 20 bytes (RFC 5280, 4.1.2.2).
_SERIAL_BITS: Final = 159
# A list outlives its issuer's certificates: a control plane that is away must not turn into a mesh that
# refuses itself. How fresh a list is, is a matter of its delivery.
_MARGIN: Final = timedelta(days=1)


def read_serial(text: str) -> str:
    """A serial number in lower-case hexadecimal, as ``openssl x509 -serial`` or Envoy's ``/certs`` print it.

    Raises:
        AuthorityError: when it is none.
    """
    digits = text.strip().removeprefix("serial=").replace(":", "").lower().removeprefix("0x")
    try:
        number = int(digits, 16)
    except ValueError:
        number = 0
    if not 0 < number < 1 << (_SERIAL_BITS + 1):
        raise AuthorityError(
            f"{text!r} is no serial number", hint="write it in hexadecimal, as 'weft ca list' shows it"
        )
    return f"{number:x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """One certificate. ``issuer`` is the hash of the key that signed it, ``serial`` is hexadecimal.

    It need not be listed after ``until``, when it has expired.
    """

    issuer: str
    serial: str
    identity: str
    node: str
    time: datetime
    until: datetime
    reason: str = ""

    def to_json(self) -> bytes:
        """As it is stored."""
        fields = asdict(self) | {"time": self.time.isoformat(), "until": self.until.isoformat()}
        return json.dumps(fields).encode()

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Read what ``to_json`` wrote."""
        fields = json.loads(body)
        for name in ("time", "until"):
            fields[name] = datetime.fromisoformat(fields[name])
        return cls(**fields)


def issuer_key(authority: Authority) -> str:
    """The hash of the key that signs for an authority."""
    return spki_sha256(authority.issuer.public_key())


def sign_list(authority: Authority, revoked: Iterable[Revoked], *, number: int, now: datetime) -> str:
    """The list of what this authority revoked, PEM; empty lists are lists, too.

    Raises:
        AuthorityError: when its certificate does not allow it to sign lists.
    """
    issuer = authority.issuer
    if not may_sign_lists(issuer):
        raise AuthorityError(
            f"{issuer.subject.rfc4514_string()} may sign certificates, and no revocation lists",
            hint="make the signing certificate with keyUsage=keyCertSign,cRLSign",
        )
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now - BACKDATE)
        .next_update(issuer.not_valid_after_utc + _MARGIN)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
        )
    )
    own = issuer_key(authority)
    for entry in sorted(revoked, key=lambda entry: int(entry.serial, 16)):
        if entry.issuer == own:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(int(entry.serial, 16))
                .revocation_date(entry.time)
                .build()
            )
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def may_sign_lists(certificate: x509.Certificate) -> bool:
    """Whether its key usage allows it."""
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return True


def roots_without(bundle: str, signers: Iterable[Authority]) -> tuple[str, ...]:
    """Which roots of a bundle (PEM) belong to no signer: whatever they signed has no list, and is refused.

    The root above an intermediate signs no leaves, so it needs none as long as only leaves are looked up.
    """
    ours = {root.subject for signer in signers for root in signer.roots[:1]}
    roots = x509.load_pem_x509_certificates(bundle.encode())
    return tuple(root.subject.rfc4514_string() for root in roots if root.subject not in ours)


def revokes(lists: str, serial: int) -> bool:
    """Whether one of these lists has the certificate."""
    return any(found.get_revoked_certificate_by_serial_number(serial) is not None for found in _lists(lists))


def read_lists(pem: str) -> Mapping[str, frozenset[str]]:
    """Serial numbers by issuer's name, of lists in PEM."""
    return {
        found.issuer.rfc4514_string(): frozenset(f"{entry.serial_number:x}" for entry in found)
        for found in _lists(pem)
    }


def _lists(pem: str) -> list[x509.CertificateRevocationList]:
    mark = "-----END X509 CRL-----"
    return [
        x509.load_pem_x509_crl((part + mark).encode())
        for part in pem.split(mark)
        if "-----BEGIN X509 CRL-----" in part
    ]
