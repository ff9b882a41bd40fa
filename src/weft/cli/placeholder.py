"""Stand-ins for secrets, so that a printed bootstrap can be started without any real key in it."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable
from functools import cache
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_BIRTH: Final = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_DEATH: Final = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)
_NAME: Final = "weft placeholder, trusted by nobody"


@cache
def _pair() -> tuple[str, str]:
    """A self-signed certificate and its key. Everybody can derive them: the same text each time."""
    secret = int.from_bytes(hashlib.sha256(_NAME.encode()).digest()[:31], "big")
    key = ec.derive_private_key(secret, ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _NAME)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(_BIRTH)
        .not_valid_after(_DEATH)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(encoding).decode(), private.decode()


def placeholders(certificates: Iterable[str], bundles: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Secrets by name, in the JSON form of Envoy's Secret."""
    certificate, key = _pair()
    return {
        **{
            name: {
                "name": name,
                "tls_certificate": {
                    "certificate_chain": {"inline_string": certificate},
                    "private_key": {"inline_string": key},
                },
            }
            for name in certificates
        },
        **{
            name: {"name": name, "validation_context": {"trusted_ca": {"inline_string": certificate}}}
            for name in bundles
        },
    }
