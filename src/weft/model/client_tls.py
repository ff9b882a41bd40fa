"""TLS of the clients of a service, as a DestinationRule states it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from weft.model.base import Flaw, Shape, wire_name
from weft.model.scalars import Bool, Text

_CONFIG_MAP: Final = "configmap://"


class ClientTLSSettings(Shape):
    """TLS of the clients of a service."""

    ca_certificates: Text | None = None
    ca_crl: Text | None = None
    client_certificate: Text | None = None
    credential_name: Text | None = None
    """A Secret with the certificates; for gateways."""
    insecure_skip_verify: Bool | None = None
    mode: Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"] | None = None
    """ISTIO_MUTUAL uses the mesh's certificates."""
    private_key: Text | None = None
    sni: Text | None = None
    """The server name that is sent."""
    subject_alt_names: tuple[Text, ...] | None = None
    """Names that the server's certificate may bear."""

    def flaws(self) -> Iterator[Flaw]:
        """A client certificate where it is needed, by files or by the name of a Secret."""
        secret = self.credential_name
        if self.insecure_skip_verify:
            unused = {"MUTUAL": ("ca_certificates",), "SIMPLE": ("ca_certificates", "credential_name")}
            for name in unused.get(self.mode or "", ()):
                if getattr(self, name):
                    yield Flaw(
                        (wire_name(self, name),), "insecureSkipVerify: nothing is verified", "remove it"
                    )
            if self.mode in unused and self.subject_alt_names:
                yield Flaw(("subjectAltNames",), "insecureSkipVerify: nothing is verified", "remove it")
        if secret and self.mode in {"SIMPLE", "MUTUAL"}:
            if self.client_certificate or self.private_key or self.ca_certificates or self.ca_crl:
                yield Flaw(("credentialName",), "certificates are given by files too", "keep one of them")
        elif self.mode == "MUTUAL":
            files = {"clientCertificate": self.client_certificate, "privateKey": self.private_key}
            for name, value in files.items():
                if not value:
                    yield Flaw((name,), f"mode MUTUAL needs {name}", "or name a Secret with credentialName")

    def misplaced(self, namespace: str) -> Iterator[Flaw]:
        """A ConfigMap with authorities is of the rule's own namespace."""
        name = self.credential_name or ""
        if name.startswith(_CONFIG_MAP):
            parts = name.removeprefix(_CONFIG_MAP).split("/")
            if len(parts) < 2 or not parts[1] or parts[0] != namespace:
                yield Flaw(("credentialName",), f"write {_CONFIG_MAP}{namespace}/NAME")
