"""Certificates and TLS settings, by reference: no key material is ever in the IR."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from weft.ir.match import TextMatch


class SecretFrom(StrEnum):
    """Where Envoy gets a secret.

    ``FILE``: the workload's own file SDS (``default``, ``ROOTCA``). ``ADS``: from the control plane,
    as ``kubernetes-gateway://NS/NAME`` or ``…-cacert``. ``PATHS``: PEM files on the proxy's host.
    ``SYSTEM``: the host's own trusted certificates.
    """

    FILE = "file"
    ADS = "ads"
    PATHS = "paths"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRef:
    """A certificate with its key, or a bundle of trusted certificates. Paths only with ``PATHS``.

    ``revoked_path``: revocation lists beside a bundle, with ``SYSTEM`` too.
    """

    source: SecretFrom
    name: str
    certificate_path: str = ""
    key_path: str = ""
    bundle_path: str = ""
    revoked_path: str = ""


class TlsVersion(StrEnum):
    """TLS protocol versions."""

    V1_0 = "1.0"
    V1_1 = "1.1"
    V1_2 = "1.2"
    V1_3 = "1.3"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsLimits:
    """What a handshake may use; empty and None leave Envoy's default."""

    minimum: TlsVersion | None = None
    maximum: TlsVersion | None = None
    cipher_suites: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DownstreamTls:
    """TLS that a listener terminates. ``trust`` set means: client certificates are verified.

    ``peer_names`` are tests of the client's SANs (URI SANs when ``peer_spiffe``); empty means any
    certificate that ``trust`` accepts. ``peer_trust_domains`` limits SPIFFE URIs to these domains.
    ``accept_untrusted``: a certificate that ``trust`` does not accept is let in all the same.
    """

    certificates: tuple[SecretRef, ...]
    trust: SecretRef | None = None
    require_client_certificate: bool = False
    accept_untrusted: bool = False
    peer_trust_domains: tuple[str, ...] = ()
    peer_names: tuple[TextMatch, ...] = ()
    peer_certificate_hashes: tuple[str, ...] = ()
    peer_certificate_spkis: tuple[str, ...] = ()
    alpn: tuple[str, ...] = ()
    limits: TlsLimits = TlsLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamTls:
    """TLS that a cluster originates.

    ``peer_names``: acceptable SANs; URIs (``spiffe://…``) are compared with URI SANs, others with DNS SANs.
    ``sni`` empty means none, unless ``sni_from_host``: the request's host; ``san_from_host``: then the
    certificate must bear that name, too.
    ``trust`` None means: the peer is not verified.
    """

    sni: str = ""
    sni_from_host: bool = False
    san_from_host: bool = True
    certificate: SecretRef | None = None
    trust: SecretRef | None = None
    peer_names: tuple[TextMatch, ...] = ()
    alpn: tuple[str, ...] = ()
    limits: TlsLimits = TlsLimits()
