"""The hash of a public key. A join token names the root that a node shall trust by it."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode

from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def spki_sha256(key: CertificatePublicKeyTypes) -> str:
    """SHA-256 of the SubjectPublicKeyInfo, base64url without padding (43 characters).

    The key and not its certificate: a root that is renewed with its key keeps its pin (RFC 7469).
    """
    info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return urlsafe_b64encode(hashlib.sha256(info).digest()).rstrip(b"=").decode()
