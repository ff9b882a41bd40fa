"""An intermediate that others sign: how it is asked for, and in which files it is handed over.

cert-manager writes ``tls.crt``, ``tls.key`` and ``ca.crt``; Istio's ``cacerts`` has ``ca-cert.pem``,
``ca-key.pem``, ``cert-chain.pem`` and ``root-cert.pem``. Vault signs a request (``ask``): its key stays.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from secrets import token_hex
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from weft.identity.ca import Authority
from weft.identity.pem import AuthorityError, write_key
from weft.names import TRUST_DOMAIN

# key, chain, roots; the first form that is complete is taken. Istio's chain begins with the signing
# certificate, as cert-manager's does.
_FORMS: Final = (
    ("tls.key", "tls.crt", "ca.crt"),
    ("ca-key.pem", "cert-chain.pem", "root-cert.pem"),
)
_ISTIO_CERTIFICATE: Final = "ca-cert.pem"


def find_files(directory: Path) -> tuple[Path, Path, Path]:
    """Key, chain and roots of a directory, whichever tool wrote them.

    Raises:
        AuthorityError: none of the forms is complete.
    """
    for names in _FORMS:
        key, chain, roots = (directory / name for name in names)
        if key.is_file() and roots.is_file():
            if chain.is_file():
                return key, chain, roots
            if (single := directory / _ISTIO_CERTIFICATE).is_file():
                return key, single, roots
    raise AuthorityError(
        f"{directory} holds no authority",
        hint="cert-manager's tls.key, tls.crt and ca.crt, or Istio's ca-key.pem, ca-cert.pem, "
        "cert-chain.pem and root-cert.pem",
    )


def ask(trust_domain: str = TRUST_DOMAIN) -> tuple[str, str]:
    """A new key (PEM), to be kept, and a request for an intermediate (PEM), to be signed elsewhere."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "weft"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"weft intermediate {token_hex(4)}"),
        ]
    )
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False,
                key_cert_sign=True,
                crl_sign=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    return write_key(key), request.public_bytes(Encoding.PEM).decode()


def check_trusted(given: Authority, present: Authority) -> None:
    """That an authority may take over without anybody's word: its root is trusted already.

    Raises:
        AuthorityError: it is not.
    """
    if given.roots[0] not in present.roots:
        raise AuthorityError(
            f"{given.issuer.subject.rfc4514_string()} does not lead to a root that this mesh trusts",
            hint="have it signed under the present root, or replace the root: weft ca rotate --dir DIRECTORY",
        )


def install(
    key_pem: bytes, chain_pem: bytes, roots_pem: bytes, *, now: datetime, trust_domain: str
) -> Authority:
    """The authority of a request that was signed.

    Raises:
        AuthorityError: the chain is for another request, or leads to no given root.
    """
    try:
        return Authority.bring(key_pem, chain_pem, roots_pem, now=now, trust_domain=trust_domain)
    except AuthorityError as error:
        if "does not belong" not in error.message:
            raise
        raise AuthorityError(
            "this certificate was not made for the last request",
            hint="sign the request that 'weft ca request' printed last, and install its chain",
        ) from error
