"""Secrets over SDS: bytes in, Envoy's message out. Nothing of them is ever printed."""

from __future__ import annotations

from weft.emit.packed import Packed, pack
from weft.protos import core_v3, tls_v3


def certificate(name: str, chain: bytes, key: bytes, staple: bytes = b"") -> Packed:
    """A chain with its key, in PEM; ``staple`` is an OCSP response in DER."""
    message = tls_v3.TlsCertificate(certificate_chain=_inline(chain), private_key=_inline(key))
    if staple:
        message.ocsp_staple.CopyFrom(_inline(staple))
    return pack(name, tls_v3.Secret(name=name, tls_certificate=message))


def authorities(name: str, bundle: bytes, revoked: bytes = b"") -> Packed:
    """Whom to trust, in PEM, and a list of what they revoked."""
    message = tls_v3.CertificateValidationContext(trusted_ca=_inline(bundle))
    if revoked:
        message.crl.CopyFrom(_inline(revoked))
    return pack(name, tls_v3.Secret(name=name, validation_context=message))


def _inline(body: bytes) -> core_v3.DataSource:
    return core_v3.DataSource(inline_bytes=body)
