"""Istio's Gateway: its servers, for the proxies that its selector names."""

from __future__ import annotations

from typing import Final

from weft import ir
from weft.compile.inbound import peer_tls
from weft.compile.protocol import Protocol, parse_protocol
from weft.compile.server import Server, Speaks
from weft.compile.service import Labels
from weft.compile.settings import Settings
from weft.model.istio_gateway import Gateway
from weft.model.istio_gateway import Server as Resource
from weft.model.server_tls import ServerTLSSettings
from weft.names import GATEWAY_SECRET_SCHEME

_VERSIONS: Final = {
    "TLSV1_0": ir.TlsVersion.V1_0,
    "TLSV1_1": ir.TlsVersion.V1_1,
    "TLSV1_2": ir.TlsVersion.V1_2,
    "TLSV1_3": ir.TlsVersion.V1_3,
}


def selects(gateway: Gateway, labels: Labels) -> bool:
    """Whether a gateway is for a proxy with these labels; without a selector it is for all."""
    return set(labels).issuperset((gateway.spec.selector or {}).items())


def servers(gateway: Gateway, proxy_namespace: str, settings: Settings) -> tuple[Server, ...]:
    """A gateway's servers. Its secrets are those of the proxy's namespace, as in Istio."""
    found: list[Server] = []
    for place, server in enumerate(gateway.spec.servers or ()):
        speaks = _speaks(server)
        if speaks is None:
            continue
        name = server.port.name or f"{place}"
        found.append(
            Server(
                gateway=f"{gateway.metadata.namespace}/{gateway.metadata.name}",
                port=server.port.number,
                name=name,
                speaks=speaks,
                hosts=tuple(_host(host) for host in server.hosts or ()),
                bind=server.bind or "",
                tls=_tls(server.tls, speaks, proxy_namespace, settings) if server.tls else None,
                redirect=bool(server.tls and server.tls.https_redirect) and speaks is Speaks.HTTP,
                source=gateway.key,
            )
        )
    return tuple(found)


def _host(text: str) -> tuple[str, str]:
    """``namespace/host`` or ``host``, which stands for every namespace."""
    namespace, slash, host = text.rpartition("/")
    return (namespace if slash else "*", host.lower())


def _speaks(server: Resource) -> Speaks | None:
    protocol = parse_protocol(server.port.protocol or "")
    mode = str(server.tls.mode) if server.tls is not None and server.tls.mode is not None else None
    if protocol is Protocol.HTTPS or protocol is Protocol.TLS:
        if mode in {"PASSTHROUGH", "AUTO_PASSTHROUGH"} or server.tls is None:
            return Speaks.PASSTHROUGH
        return Speaks.HTTPS if protocol is Protocol.HTTPS else Speaks.TLS
    if protocol.is_http:
        return Speaks.HTTP
    return Speaks.TCP if protocol is Protocol.TCP else None


def _tls(
    tls: ServerTLSSettings, speaks: Speaks, namespace: str, settings: Settings
) -> ir.DownstreamTls | None:
    """What the server ends; None where it ends nothing."""
    if speaks not in {Speaks.HTTPS, Speaks.TLS}:
        return None
    mode = str(tls.mode or "SIMPLE")
    limits = ir.TlsLimits(
        minimum=_VERSIONS.get(str(tls.min_protocol_version), ir.TlsVersion.V1_2),
        maximum=_VERSIONS.get(str(tls.max_protocol_version)),
        cipher_suites=tuple(tls.cipher_suites or ()),
    )
    alpn = ("h2", "http/1.1") if speaks is Speaks.HTTPS else ()
    if mode == "ISTIO_MUTUAL":
        own = peer_tls(settings, http=True)
        return ir.DownstreamTls(
            certificates=own.certificates,
            trust=own.trust,
            require_client_certificate=True,
            peer_trust_domains=own.peer_trust_domains,
            alpn=alpn,
            limits=limits,
        )
    verified = mode in {"MUTUAL", "OPTIONAL_MUTUAL"}
    return ir.DownstreamTls(
        certificates=_certificates(tls, namespace),
        trust=_trust(tls, namespace) if verified else None,
        require_client_certificate=mode == "MUTUAL",
        peer_names=tuple(
            ir.TextMatch(test=ir.TextTest.EXACT, value=name) for name in tls.subject_alt_names or ()
        ),
        peer_certificate_hashes=tuple(tls.verify_certificate_hash or ()),
        peer_certificate_spkis=tuple(tls.verify_certificate_spki or ()),
        alpn=alpn,
        limits=limits,
    )


def _certificates(tls: ServerTLSSettings, namespace: str) -> tuple[ir.SecretRef, ...]:
    names = tls.credential_names or ((tls.credential_name,) if tls.credential_name else ())
    if names:
        return tuple(
            ir.SecretRef(source=ir.SecretFrom.ADS, name=secret_name(name, namespace)) for name in names
        )
    pairs = [(part.server_certificate, part.private_key) for part in tls.tls_certificates or ()]
    if tls.server_certificate and tls.private_key:
        pairs.insert(0, (tls.server_certificate, tls.private_key))
    return tuple(
        ir.SecretRef(
            source=ir.SecretFrom.PATHS,
            name=f"file-cert:{certificate}~{key}",
            certificate_path=certificate,
            key_path=key,
        )
        for certificate, key in pairs
        if certificate and key
    )


def _trust(tls: ServerTLSSettings, namespace: str) -> ir.SecretRef | None:
    if tls.ca_cert_credential_name:
        return ir.SecretRef(
            source=ir.SecretFrom.ADS, name=f"{secret_name(tls.ca_cert_credential_name, namespace)}-cacert"
        )
    if tls.credential_name:
        return ir.SecretRef(
            source=ir.SecretFrom.ADS, name=f"{secret_name(tls.credential_name, namespace)}-cacert"
        )
    if tls.ca_certificates:
        path = tls.ca_certificates
        return ir.SecretRef(source=ir.SecretFrom.PATHS, name=f"file-root:{path}", bundle_path=path)
    return None


def secret_name(name: str, namespace: str) -> str:
    """What a Secret is called over SDS."""
    return f"{GATEWAY_SECRET_SCHEME}{namespace}/{name}"
