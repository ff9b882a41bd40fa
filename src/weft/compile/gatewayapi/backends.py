"""``backendRefs``: the cluster of each, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from weft import ir
from weft.compile.gatewayapi.facts import Facts
from weft.compile.memo import Memo
from weft.compile.protocol import Protocol
from weft.compile.rules import Rules
from weft.compile.service import Resolution, Service
from weft.model.grpc_route import GRPCRoute
from weft.model.http_route import HTTPRoute, HTTPRouteFilter
from weft.model.route import BackendObjectReference, RouteFilter
from weft.names import outbound_cluster

UNKNOWN: Final = "UnknownService"
"""A cluster that never exists: a route to it answers with an error."""

_ISTIO: Final = "networking.istio.io"
_CLUSTERSET: Final = "multicluster.x-k8s.io"

Target = tuple[str, str, str, str, int | None]
"""Group, kind, namespace, name and port of a reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """``reason`` is that of the condition ResolvedRefs; ``cluster`` is ``UNKNOWN`` unless it is resolved.

    ``host`` and ``port`` are those of the service, ``protocol`` is what the port speaks; ``session``:
    the service itself asks for sessions.
    """

    cluster: str = UNKNOWN
    reason: str = "ResolvedRefs"
    message: str = ""
    host: str = ""
    port: int = 0
    protocol: Protocol | None = None
    session: ir.SessionPersistence | None = None


def target_of(ref: BackendObjectReference, owner: str) -> Target:
    """What a reference of a route in namespace ``owner`` means, defaults filled in."""
    group = str(ref.group or "")
    return group, str(ref.kind or "Service"), str(ref.namespace or owner), str(ref.name), ref.port


def backend_of(
    ref: BackendObjectReference, owner: str, facts: Facts, kind: str = "HTTPRoute", *, mesh: bool = False
) -> Backend:
    """The cluster that a reference of a ``kind`` in namespace ``owner`` leads to.

    Routes of the mesh need no grant: they expose nothing that could not be called without them (GEP-1294).
    """
    group, target, namespace, name, port = target_of(ref, owner)
    what = f"{target} {namespace}/{name}"
    if (group, target) == (_ISTIO, "Hostname"):
        found, what = _named(name, owner, facts) if ref.namespace is None else None, f"host {name}"
    elif (group, target) in {("", "Service"), (_CLUSTERSET, "ServiceImport")}:
        if not mesh and not facts.permits(kind, owner, group, target, namespace, name):
            message = f"no ReferenceGrant in {namespace} lets {kind}s of {owner} use {what}"
            return Backend(reason="RefNotPermitted", message=message)
        found = facts.service(namespace, name)
    else:
        message = f"a backend must be a Service, not a {f'{group}/{target}' if group else target}"
        return Backend(reason="InvalidKind", message=message)
    if found is None:
        return Backend(reason="BackendNotFound", message=f"there is no {what}")
    served = None if port is None else found.port(port)
    if served is None:
        return Backend(reason="BackendNotFound", message=f"{what} has no port {port}")
    if served.protocol is Protocol.UDP and kind != "UDPRoute":
        return Backend(reason="UnsupportedProtocol", message=f"port {port} of {what} speaks UDP")
    host = found.alias_of if found.resolution is Resolution.ALIAS else found.host
    cluster = outbound_cluster(host, served.number)
    return Backend(
        cluster=cluster, host=host, port=served.number, protocol=served.protocol, session=found.session
    )


def _named(host: str, owner: str, facts: Facts) -> Service | None:
    """Istio's kind Hostname: whatever has that name, the own namespace's first."""
    found = facts.services.by_host.get(host.lower(), ())
    return min(found, key=lambda service: (service.namespace != owner, service.order), default=None)


@dataclass(frozen=True, slots=True)
class Reached:
    """The cluster, ``UNKNOWN`` where there is none; the hash that rules ask for, the service its sessions."""

    cluster: str = UNKNOWN
    hash_on: ir.HashOn | None = None
    session: ir.SessionPersistence | None = None


NOWHERE: Final = Reached()


@dataclass(frozen=True, slots=True, eq=False)
class Backends:
    """What all that a route refers to leads to; the same object while that is the same."""

    known: tuple[tuple[Target, Reached], ...]

    def find(self, ref: BackendObjectReference, owner: str) -> Reached:
        """What a reference leads to."""
        wanted = target_of(ref, owner)
        return next((reached for target, reached in self.known if target == wanted), NOWHERE)


def references(route: HTTPRoute | GRPCRoute) -> tuple[tuple[str, BackendObjectReference], ...]:
    """All backends, mirrors and authorizers of a route in their order, each with its path."""
    found: list[tuple[str, BackendObjectReference]] = []
    for number, rule in enumerate(route.spec.rules or ()):
        place = f"spec.rules[{number}]"
        filtered: list[tuple[str, tuple[RouteFilter, ...] | None]] = [(place, rule.filters)]
        for index, ref in enumerate(rule.backend_refs or ()):
            found.append((f"{place}.backendRefs[{index}]", ref))
            filtered.append((f"{place}.backendRefs[{index}]", ref.filters))
        for where, filters in filtered:
            for index, item in enumerate(filters or ()):
                path = f"{where}.filters[{index}]"
                if item.request_mirror is not None:
                    found.append((f"{path}.requestMirror.backendRef", item.request_mirror.backend_ref))
                if isinstance(item, HTTPRouteFilter) and item.external_auth is not None:
                    found.append((f"{path}.externalAuth.backendRef", item.external_auth.backend_ref))
    return tuple(found)


def backends_of(
    route: HTTPRoute | GRPCRoute, ground: Facts, rules: Rules, memo: Memo, *, mesh: bool = False
) -> Backends:
    """What a route's references lead to, for proxies that obey these rules. ``ground``: see Facts."""
    return memo(_backends, route, ground, rules, memo, mesh)


def _backends(route: HTTPRoute | GRPCRoute, ground: Facts, rules: Rules, memo: Memo, mesh: bool) -> Backends:
    found: dict[Target, Reached] = {}
    for _, target, backend in memo(resolved, route, ground, mesh):
        if target not in found:
            policy = rules.of(backend.host).default.policy(backend.port)
            found[target] = Reached(backend.cluster, policy.hash_on, backend.session)
    return memo(Backends, tuple(found.items()))


def resolved(
    route: HTTPRoute | GRPCRoute, ground: Facts, mesh: bool
) -> tuple[tuple[str, Target, Backend], ...]:
    """All references of a route in their order, each with its path and what it leads to."""
    owner, kind = route.metadata.namespace, type(route).__name__
    return tuple(
        (path, target_of(ref, owner), backend_of(ref, owner, ground, kind, mesh=mesh))
        for path, ref in references(route)
    )
