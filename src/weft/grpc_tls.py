"""TLS of the gRPC ports: a client certificate is required, and the server's own is renewed while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc
from cryptography import x509

_UNREADABLE: Final = (
    IndexError,
    ValueError,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class Certificates:
    """What the server shows, and whom it believes. PEM."""

    chain: bytes
    key: bytes
    roots: bytes


def server_credentials(certificates: Callable[[], Certificates]) -> grpc.ServerCredentials:
    """Ask for the certificate at every handshake, so that the server's own is renewed without a restart.

    ``certificates`` is called from another thread.
    """
    shown = certificates()

    def configuration(current: Certificates) -> Any:
        return grpc.ssl_server_certificate_configuration(
            ((current.key, current.chain),), root_certificates=current.roots
        )

    def fetch() -> Any:
        nonlocal shown
        current = certificates()
        if current is shown or current == shown:
            return None  # as before
        shown = current
        return configuration(current)

    return grpc.dynamic_ssl_server_credentials(
        configuration(shown), fetch, require_client_authentication=True
    )


def peer_serial(context: Any) -> str:
    """The serial number (hexadecimal) of the client's certificate; empty if it has none."""
    shown = context.auth_context().get("x509_pem_cert", ())
    return f"{x509.load_pem_x509_certificate(shown[0]).serial_number:x}" if shown else ""


def spiffe_id(context: Any) -> str | None:
    """The one URI in the client's certificate; None if it has none, several, or is an authority's.

    What gRPC itself says (``peer_spiffe_id``) ends where there is a NUL: another name would pass for it.
    """
    shown = context.auth_context().get("x509_pem_cert", ())
    try:
        leaf = x509.load_pem_x509_certificate(shown[0])
        if leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return None
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = names.get_values_for_type(x509.UniformResourceIdentifier)
    except _UNREADABLE:
        return None
    return found[0] if len(found) == 1 else None
