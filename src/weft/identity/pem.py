"""Keys, certificates and requests as PEM: what is accepted, and how a refusal is worded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from weft.errors import WeftError

_CSR_MAX_BYTES: Final = 16 * 1024
_PEM_MAX_BYTES: Final = 256 * 1024


class AuthorityError(WeftError):
    """Key material cannot be used as an authority."""


class RequestError(AuthorityError):
    """A certificate request cannot be honoured, whoever sends it."""


def read_request(csr: str) -> ec.EllipticCurvePublicKey:
    """The public key of a certificate request (PEM), whose signature proves that the asker holds it.

    Raises:
        RequestError: too large, not PEM, another kind of key than P-256, or a signature that does not match.
    """
    if len(csr) > _CSR_MAX_BYTES:
        raise RequestError(
            f"the certificate request has {len(csr)} bytes, more than {_CSR_MAX_BYTES}",
            hint="send a request for one P-256 key, without further attributes",
        )
    try:
        request = x509.load_pem_x509_csr(csr.encode())
        key = request.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise RequestError("the key of the certificate request is not P-256", hint="make a P-256 key")
        signed = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise RequestError(
            "this is not a certificate request", hint="send it as PEM: BEGIN CERTIFICATE REQUEST"
        ) from error
    if not signed:
        raise RequestError(
            "the signature of the certificate request does not match its key",
            hint="sign the request with the key that it is for",
        )
    return key


def read_certificates(pem: bytes) -> tuple[x509.Certificate, ...]:
    """All certificates of a PEM text, in order; at least one.

    Raises:
        AuthorityError: when there is none, or one cannot be read.
    """
    try:
        if len(pem) > _PEM_MAX_BYTES:
            raise ValueError("too large")
        return tuple(x509.load_pem_x509_certificates(pem))
    except (ValueError, x509.InvalidVersion) as error:
        raise AuthorityError("these are no certificates", hint="give them as PEM") from error


def write_certificates(certificates: Iterable[x509.Certificate]) -> str:
    """PEM, in order."""
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)


def write_key(key: ec.EllipticCurvePrivateKey) -> str:
    """PKCS 8, PEM, not encrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def read_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """A P-256 private key (PEM, not encrypted).

    Raises:
        AuthorityError: for anything else.
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise AuthorityError(
            "this is no private key that can be read", hint="give it as PEM, not encrypted"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise AuthorityError("the private key is not P-256", hint="make the authority with a P-256 key")
    return key
