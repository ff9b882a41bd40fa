"""TLS of a port, as Istio's Gateway and Sidecar state it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape, at_most_one
from weft.model.scalars import Bool, Text


class TLSCertificate(Shape):
    """A certificate by the paths of its files."""

    ca_certificates: Text | None = None
    private_key: Text | None = None
    server_certificate: Text | None = None


class ServerTLSSettings(Shape):
    """TLS of a port."""

    ca_cert_credential_name: Text | None = None
    ca_certificates: Text | None = None
    ca_crl: Text | None = None
    cipher_suites: tuple[Text, ...] | None = None
    credential_name: Text | None = None
    """The Secret with the certificate, of the gateway's namespace."""
    credential_names: Annotated[tuple[Text, ...], Field(min_length=1, max_length=2)] | None = None
    https_redirect: Bool | None = None
    """Sends plain HTTP to HTTPS."""
    insecure_skip_verify: Bool | None = None
    max_protocol_version: Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"] | None = None
    min_protocol_version: Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"] | None = None
    mode: (
        Literal["PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"]
        | None
    ) = None
    """SIMPLE proves the server, MUTUAL the client too, PASSTHROUGH hands TLS on."""
    private_key: Text | None = None
    server_certificate: Text | None = None
    subject_alt_names: tuple[Text, ...] | None = None
    tls_certificates: Annotated[tuple[TLSCertificate, ...], Field(min_length=1, max_length=2)] | None = None
    verify_certificate_hash: tuple[Text, ...] | None = None
    verify_certificate_spki: tuple[Text, ...] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """The certificate comes from one place, and there is one where the mode needs it."""
        yield from at_most_one(self, "credential_name", "credential_names", "tls_certificates")
        named = self.credential_name or self.credential_names or self.tls_certificates
        if self.mode in {"SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL"} and not named:
            for name, value in (
                ("serverCertificate", self.server_certificate),
                ("privateKey", self.private_key),
            ):
                if not value:
                    yield Flaw(
                        (name,), f"mode {self.mode} needs {name}", "or name a Secret with credentialName"
                    )
