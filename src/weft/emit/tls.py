"""Transport sockets: which certificate, whom to trust, which protocols to offer."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address
from typing import Final

from weft.emit.peer_names import of_domains
from weft.emit.scalars import boolean, duration, text
from weft.ir.match import TextMatch, TextTest
from weft.ir.tls import DownstreamTls, SecretFrom, SecretRef, TlsLimits, TlsVersion, UpstreamTls
from weft.names import (
    WORKLOAD_CERTIFICATE_FILE,
    WORKLOAD_TRUST_BUNDLE,
    WORKLOAD_TRUST_BUNDLE_FILE,
)
from weft.protos import core_v3, quic_v3, raw_buffer_v3, tls_v3
from weft.protos.wire import pack

TLS_SOCKET: Final = "envoy.transport_sockets.tls"
QUIC_SOCKET: Final = "envoy.transport_sockets.quic"
RAW_SOCKET: Final = "envoy.transport_sockets.raw_buffer"

_SYSTEM_BUNDLE: Final = "/etc/ssl/certs/ca-certificates.crt"


def _version(version: TlsVersion | None) -> tls_v3.TlsParameters.TlsProtocol.ValueType:
    protocol = tls_v3.TlsParameters.TlsProtocol
    match version:
        case None:
            return protocol.TLS_AUTO
        case TlsVersion.V1_0:
            return protocol.TLSv1_0
        case TlsVersion.V1_1:
            return protocol.TLSv1_1
        case TlsVersion.V1_2:
            return protocol.TLSv1_2
        case TlsVersion.V1_3:
            return protocol.TLSv1_3


def _parameters(limits: TlsLimits) -> tls_v3.TlsParameters | None:
    if limits == TlsLimits():
        return None
    return tls_v3.TlsParameters(
        tls_minimum_protocol_version=_version(limits.minimum),
        tls_maximum_protocol_version=_version(limits.maximum),
        cipher_suites=limits.cipher_suites,
        ecdh_curves=limits.groups,
    )


def _file_source(name: str) -> core_v3.ConfigSource:
    """A file in Envoy's working directory, which is the workload's: so the bytes fit every proxy."""
    return core_v3.ConfigSource(
        path_config_source=core_v3.PathConfigSource(
            path=name, watched_directory=core_v3.WatchedDirectory(path=".")
        ),
        resource_api_version=core_v3.ApiVersion.V3,
    )


def ads_source() -> core_v3.ConfigSource:
    """From the control plane, over the one stream. No time limit: what is missing holds only itself up."""
    return core_v3.ConfigSource(
        ads=core_v3.AggregatedConfigSource(),
        initial_fetch_timeout=duration(timedelta(0)),
        resource_api_version=core_v3.ApiVersion.V3,
    )


def _sds(secret: SecretRef) -> tls_v3.SdsSecretConfig:
    if secret.source is SecretFrom.ADS:
        return tls_v3.SdsSecretConfig(
            name=secret.name,
            sds_config=core_v3.ConfigSource(
                ads=core_v3.AggregatedConfigSource(), resource_api_version=core_v3.ApiVersion.V3
            ),
        )
    bundle = secret.name == WORKLOAD_TRUST_BUNDLE
    file = WORKLOAD_TRUST_BUNDLE_FILE if bundle else WORKLOAD_CERTIFICATE_FILE
    return tls_v3.SdsSecretConfig(name=secret.name, sds_config=_file_source(file))


def _pem(path: str) -> core_v3.DataSource:
    return core_v3.DataSource(filename=path)


def _san_type(match: TextMatch) -> tls_v3.SubjectAltNameMatcher.SanType.ValueType:
    """What a certificate calls a name of this form; Envoy compares with those of one kind only."""
    kind = tls_v3.SubjectAltNameMatcher.SanType
    if match.test is TextTest.REGEX:
        return kind.URI if "spiffe" in match.value or "://" in match.value else kind.DNS
    if "://" in match.value or match.value.startswith("urn:"):
        return kind.URI
    if "@" in match.value:
        return kind.EMAIL
    return kind.IP_ADDRESS if _is_address(match.value) else kind.DNS


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _names(names: tuple[TextMatch, ...]) -> list[tls_v3.SubjectAltNameMatcher]:
    return [tls_v3.SubjectAltNameMatcher(san_type=_san_type(name), matcher=text(name)) for name in names]


def _demand_uri(validation: tls_v3.CertificateValidationContext) -> None:
    """The validator for several trust domains compares URIs only, and without any it would take everybody:
    then one is demanded that nobody has.
    """
    kind = tls_v3.SubjectAltNameMatcher.SanType
    if all(name.san_type != kind.URI for name in validation.match_typed_subject_alt_names):
        nobody = TextMatch(test=TextTest.EXACT, value="spiffe://nobody.invalid/")
        validation.match_typed_subject_alt_names.extend(_names((nobody,)))


def _identity(
    context: tls_v3.CommonTlsContext,
    certificates: tuple[SecretRef, ...],
    trust: SecretRef | None,
    validation: tls_v3.CertificateValidationContext,
) -> None:
    """Fill in whose certificate is shown and which peers are accepted."""
    for secret in certificates:
        if secret.source is SecretFrom.PATHS:
            context.tls_certificates.add(
                certificate_chain=_pem(secret.certificate_path), private_key=_pem(secret.key_path)
            )
        else:
            context.tls_certificate_sds_secret_configs.append(_sds(secret))
    if trust is None:
        return
    if trust.name == WORKLOAD_TRUST_BUNDLE and validation.match_typed_subject_alt_names:
        _demand_uri(validation)
    if trust.revoked_path:
        validation.crl.CopyFrom(_pem(trust.revoked_path))
    if trust.source is SecretFrom.PATHS:
        validation.trusted_ca.CopyFrom(_pem(trust.bundle_path))
    elif trust.source is SecretFrom.SYSTEM:
        validation.trusted_ca.CopyFrom(_pem(_SYSTEM_BUNDLE))
    else:
        combined = context.combined_validation_context
        combined.default_validation_context.CopyFrom(validation)
        combined.validation_context_sds_secret_config.CopyFrom(_sds(trust))
        return
    context.validation_context.CopyFrom(validation)


def _socket(context: tls_v3.DownstreamTlsContext | tls_v3.UpstreamTlsContext) -> core_v3.TransportSocket:
    return core_v3.TransportSocket(name=TLS_SOCKET, typed_config=pack(context))


def downstream(tls: DownstreamTls) -> core_v3.TransportSocket:
    """The server's side."""
    return _socket(_downstream(tls))


def quic(tls: DownstreamTls) -> core_v3.TransportSocket:
    """The server's side of QUIC."""
    context = quic_v3.QuicDownstreamTransport(downstream_tls_context=_downstream(tls))
    return core_v3.TransportSocket(name=QUIC_SOCKET, typed_config=pack(context))


def _downstream(tls: DownstreamTls) -> tls_v3.DownstreamTlsContext:
    # The domains are an allow list of their own, unless names say more.
    names = _names(tls.peer_names) or of_domains(tls.peer_trust_domains)
    validation = tls_v3.CertificateValidationContext(
        match_typed_subject_alt_names=names,
        verify_certificate_hash=tls.peer_certificate_hashes,
        verify_certificate_spki=tls.peer_certificate_spkis,
    )
    if tls.accept_untrusted:
        validation.trust_chain_verification = (
            tls_v3.CertificateValidationContext.TrustChainVerification.ACCEPT_UNTRUSTED
        )
    context = tls_v3.DownstreamTlsContext(
        common_tls_context=tls_v3.CommonTlsContext(
            tls_params=_parameters(tls.limits), alpn_protocols=tls.alpn
        ),
        require_client_certificate=boolean(tls.require_client_certificate),
    )
    _identity(context.common_tls_context, tls.certificates, tls.trust, validation)
    return context


def upstream(tls: UpstreamTls) -> core_v3.TransportSocket:
    """The client's side: TLS 1.2 to 1.3, as Istio has it, where Envoy's own default ends at 1.2."""
    limits = replace(
        tls.limits,
        minimum=tls.limits.minimum or TlsVersion.V1_2,
        maximum=tls.limits.maximum or TlsVersion.V1_3,
    )
    validation = tls_v3.CertificateValidationContext(match_typed_subject_alt_names=_names(tls.peer_names))
    context = tls_v3.UpstreamTlsContext(
        common_tls_context=tls_v3.CommonTlsContext(tls_params=_parameters(limits), alpn_protocols=tls.alpn),
        sni=tls.sni,
    )
    certificates = (tls.certificate,) if tls.certificate else ()
    _identity(context.common_tls_context, certificates, tls.trust, validation)
    return _socket(context)


def plain() -> core_v3.TransportSocket:
    """No TLS."""
    return core_v3.TransportSocket(name=RAW_SOCKET, typed_config=pack(raw_buffer_v3.RawBuffer()))
