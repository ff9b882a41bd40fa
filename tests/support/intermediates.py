"""Intermediates, as a Vault would sign them."""

from __future__ import annotations

import datetime as dt

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from weft.identity import handover
from weft.identity.ca import BACKDATE, Authority
from weft.identity.pem import write_certificates


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def sign(root: Authority, request: str, *, days: float = 30) -> str:
    """What a Vault does with a request: a certificate (PEM) with the extensions that were asked for."""
    asked = x509.load_pem_x509_csr(request.encode())
    builder = (
        x509.CertificateBuilder()
        .subject_name(asked.subject)
        .issuer_name(root.issuer.subject)
        .public_key(asked.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - BACKDATE)
        .not_valid_after(now() + dt.timedelta(days=days))
    )
    for extension in asked.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    return write_certificates([builder.sign(root.key, hashes.SHA256())])


def intermediate(root: Authority, *, days: float = 30) -> Authority:
    """One under ``root``, asked for and installed."""
    key, request = handover.ask(root.trust_domain)
    chain = sign(root, request, days=days)
    return handover.install(
        key.encode(), chain.encode(), root.bundle.encode(), now=now(), trust_domain=root.trust_domain
    )
