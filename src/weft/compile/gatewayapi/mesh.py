"""Routes of the mesh: their parent is a Service or a ServiceEntry, and its clients' sidecars obey them.

Routes in the service's own namespace are its producer's and hold for every client. Routes in another one are
a consumer's: they hold for clients in that namespace, in place of the producer's (GEP-1294).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from weft import ir
from weft.compile.age import age
from weft.compile.gatewayapi.backends import Backends, backends_of, resolved
from weft.compile.gatewayapi.binding import Parent
from weft.compile.gatewayapi.facts import Facts, Route
from weft.compile.gatewayapi.routes import RequestRoute, routes_of
from weft.compile.memo import Memo
from weft.compile.registry import Services
from weft.compile.rules import Rules
from weft.compile.service import Resolution, Service
from weft.compile.settings import Settings
from weft.compile.view import Limits, View, admitted
from weft.model.grpc_route import GRPCRoute
from weft.model.http_route import HTTPRoute
from weft.model.resource import Key
from weft.model.route import ParentReference
from weft.model.udp_route import UDPRoute

SERVICE: Final = "/Service"
SERVICE_ENTRY: Final = "networking.istio.io/ServiceEntry"
CONFLICTED: Final = "Conflicted"


def mesh_parent(place: int, ref: ParentReference, route: Route, facts: Facts) -> Parent | None:
    """What became of a parentRef to a service of the mesh; None for one to anything else."""
    key = _service_key(ref, route.metadata.namespace)
    if key is None:
        return None
    found = Parent(place=place, ref=ref, owner=key)
    services = facts.services.by_source.get(key, ())
    what = f"{key.kind.rpartition('/')[2]} {key.namespace}/{key.name}"
    if not services:
        return replace(found, reason="NoMatchingParent", message=f"there is no {what}")
    if all(service.resolution is Resolution.ALIAS for service in services):
        message = f"{what} is only a name of something else (ExternalName)"
        return replace(found, reason="NoMatchingParent", message=message)
    if not any(_ports(ref, service) for service in services):
        return replace(
            found, reason="NoMatchingParent", message=f"{what} has no port of that number and name"
        )
    if isinstance(route, UDPRoute):
        return replace(found, reason="UnsupportedValue", message="sidecars take no datagrams")
    if facts.grpc_routes and key in _index(facts).outranked.get(route.key, ()):
        message = f"a GRPCRoute has all ports of {what} that are meant"
        return replace(found, reason=CONFLICTED, message=message)
    return found


def _service_key(ref: ParentReference, namespace: str) -> Key | None:
    if ref.group is None:
        return None
    kind = f"{ref.group}/{ref.kind or 'Gateway'}"
    if kind not in {SERVICE, SERVICE_ENTRY}:
        return None
    return Key(kind, str(ref.namespace or namespace), str(ref.name))


def _ports(ref: ParentReference, service: Service) -> frozenset[int]:
    """Numbers of the ports that a reference means: all, unless it names one."""
    return frozenset(
        port.number
        for port in service.ports
        if ref.port in {None, port.number} and ref.section_name in {None, "", port.name}
    )


@dataclass(frozen=True, slots=True)
class _Attachment:
    """A route at ports of a service."""

    route: RequestRoute
    service: Service
    ports: frozenset[int]


@dataclass(frozen=True, slots=True, eq=False)
class _Index:
    """Attachments by host, the oldest route first. ``outranked``: services where a route has no port left."""

    by_host: Mapping[str, tuple[_Attachment, ...]]
    outranked: Mapping[Key, frozenset[Key]]


def _index(facts: Facts) -> _Index:
    return facts.memo(_attachments, facts.routes, facts.grpc_routes, facts.services, facts.memo)


def _attachments(
    http: Mapping[Key, HTTPRoute], grpc: Mapping[Key, GRPCRoute], services: Services, memo: Memo
) -> _Index:
    routes: tuple[RequestRoute, ...] = (*http.values(), *grpc.values())
    attached = [item for route in routes for item in memo(_attached, route, services)]
    found: dict[str, list[_Attachment]] = {}
    for item in sorted(attached, key=lambda item: age(item.route.metadata)):
        found.setdefault(item.service.host, []).append(item)
    by_host: dict[str, tuple[_Attachment, ...]] = {}
    outranked: dict[Key, set[Key]] = {}
    for host, group in found.items():
        kept = [_ranked(attachment, group) for attachment in group]
        by_host[host] = tuple(attachment for attachment in kept if attachment.ports)
        for attachment in kept:
            if not attachment.ports:
                outranked.setdefault(attachment.route.key, set()).add(attachment.service.source)
    return _Index(by_host, {key: frozenset(services) for key, services in outranked.items()})


def _attached(route: RequestRoute, services: Services) -> tuple[_Attachment, ...]:
    return tuple(
        _Attachment(route, service, ports)
        for ref in route.spec.parent_refs or ()
        if (key := _service_key(ref, route.metadata.namespace)) is not None
        for service in services.by_source.get(key, ())
        if service.resolution is not Resolution.ALIAS and (ports := _ports(ref, service))
    )


def _ranked(attachment: _Attachment, group: Iterable[_Attachment]) -> _Attachment:
    """An HTTPRoute without the ports that a GRPCRoute of the same namespace has: kinds are not mixed."""
    if isinstance(attachment.route, GRPCRoute):
        return attachment
    taken = frozenset[int]().union(
        *(
            other.ports
            for other in group
            if isinstance(other.route, GRPCRoute)
            and other.service.source == attachment.service.source
            and other.route.metadata.namespace == attachment.route.metadata.namespace
        )
    )
    return replace(attachment, ports=attachment.ports - taken) if taken else attachment


@dataclass(frozen=True, slots=True, eq=False)
class MeshRoutes:
    """Routes of one namespace at a service, the oldest first, with their ports and what they lead to."""

    members: tuple[tuple[RequestRoute, frozenset[int], Backends], ...]

    @property
    def namespace(self) -> str:
        """Where the routes are."""
        return self.members[0][0].metadata.namespace

    @property
    def oldest(self) -> RequestRoute:
        """The one whose age counts."""
        return self.members[0][0]


@dataclass(frozen=True, slots=True, eq=False)
class Meshed:
    """Routes of the mesh that a view's clients obey, by host: a consumer's, then the producer's."""

    hosts: tuple[tuple[str, tuple[MeshRoutes, ...]], ...]


def meshed(facts: Facts, view: View, rules: Rules, memo: Memo) -> Meshed:
    """The routes for each service of a view; the same object as long as they are the same."""
    found: list[tuple[str, tuple[MeshRoutes, ...]]] = []
    ground = facts.ground
    for host, attachments in sorted(_index(facts).by_host.items()):
        service = view.by_host.get(host)
        if service is None:
            continue
        here = [attachment for attachment in attachments if attachment.service.source == service.source]
        groups: list[MeshRoutes] = []
        for namespace in dict.fromkeys((view.namespace, service.namespace)):
            members = tuple(
                (item.route, item.ports, backends_of(item.route, ground, rules, memo, mesh=True))
                for item in here
                if item.route.metadata.namespace == namespace
            )
            if members:
                groups.append(memo(MeshRoutes, members))
        if groups:
            found.append((host, tuple(groups)))
    return memo(Meshed, tuple(found))


def mesh_led_to(facts: Facts, namespace: str, limits: Limits | None) -> frozenset[str]:
    """Hosts that the routes of a namespace's clients lead to, of services that these may see."""
    return frozenset(
        backend.host
        for host, attachments in _index(facts).by_host.items()
        for item in attachments
        if item.route.metadata.namespace in {namespace, item.service.namespace}
        and admitted(limits, item.service.namespace, host)
        for _, _, backend in facts.memo(resolved, item.route, facts.ground, True)
    ) - {""}


def mesh_routes(group: MeshRoutes, port: int, settings: Settings, memo: Memo) -> tuple[ir.Route, ...]:
    """The routes at a port, in the specification's order; empty where none is for it."""
    found = [
        (order, number, route)
        for number, (resource, ports, backends) in enumerate(group.members)
        if port in ports
        for order, route in memo(routes_of, resource, port, False, backends, settings)
    ]
    return tuple(route for _, _, route in sorted(found, key=lambda item: item[:2]))
