"""A Gateway's listeners: which are sound, what routes they take, and what they end TLS with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from weft import ir
from weft.compile.gatewayapi.facts import GROUP, Facts
from weft.compile.istio.gateway import secret_name
from weft.model.gateway import Gateway
from weft.model.gateway import Listener as Resource

_KINDS: Final = {
    "HTTP": ("HTTPRoute", "GRPCRoute"),
    "HTTPS": ("HTTPRoute", "GRPCRoute"),
    "TLS": ("TLSRoute",),
    "TCP": ("TCPRoute",),
    "UDP": ("UDPRoute",),
}
ACCEPTED: Final = "Accepted"
NO_CONFLICT: Final = "NoConflicts"
RESOLVED: Final = "ResolvedRefs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One listener; the reasons are the specification's words, ``message`` says more.

    ``kinds`` are the kinds of routes that it takes. A listener with an unresolved certificate is
    ``broken``: its port opens for nobody.
    """

    name: str
    hostname: str
    port: int
    protocol: str
    kinds: tuple[str, ...]
    accepted: str = ACCEPTED
    conflict: str = NO_CONFLICT
    resolved: str = RESOLVED
    message: str = ""
    tls: ir.DownstreamTls | None = None
    passthrough: bool = False

    @property
    def sound(self) -> bool:
        """Whether it can serve."""
        usable = self.resolved == RESOLVED or (self.resolved == "InvalidRouteKinds" and bool(self.kinds))
        return self.accepted == ACCEPTED and self.conflict == NO_CONFLICT and usable


def listeners_of(gateway: Gateway, facts: Facts) -> tuple[Listener, ...]:
    """All listeners of a Gateway, conflicts marked on each that is part of one."""
    found: list[Listener] = []
    protocols: dict[int, set[str]] = {}
    names: dict[tuple[int, str], int] = {}
    for item in gateway.spec.listeners or ():
        protocols.setdefault(item.port, set()).add(_layer(str(item.protocol)))
        place = (item.port, str(item.hostname or "*"))
        names[place] = names.get(place, 0) + 1
    for item in gateway.spec.listeners or ():
        conflict = NO_CONFLICT
        if len(protocols[item.port]) > 1:
            conflict = "ProtocolConflict"
        elif names[item.port, str(item.hostname or "*")] > 1:
            conflict = "HostnameConflict"
        found.append(_listener(item, gateway, facts, conflict))
    return tuple(found)


def _layer(protocol: str) -> str:
    """Listeners of one port agree on this: HTTPS and TLS are told apart by SNI."""
    return "TLS" if protocol in {"HTTPS", "TLS"} else protocol


def _listener(item: Resource, gateway: Gateway, facts: Facts, conflict: str) -> Listener:
    protocol = str(item.protocol)
    served = _KINDS.get(protocol, ())
    allowed = item.allowed_routes
    kinds, resolved = served, RESOLVED
    if allowed is not None and allowed.kinds:
        wanted = [(str(kind.group or GROUP), str(kind.kind)) for kind in allowed.kinds]
        kinds = tuple(kind for group, kind in wanted if group == GROUP and kind in served)
        if len(kinds) < len(wanted):
            resolved = "InvalidRouteKinds"
    tls, passthrough, message = None, False, ""
    if protocol in {"HTTPS", "TLS"}:
        passthrough = item.tls is not None and str(item.tls.mode or "Terminate") == "Passthrough"
        if not passthrough:
            tls, problem, message = _tls(item, gateway, facts, http=protocol == "HTTPS")
            resolved = problem if problem != RESOLVED else resolved
    return Listener(
        name=str(item.name),
        hostname=str(item.hostname or "*").lower(),
        port=item.port,
        protocol=protocol,
        kinds=kinds,
        accepted=ACCEPTED if served else "UnsupportedProtocol",
        conflict=conflict,
        resolved=resolved,
        message=message,
        tls=tls,
        passthrough=passthrough,
    )


def _tls(
    item: Resource, gateway: Gateway, facts: Facts, *, http: bool
) -> tuple[ir.DownstreamTls | None, str, str]:
    """The TLS to end, the reason of ResolvedRefs, and a message."""
    owner = gateway.metadata.namespace
    secrets: list[ir.SecretRef] = []
    for ref in (item.tls.certificate_refs or ()) if item.tls is not None else ():
        name, namespace = str(ref.name), str(ref.namespace or owner)
        if str(ref.group or "") or str(ref.kind or "Secret") != "Secret":
            return None, "InvalidCertificateRef", f"a certificate must be a Secret, not a {ref.kind}"
        if not facts.permits("Gateway", owner, "", "Secret", namespace, name):
            message = f"no ReferenceGrant in {namespace} lets this Gateway use Secret {namespace}/{name}"
            return None, "RefNotPermitted", message
        secret = next(
            (s for k, s in facts.secrets.items() if (k.namespace, k.name) == (namespace, name)), None
        )
        if secret is None or secret.value("tls.crt") is None or secret.value("tls.key") is None:
            return None, "InvalidCertificateRef", f"Secret {namespace}/{name} has no tls.crt and tls.key"
        secrets.append(ir.SecretRef(source=ir.SecretFrom.ADS, name=secret_name(name, namespace)))
    if not secrets:
        return None, "InvalidCertificateRef", "a listener that ends TLS needs certificateRefs"
    return (
        ir.DownstreamTls(
            certificates=tuple(secrets),
            alpn=("h2", "http/1.1") if http else (),
            limits=ir.TlsLimits(minimum=ir.TlsVersion.V1_2),
        ),
        RESOLVED,
        "",
    )
