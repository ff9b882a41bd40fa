"""A certificate authority for one test, and what Envoy reads of it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from weft.identity.card import other_name
from weft.names import (
    WORKLOAD_CERTIFICATE,
    WORKLOAD_CERTIFICATE_FILE,
    WORKLOAD_TRUST_BUNDLE,
    WORKLOAD_TRUST_BUNDLE_FILE,
)

_PEM = serialization.Encoding.PEM
_SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, PEM."""

    certificate: str
    key: str

    def secret(self, name: str) -> dict[str, Any]:
        """Envoy's Secret, in JSON."""
        return {
            "name": name,
            "tls_certificate": {
                "certificate_chain": {"inline_string": self.certificate},
                "private_key": {"inline_string": self.key},
            },
        }


class TestAuthority:
    """Signs whatever a test asks for."""

    __test__ = False

    def __init__(self, name: str = "test root") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(name, self.key, (), authority=True)
        self.pem = self.certificate.public_bytes(_PEM).decode()

    def _sign(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        names: Sequence[x509.GeneralName],
        *,
        authority: bool = False,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if authority else self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if not authority:
            usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, *names: str, card: str = "") -> Pair:
        """A pair for some names: ``spiffe://…`` as URI, others as DNS. ``card``: see ``weft.card``."""
        key = ec.generate_private_key(ec.SECP256R1())
        sans: list[x509.GeneralName] = [
            x509.UniformResourceIdentifier(name) if "://" in name else x509.DNSName(name) for name in names
        ]
        if card:
            sans.append(other_name(card))
        certificate = self._sign("leaf", key, sans)
        return Pair(
            certificate.public_bytes(_PEM).decode(),
            key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode(),
        )

    def write_identity(self, directory: Path, spiffe: str, card: str = "") -> None:
        """The files from which an Envoy started in ``directory`` reads who it is and whom it trusts."""
        files = {
            WORKLOAD_CERTIFICATE_FILE: self.issue(spiffe, card=card).secret(WORKLOAD_CERTIFICATE),
            WORKLOAD_TRUST_BUNDLE_FILE: {
                "name": WORKLOAD_TRUST_BUNDLE,
                "validation_context": {"trusted_ca": {"inline_string": self.pem}},
            },
        }
        for name, secret in files.items():
            new = directory / f".{name}"
            new.write_text(json.dumps({"resources": [{"@type": _SECRET, **secret}]}))
            new.replace(directory / name)
