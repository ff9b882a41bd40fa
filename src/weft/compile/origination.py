"""TLS of a proxy's own making, to servers that are no part of the mesh."""

from __future__ import annotations

from dataclasses import replace

from weft import ir
from weft.compile.policy import ClientTls, ClientTlsMode
from weft.names import GATEWAY_SECRET_SCHEME


def exactly(names: tuple[str, ...]) -> tuple[ir.TextMatch, ...]:
    """One of them, as a whole."""
    return tuple(ir.TextMatch(test=ir.TextTest.EXACT, value=name) for name in names)


def originated(
    tls: ClientTls, accounts: tuple[str, ...], namespace: str, defaults: ir.TlsLimits
) -> ir.UpstreamTls:
    """Plain TLS to a server that is no part of the mesh (SIMPLE, MUTUAL); ``accounts``: names it may have."""
    mutual = tls.mode is ClientTlsMode.MUTUAL
    certificate: ir.SecretRef | None = None
    if tls.credential:
        name = f"{GATEWAY_SECRET_SCHEME}{namespace}/{tls.credential}"
        certificate = ir.SecretRef(source=ir.SecretFrom.ADS, name=name) if mutual else None
        trust = ir.SecretRef(source=ir.SecretFrom.ADS, name=f"{name}-cacert")
    else:
        if mutual:
            certificate = ir.SecretRef(
                source=ir.SecretFrom.PATHS,
                name=f"file-cert:{tls.certificate_path}~{tls.key_path}",
                certificate_path=tls.certificate_path,
                key_path=tls.key_path,
            )
        given = tls.bundle_path and tls.bundle_path != "system"
        trust = ir.SecretRef(
            source=ir.SecretFrom.PATHS if given else ir.SecretFrom.SYSTEM,
            name=f"file-root:{tls.bundle_path or 'system'}",
            bundle_path=tls.bundle_path if given else "",
            revoked_path=tls.revoked_path,
        )
    return ir.UpstreamTls(
        sni=tls.sni,
        sni_from_host=not tls.sni,
        san_from_host=not tls.names,
        certificate=certificate,
        trust=None if tls.skip_verify else trust,
        peer_names=exactly(tls.names or accounts),
        limits=replace(defaults, minimum=defaults.minimum or ir.TlsVersion.V1_2),
    )
