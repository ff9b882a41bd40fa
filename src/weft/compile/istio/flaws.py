"""What of Istio's networking resources is not in force, and why; each resource is told of its own part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from weft.compile.age import precedence
from weft.compile.chains import is_block
from weft.compile.hosts import is_named
from weft.compile.istio import gateway as istio_gateway
from weft.compile.istio.delegate import MESH, full_gateway
from weft.compile.istio.edge import merge
from weft.compile.istio.http_action import REDIRECTS
from weft.compile.quic import asked_for
from weft.compile.registry import Services
from weft.compile.service import Resolution, Service
from weft.compile.settings import Settings
from weft.errors import Problem, Severity
from weft.model.istio_gateway import Gateway
from weft.model.resource import Key
from weft.model.server_tls import ServerTLSSettings
from weft.model.sidecar import Sidecar
from weft.model.virtual_service import L4MatchAttributes, TLSMatchAttributes, VirtualService
from weft.model.workload_entry import WorkloadEntry
from weft.names import HTTP3_ANNOTATION, INBOUND_PORT, OUTBOUND_PORT

UNHEEDED: Final = "WEFT0102"
CONFLICT: Final = "WEFT0111"


def _problem(code: str, key: Key, message: str, path: str, hint: str) -> Problem:
    return Problem(code, message, None, hint, path, severity=Severity.WARNING, resource=str(key))


def gateway_problems(gateways: Mapping[Key, Gateway], settings: Settings) -> tuple[Problem, ...]:
    """Servers that others leave no room for, and protocols that no gateway speaks.

    Gateways meet where they select the same proxies: those with the same selector, that is.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Gateway]] = {}
    for gateway in sorted(gateways.values(), key=lambda gateway: precedence(gateway.metadata)):
        selector = tuple(sorted((gateway.spec.selector or {}).items()))
        groups.setdefault(selector, []).append(gateway)
    found: list[Problem] = []
    for key, gateway in sorted(gateways.items()):
        if settings.post_quantum and asked_for(gateway.metadata.annotations):
            message = "there is no HTTP/3: over QUIC key exchange cannot be enforced (pqc)"
            path = f"metadata.annotations.{HTTP3_ANNOTATION}"
            found.append(_problem(UNHEEDED, key, message, path, "its clients use HTTP/2"))
    for group in groups.values():
        servers = tuple(
            server
            for gateway in group
            for server in istio_gateway.servers(gateway, gateway.metadata.namespace, settings)
        )
        for server, first, why in merge(servers).refused:
            hint = f"it is {first.source}, spec.servers[{first.place}], which is older or comes first"
            message = f"the server is left out: {why}"
            found.append(_problem(CONFLICT, server.source, message, f"spec.servers[{server.place}]", hint))
    for key, gateway in gateways.items():
        found += _servers(key, gateway)
    return tuple(sorted(found, key=lambda problem: (problem.resource, problem.path)))


def _servers(key: Key, gateway: Gateway) -> Iterator[Problem]:
    for index, server in enumerate(gateway.spec.servers or ()):
        path = f"spec.servers[{index}]"
        if istio_gateway.speaks_of(server) is None:
            message = f"no gateway speaks {server.port.protocol}: the server is left out"
            yield _problem(UNHEEDED, key, message, f"{path}.port.protocol", "write HTTP, HTTPS, TLS or TCP")
        if server.tls is not None:
            yield from _pinned(key, server.tls, f"{path}.tls")


def _pinned(key: Key, tls: ServerTLSSettings, path: str) -> Iterator[Problem]:
    """Hashes that no certificate has, curves and ciphers that Envoy does not know."""
    for index, name in enumerate(tls.ecdh_curves or ()):
        if not istio_gateway.known_groups((name,)):
            hint = f"write {', '.join(sorted(istio_gateway.GROUPS))}"
            message = f"{name[:64]!r} is no curve of Envoy: it is left out"
            yield _problem(UNHEEDED, key, message, f"{path}.ecdhCurves[{index}]", hint)
    for index, name in enumerate(tls.cipher_suites or ()):
        if not istio_gateway.is_cipher(name):
            message = f"{name[:64]!r} is no cipher of Envoy: it is left out"
            yield _problem(UNHEEDED, key, message, f"{path}.cipherSuites[{index}]", "remove it")
    for field, texts, good, what in (
        ("verifyCertificateHash", tls.verify_certificate_hash, istio_gateway.is_hash, "in hex"),
        ("verifyCertificateSpki", tls.verify_certificate_spki, istio_gateway.is_spki, "in base64"),
    ):
        for index, text in enumerate(texts or ()):
            if not good(text):
                message = f"{text[:64]!r} is no SHA-256 {what}: no certificate is taken for it"
                yield _problem(UNHEEDED, key, message, f"{path}.{field}[{index}]", "")


_ONLY_MESH: Final = (
    ("destination_subnets", "destinationSubnets"),
    ("source_labels", "sourceLabels"),
    ("source_namespace", "sourceNamespace"),
)


def virtual_service_problems(resource: VirtualService) -> Iterator[Problem]:
    """What gateways do not look at, and redirects that no client would follow."""
    for path, match in _streams(resource):
        if (subnet := getattr(match, "source_subnet", None)) and not is_block(subnet):
            message = f"{subnet!r} is no address and no block of them: the match never holds"
            yield _problem(
                UNHEEDED, resource.key, message, f"{path}.sourceSubnet", "write it like 10.0.0.0/8"
            )
        for field, wire in _ONLY_MESH if _at_gateways(match, resource) else ():
            if getattr(match, field):
                message = f"gateways do not look at {wire}: the match holds whatever it says"
                hint = "give the gateway a port of its own for these connections"
                yield _problem(UNHEEDED, resource.key, message, f"{path}.{wire}", hint)
    for index, rule in enumerate(resource.spec.http or ()):
        code = rule.redirect.redirect_code if rule.redirect is not None else None
        if code and code not in REDIRECTS:
            message = f"no redirect has the status {code}: 301 is answered"
            path = f"spec.http[{index}].redirect.redirectCode"
            yield _problem(UNHEEDED, resource.key, message, path, "write 301, 302, 303, 307 or 308")


def _streams(resource: VirtualService) -> Iterator[tuple[str, L4MatchAttributes | TLSMatchAttributes]]:
    for index, tls in enumerate(resource.spec.tls or ()):
        for place, sni in enumerate(tls.match):
            yield f"spec.tls[{index}].match[{place}]", sni
    for index, tcp in enumerate(resource.spec.tcp or ()):
        for place, match in enumerate(tcp.match or ()):
            yield f"spec.tcp[{index}].match[{place}]", match


def _at_gateways(match: L4MatchAttributes | TLSMatchAttributes, owner: VirtualService) -> bool:
    names = match.gateways or owner.spec.gateways or (MESH,)
    return any(full_gateway(name, owner.metadata.namespace) != MESH for name in names)


def sidecar_problems(sidecars: Mapping[Key, Sidecar]) -> tuple[Problem, ...]:
    """Egress listeners at names."""
    found: list[Problem] = []
    for key, sidecar in sorted(sidecars.items()):
        for index, part in enumerate(sidecar.spec.egress or ()):
            if is_named(part.bind or ""):
                message = f"{part.bind!r} is no IP address: it is not bound to"
                path = f"spec.egress[{index}].bind"
                found.append(_problem(UNHEEDED, key, message, path, "write an IP address, or remove it"))
    return tuple(found)


def service_problems(services: Services) -> tuple[Problem, ...]:
    """Of services with one host in a namespace those that do not count: the oldest holds (Istio)."""
    found: list[Problem] = []
    for host, group in sorted(services.by_host.items()):
        first: dict[str, Service] = {}
        for service in sorted(group, key=lambda item: (not item.kubernetes, item.order)):
            holds = first.setdefault(service.namespace, service)
            if holds is not service:
                message = f"{host!r} is that of {holds.source} already: it does not count here"
                hint = "give it the same resolution, location, selector and exportTo, or another host"
                found.append(_problem(CONFLICT, service.source, message, "spec.hosts", hint))
            found += _own_ports(service)
    return tuple(found)


def _own_ports(service: Service) -> Iterator[Problem]:
    """Ports that would have a sidecar listen where it does anyway (Istio: conflictWithReservedListener)."""
    for index, port in enumerate(service.ports):
        if port.number in {OUTBOUND_PORT, INBOUND_PORT} and port.protocol.may_be_http:
            message = f"port {port.number} is that of every sidecar itself: its HTTP is not routed"
            path = f"spec.ports[{index}]"
            yield _problem(UNHEEDED, service.source, message, path, "give the service another port")


Named = tuple[tuple[Key, WorkloadEntry], ...]


def named_entries(entries: Mapping[Key, WorkloadEntry]) -> Named:
    """Workloads that are named by a host. All are looked at whenever one changes; those are rare."""
    named = [(key, entry) for key, entry in entries.items() if is_named(entry.spec.address or "")]
    return tuple(sorted(named, key=lambda one: one[0]))


def entry_problems(named: Named, services: Services) -> tuple[Problem, ...]:
    """Named workloads behind services whose endpoints are asked for by address."""
    selecting = [
        (service, set(service.selector))
        for group in (services.by_host.values() if named else ())
        for service in group
        if service.selector and service.resolution is Resolution.ENDPOINTS
    ]
    found: list[Problem] = []
    for key, entry in named:
        labels = {*(entry.spec.labels or {}).items(), *(entry.metadata.labels or {}).items()}
        for service, selector in selecting:
            if service.namespace == key.namespace and selector <= labels:
                message = f"{service.host!r} does not look names up: {entry.spec.address!r} is left out"
                hint = "write its IP, or use a ServiceEntry with resolution DNS"
                found.append(_problem(UNHEEDED, key, message, "spec.address", hint))
    return tuple(found)
