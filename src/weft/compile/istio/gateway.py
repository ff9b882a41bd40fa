"""Istio's Gateway: its servers, for the proxies that its selector names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
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

_BULK: Final = (("128", "GCM-SHA256"), ("256", "GCM-SHA384"), ("128", "SHA"), ("256", "SHA"))
VERSIONS: Final = {
    "TLSV1_0": ir.TlsVersion.V1_0,
    "TLSV1_1": ir.TlsVersion.V1_1,
    "TLSV1_2": ir.TlsVersion.V1_2,
    "TLSV1_3": ir.TlsVersion.V1_3,
}
_SECRET_SCHEME: Final = "kubernetes://"  # noqa: S105
CIPHERS: Final = frozenset(
    {f"ECDHE-{key}-AES{size}-{rest}" for key in ("ECDSA", "RSA") for size, rest in _BULK}
    | {f"AES{size}-{rest}" for size, rest in _BULK}
    | {"ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305", "DES-CBC3-SHA"}
)


def selects(gateway: Gateway, labels: Labels) -> bool:
    """Whether a gateway is for a proxy with these labels; without a selector it is for all."""
    return set(labels).issuperset((gateway.spec.selector or {}).items())


def servers(gateway: Gateway, proxy_namespace: str, settings: Settings) -> tuple[Server, ...]:
    """A gateway's servers. Its secrets are those of the proxy's namespace, as in Istio."""
    found: list[Server] = []
    for place, server in enumerate(gateway.spec.servers or ()):
        speaks = speaks_of(server)
        if speaks is None:
            continue
        name = server.port.name or f"{place}"
        space = gateway.metadata.namespace
        found.append(
            Server(
                gateway=f"{space}/{gateway.metadata.name}",
                port=server.port.number,
                name=name,
                speaks=speaks,
                hosts=tuple(dict.fromkeys(_host(host, space) for host in server.hosts or ())),
                bind=server.bind or "",
                tls=server_tls(server.tls, speaks, proxy_namespace, settings) if server.tls else None,
                redirect=bool(server.tls and server.tls.https_redirect),
                secured=server.tls is not None,
                automatic=server.tls is not None and server.tls.mode == "AUTO_PASSTHROUGH",
                place=place,
                source=gateway.key,
            )
        )
    return tuple(found)


def _host(text: str, own: str) -> tuple[str, str]:
    """``namespace/host`` or ``host``, which stands for every namespace; ``.`` is the Gateway's own."""
    namespace, slash, host = text.rpartition("/")
    return (own if namespace == "." else namespace if slash else "*", host.lower())


def speaks_of(server: Resource) -> Speaks | None:
    """What a port speaks; None for a protocol that no gateway can. TLS without a mode passes through."""
    protocol = parse_protocol(server.port.protocol or "")
    if protocol.is_http:
        return Speaks.HTTP
    if protocol not in {Protocol.HTTPS, Protocol.TLS, Protocol.TCP}:
        return None
    if server.tls is None:
        return Speaks.TCP if protocol is Protocol.TCP else Speaks.PASSTHROUGH
    if server.tls.mode in {None, "PASSTHROUGH", "AUTO_PASSTHROUGH"}:
        return Speaks.PASSTHROUGH
    return Speaks.HTTPS if protocol is Protocol.HTTPS else Speaks.TLS


def server_tls(
    tls: ServerTLSSettings, speaks: Speaks, namespace: str, settings: Settings
) -> ir.DownstreamTls | None:
    """What the server ends; None where it ends nothing."""
    if speaks not in {Speaks.HTTPS, Speaks.TLS}:
        return None
    mode = str(tls.mode)
    names = tuple(ir.TextMatch(test=ir.TextTest.EXACT, value=name) for name in tls.subject_alt_names or ())
    if mode == "ISTIO_MUTUAL":
        own = peer_tls(settings, http=speaks is Speaks.HTTPS)
        return replace(own, peer_names=names, accept_untrusted=bool(tls.insecure_skip_verify))
    defaults = settings.tls_limits
    limits = ir.TlsLimits(
        minimum=VERSIONS.get(str(tls.min_protocol_version), defaults.minimum or ir.TlsVersion.V1_2),
        maximum=VERSIONS.get(str(tls.max_protocol_version)),
        cipher_suites=known_ciphers(tls.cipher_suites or ()) or defaults.cipher_suites,
        groups=known_groups(tls.ecdh_curves or ()) or defaults.groups,
    )
    verified = mode in {"MUTUAL", "OPTIONAL_MUTUAL"}
    return ir.DownstreamTls(
        certificates=_certificates(tls, namespace),
        trust=_trust(tls, namespace) if verified else None,
        require_client_certificate=mode == "MUTUAL",
        peer_names=names,
        accept_untrusted=verified and bool(tls.insecure_skip_verify),
        peer_certificate_hashes=_pins(tls.verify_certificate_hash or (), is_hash, NO_HASH),
        peer_certificate_spkis=_pins(tls.verify_certificate_spki or (), is_spki, NO_SPKI),
        alpn=("h2", "http/1.1"),
        limits=settings.enforced(limits),
    )


_ALIASES: Final = frozenset(
    {"ALL", "HIGH", "FIPS", "kRSA", "kECDHE", "kEECDH", "kPSK", "aRSA", "aECDSA", "aPSK", "ECDHE", "EECDH"}
    | {"RSA", "PSK", "AES128", "AES256", "AES", "AESGCM", "CHACHA20", "SHA", "SHA1"}
)
GROUPS: Final = frozenset(
    {"P-256", "P-384", "P-521", "X25519", "X25519MLKEM768", "MLKEM1024"}
    | {"prime256v1", "secp384r1", "secp521r1", "x25519"}
)
NO_HASH: Final = "0" * 64
NO_SPKI: Final = "A" * 43 + "="
_HASH: Final = re.compile("[0-9a-fA-F]{64}|[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){31}")
_SPKI: Final = re.compile("[0-9a-zA-Z+/]{43}=")


def is_hash(text: str) -> bool:
    """Whether it is a certificate's SHA-256 in hex, with or without colons."""
    return _HASH.fullmatch(text) is not None


def is_spki(text: str) -> bool:
    """Whether it is a public key's SHA-256 in base64."""
    return _SPKI.fullmatch(text) is not None


def _pins(texts: Iterable[str], good: Callable[[str], bool], nobody: str) -> tuple[str, ...]:
    """Those that Envoy can read; where none is, ``nobody``'s: who pins does not mean to let all in."""
    given = tuple(texts)
    return tuple(text for text in given if good(text)) or ((nobody,) if given else ())


def known_ciphers(names: Iterable[str]) -> tuple[str, ...]:
    """The cipher suites that Envoy knows, each once: it would refuse the listener for any other."""
    return tuple(dict.fromkeys(name for name in names if is_cipher(name)))


def is_cipher(name: str) -> bool:
    """Whether Envoy knows a cipher suite, or an expression for some: ``!RSA``, ``[A|B]``, ``@STRENGTH``."""
    if name in CIPHERS or name in {"", "ALL", "@STRENGTH"}:
        return True
    inner = name[1:-1].split("|") if name[:1] == "[" and name[-1:] == "]" else [name[1:]]
    return name[:1] in {"[", "-", "+", "!"} and all(part in CIPHERS or part in _ALIASES for part in inner)


def known_groups(names: Iterable[str]) -> tuple[str, ...]:
    """The groups (curves) that Envoy knows, each once: it would refuse the listener for any other."""
    return tuple(dict.fromkeys(name for name in names if name in GROUPS))


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
    """Whom to trust: a Secret of its own, else the one with the (first) certificate, else a file."""
    name = tls.ca_cert_credential_name or tls.credential_name or next(iter(tls.credential_names or ()), "")
    if name:
        return ir.SecretRef(source=ir.SecretFrom.ADS, name=f"{secret_name(name, namespace)}-cacert")
    path = tls.ca_certificates or next((t.ca_certificates for t in tls.tls_certificates or ()), None)
    if path:
        return ir.SecretRef(
            source=ir.SecretFrom.PATHS,
            name=f"file-root:{path}",
            bundle_path=path,
            revoked_path=tls.ca_crl or "",
        )
    return None


def secret_name(name: str, namespace: str) -> str:
    """What a Secret is called over SDS; its name may tell its namespace (pilot/pkg/model/credentials)."""
    if name.startswith(GATEWAY_SECRET_SCHEME):
        return name
    plain = name.removeprefix(_SECRET_SCHEME)
    return (
        f"{GATEWAY_SECRET_SCHEME}{plain}" if "/" in plain else f"{GATEWAY_SECRET_SCHEME}{namespace}/{plain}"
    )
