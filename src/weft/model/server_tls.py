"""TLS of a port, as Istio's Gateway and Sidecar state it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape, at_most_one, wire_name
from weft.model.scalars import Bool, Text

_OTHERWISE: Final = "or name a Secret with credentialName"

# What the TLS library of Envoy knows, without pre-shared keys.
CIPHERS: Final = frozenset(
    {
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-RSA-AES128-SHA",
        "ECDHE-ECDSA-AES256-SHA",
        "ECDHE-RSA-AES256-SHA",
        "AES128-GCM-SHA256",
        "AES256-GCM-SHA384",
        "AES128-SHA",
        "AES256-SHA",
        "DES-CBC3-SHA",
    }
)


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
    ecdh_curves: tuple[Text, ...] | None = None
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
        yield from self._ciphers()
        files = ("ca_certificates", "private_key", "server_certificate")
        secrets = ("credential_name", "credential_names", "tls_certificates")
        if self.mode == "ISTIO_MUTUAL":
            for name in (*files, *secrets):
                if getattr(self, name):
                    path = (wire_name(self, name),)
                    yield Flaw(path, "ISTIO_MUTUAL uses the mesh's own certificates", "remove it")
            return
        if self.mode in {None, "PASSTHROUGH", "AUTO_PASSTHROUGH"}:
            for name in (*files, *secrets, "ca_crl"):
                if getattr(self, name):
                    path = (wire_name(self, name),)
                    yield Flaw(path, "TLS is passed through: this is not used", "or write a mode", warns=True)
                    break
        named = self.credential_name or self.credential_names
        if self.server_certificate and self.private_key and (named or self.tls_certificates):
            yield Flaw(("serverCertificate",), "the certificate comes from elsewhere too", "keep one of them")
        if self.mode in {"SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL"}:
            if named:
                return
            yield from self._files()
        if self.ca_crl and (self.credential_name or self.mode == "SIMPLE"):
            yield Flaw(
                ("caCrl",), "a list of revoked certificates is of no use here", "put it into the Secret"
            )

    def _ciphers(self) -> Iterator[Flaw]:
        if self.min_protocol_version in {"TLSV1_0", "TLSV1_1"} and not self.cipher_suites:
            message = f"{self.min_protocol_version} needs ciphers that are not on by default"
            yield Flaw(("minProtocolVersion",), message, "name them under cipherSuites", warns=True)
        known: set[str] = set()
        for number, name in enumerate(self.cipher_suites or ()):
            path = ("cipherSuites", number)
            if name and name != "ALL" and name[0].isalnum() and name not in CIPHERS:
                yield Flaw(
                    path, f"{name!r} is not a cipher of Envoy: it is left out", "remove it", warns=True
                )
            elif name in known:
                yield Flaw(path, f"{name!r} is there twice", "remove it", warns=True)
            known.add(name)

    def _files(self) -> Iterator[Flaw]:
        if self.mode != "SIMPLE" and not self.ca_certificates:
            yield Flaw(("caCertificates",), f"mode {self.mode} needs caCertificates", _OTHERWISE)
        paths: list[tuple[tuple[str | int, ...], str | None, str | None]] = [
            (("tlsCertificates", number), item.server_certificate, item.private_key)
            for number, item in enumerate(self.tls_certificates or ())
        ]
        for path, certificate, key in paths or [((), self.server_certificate, self.private_key)]:
            for name, value in (("serverCertificate", certificate), ("privateKey", key)):
                if not value:
                    yield Flaw((*path, name), f"mode {self.mode} needs {name}", _OTHERWISE)
