"""Route tables of sidecars: VirtualServices and routes for the mesh, else the services themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from weft import ir
from weft.compile.age import precedence
from weft.compile.destinations import Targets
from weft.compile.gatewayapi.mesh import Meshed, MeshRoutes, mesh_routes
from weft.compile.hosts import covers, is_wildcard, overlaps, specificity
from weft.compile.istio import virtual_service as istio
from weft.compile.memo import Memo
from weft.compile.policy import Policy
from weft.compile.protocol import Protocol
from weft.compile.routes import default_route, foreign_host, service_host, single, table
from weft.compile.rules import Rules
from weft.compile.service import Labels, Port, Resolution, Service, reachable
from weft.compile.settings import Settings
from weft.compile.view import Limits, View, admitted, exposure
from weft.model.resource import Key
from weft.model.virtual_service import VirtualService
from weft.names import expand_host

MESH_GATEWAYS = frozenset({istio.MESH})

Owner = VirtualService | MeshRoutes
"""What may say where requests to a service go."""


def mesh_virtual_services(
    resources: Mapping[Key, VirtualService], namespace: str, limits: Limits | None, settings: Settings
) -> tuple[VirtualService, ...]:
    """Those that hold for the sidecars of a namespace, in the order in which they are asked."""
    found = [
        (near, precedence(resource.metadata), resource)
        for resource in resources.values()
        if istio.MESH in istio.bound_to(resource)
        and (near := nearness(resource, namespace, settings)) is not None
        and any(
            admitted(limits, resource.metadata.namespace, host) for host in full_hosts(resource, settings)
        )
    ]
    return tuple(resource for *_, resource in sorted(found, key=lambda item: item[:2]))


def nearness(resource: VirtualService, namespace: str, settings: Settings) -> int | None:
    """Which a namespace asks first: VirtualServices of its own, those meant for it, then all others."""
    export = resource.spec.export_to or settings.export_virtual_services
    return exposure(export, resource.metadata.namespace, namespace)


def led_to(resources: tuple[VirtualService, ...], domain: str) -> frozenset[str]:
    """Full names of all hosts that these may send to."""
    return frozenset(host for resource in resources for host in istio.destination_hosts(resource, domain))


@dataclass(frozen=True, slots=True, eq=False)
class Routing:
    """VirtualServices of a view: for each service those to ask, and the hosts that no service has.

    ``mixed`` are services with routes of the Gateway API, too: all that are asked, in their order.
    """

    services: Mapping[str, tuple[VirtualService, ...]]
    foreign: tuple[tuple[str, VirtualService], ...]
    selective: bool
    mixed: Mapping[str, tuple[Owner, ...]] = field(default_factory=dict)

    def bearer(self, labels: Labels) -> Labels:
        """``labels`` of a client if some rule is for certain clients only: else all get the same."""
        return labels if self.selective else ()

    def owners(self, host: str) -> tuple[Owner, ...]:
        """Who is asked about a service, the first first."""
        return self.mixed.get(host) or self.services.get(host, ())


def routing_of(
    view: View, resources: tuple[VirtualService, ...], meshed: Meshed, settings: Settings
) -> Routing:
    """Who routes HTTP. A wildcard holds where no exact name does: the longest, as the first has it."""
    exact: dict[str, list[VirtualService]] = {}
    wild: dict[str, list[VirtualService]] = {}
    for resource in resources:
        for host in full_hosts(resource, settings):
            (wild if is_wildcard(host) else exact).setdefault(host, []).append(resource)
    patterns = sorted(wild, key=specificity)
    services: dict[str, tuple[VirtualService, ...]] = {}
    for service in view.services if patterns else ():
        pattern = next((pattern for pattern in patterns if covers(pattern, service.host)), None)
        if pattern is not None:
            services[service.host] = (wild[pattern][0],)
    services |= {host: tuple(owners) for host, owners in exact.items() if host in view.by_host}
    foreign = [(host, owner) for host, owners in exact.items() for owner in owners]
    foreign += [(host, owner) for host in patterns for owner in wild[host]]
    mixed = {
        host: _mixed(groups, services.get(host, ()), host, view.namespace, settings)
        for host, groups in meshed.hosts
    }
    return Routing(services, tuple(foreign), any(map(_selective, resources)), mixed)


def _mixed(
    groups: tuple[MeshRoutes, ...],
    resources: tuple[VirtualService, ...],
    host: str,
    namespace: str,
    settings: Settings,
) -> tuple[Owner, ...]:
    """Routes of the client's own namespace go before VirtualServices for all; else the older first (Istio).

    A VirtualService that means the service by a wildcard comes last.
    """

    def place(owner: Owner) -> tuple[bool, int, bool, tuple[str, str, str]]:
        if isinstance(owner, MeshRoutes):
            return False, 2, owner.namespace != namespace, precedence(owner.oldest.metadata)
        near = nearness(owner, namespace, settings)
        return host not in full_hosts(owner, settings), near or 0, True, precedence(owner.metadata)

    return tuple(sorted((*groups, *resources), key=place))


def streams_of(view: View, resources: tuple[VirtualService, ...], settings: Settings) -> Routing:
    """Who routes TLS and TCP: every VirtualService that means a service, however widely, in their order."""
    exact: dict[str, set[int]] = {}
    wild: list[tuple[str, int]] = []
    for place, resource in enumerate(resources):
        for host in full_hosts(resource, settings):
            if is_wildcard(host):
                wild.append((host, place))
            else:
                exact.setdefault(host, set()).add(place)
    services: dict[str, tuple[VirtualService, ...]] = {}
    for service in view.services if resources else ():
        places = {place for host, place in wild if overlaps(host, service.host)}
        if is_wildcard(service.host):
            places |= {p for host, found in exact.items() if overlaps(host, service.host) for p in found}
        places |= exact.get(service.host, set())
        if places:
            services[service.host] = tuple(resources[place] for place in sorted(places))
    return Routing(services, (), any(map(_selective, resources)))


def _selective(resource: VirtualService) -> bool:
    spec = resource.spec
    return (
        any(match.source_labels for rule in spec.http or () for match in rule.match or ())
        or any(match.source_labels for rule in spec.tls or () for match in rule.match or ())
        or any(match.source_labels for rule in spec.tcp or () for match in rule.match or ())
    )


def full_hosts(resource: VirtualService, settings: Settings) -> tuple[str, ...]:
    """The hosts of a VirtualService as full names, in lower case, each once."""
    namespace = resource.metadata.namespace
    return tuple(
        dict.fromkeys(
            expand_host(host, namespace, settings.domain).lower() for host in resource.spec.hosts or ()
        )
    )


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """``tables`` as they are sent; ``hosts`` by port, for an explicit proxy.

    ``streams`` are hosts and ports that speak no HTTP and get requests all the same (``Served.streams``).
    """

    tables: tuple[ir.RouteTable, ...]
    hosts: tuple[tuple[int, tuple[ir.VirtualHost, ...]], ...]
    streams: frozenset[tuple[str, int]] = frozenset()


def tables_of(
    view: View, routing: Routing, rules: Rules, labels: Labels, settings: Settings, memo: Memo
) -> Tables:
    """A table for each port where some service of the view speaks HTTP, or may."""
    tables: list[ir.RouteTable] = []
    by_port: list[tuple[int, tuple[ir.VirtualHost, ...]]] = []
    streams: set[tuple[str, int]] = set()
    others = memo(_aliases, view)
    for number, served in memo(http_ports, view).items():
        owners = tuple([routing.owners(service.host) for service, _ in (*served.ports, *served.streams)])
        matched = {id(owner) for group in owners[: len(served.ports)] for owner in group}
        here = {service.host for service, _ in served.ports}
        foreign = tuple(
            (name, owner)
            for name, owner in routing.foreign
            if name not in here
            and (number == 80 or id(owner) in matched)
            and not (is_wildcard(name) and any(overlaps(name, other) for other in here))
        )
        part = memo(_port, number, served, owners, foreign, view, rules, labels, settings, others, memo)
        by_port.append((number, part.hosts))
        tables += part.tables
        streams |= {(service.host, number) for service, _ in served.streams}
    return Tables(
        tuple(sorted(tables, key=lambda item: item.name)), tuple(by_port), memo.same(frozenset(streams))
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    tables: tuple[ir.RouteTable, ...]
    hosts: tuple[ir.VirtualHost, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """Services at one port number, in the order of their hosts.

    ``streams`` speak TCP there. A connection that is kept alive while its port turns from HTTP to TCP stays
    at the listener that all HTTP of this number has: its requests are still to be answered.
    """

    ports: tuple[tuple[Service, Port], ...]
    streams: tuple[tuple[Service, Port], ...] = ()


def _port(
    number: int,
    served: Served,
    owners: tuple[tuple[Owner, ...], ...],
    foreign: tuple[tuple[str, VirtualService], ...],
    view: View,
    rules: Rules,
    labels: Labels,
    settings: Settings,
    others: Mapping[str, tuple[str, ...]],
    memo: Memo,
) -> _Part:
    """One port: its table, and one more for each service whose protocol is looked at."""
    hosts: list[ir.VirtualHost] = []
    streams: list[ir.VirtualHost] = []
    tables: list[ir.RouteTable] = []
    wild = tuple(name for name, _ in foreign if is_wildcard(name))
    for (service, port), asked in zip((*served.ports, *served.streams), owners, strict=True):
        host = _host(service, port, asked, view, rules, labels, settings, others, memo)
        if port.protocol is Protocol.TCP:
            if not any(covers(name, service.host) for name in wild):
                streams.append(host)
            continue
        hosts.append(host)
        if not port.protocol.is_http and (service.addresses or service.headless):
            tables.append(memo(single, f"{service.host}:{number}", host))
    for name, owner in foreign:
        routes = _routes(owner, number, view, rules, labels, settings, memo)
        if routes:
            hosts.append(memo(foreign_host, name, number, routes))
    tables.append(memo(table, str(number), tuple(hosts), settings, tuple(streams)))
    return _Part(tuple(tables), tuple(hosts))


def http_ports(view: View) -> Mapping[int, Served]:
    """Ports where HTTP is spoken or may be, with who serves there."""
    found: dict[int, list[tuple[Service, Port]]] = {}
    streams: dict[int, list[tuple[Service, Port]]] = {}
    for service in view.services:
        if service.resolution is Resolution.ALIAS:
            continue
        for port in service.ports:
            if port.protocol.may_be_http:
                found.setdefault(port.number, []).append((service, port))
            elif port.protocol is Protocol.TCP and reachable(service, port):
                streams.setdefault(port.number, []).append((service, port))
    return {number: Served(tuple(found[number]), tuple(streams.get(number, ()))) for number in sorted(found)}


def _aliases(view: View) -> Mapping[str, tuple[str, ...]]:
    """Names of ExternalName services by the host that they stand for."""
    found: dict[str, tuple[str, ...]] = {}
    for service in view.services:
        if service.alias_of:
            found[service.alias_of] = (*found.get(service.alias_of, ()), service.host)
    return found


def _host(
    service: Service,
    port: Port,
    owners: tuple[Owner, ...],
    view: View,
    rules: Rules,
    labels: Labels,
    settings: Settings,
    others: Mapping[str, tuple[str, ...]],
    memo: Memo,
) -> ir.VirtualHost:
    names = others.get(service.host, ())
    for owner in owners:
        routes = _routes(owner, port.number, view, rules, labels, settings, memo)
        if routes:
            return memo(service_host, service, port.number, routes, view.namespace, settings.domain, names)
    policy = rules.of(service.host).default.policy(port.number)
    return memo(_plain, service, port, policy, settings, view.namespace, names)


def _plain(
    service: Service, port: Port, policy: Policy, settings: Settings, namespace: str, names: tuple[str, ...]
) -> ir.VirtualHost:
    """A service that no VirtualService is about."""
    routes = (default_route(service, port, policy, settings),)
    return service_host(service, port.number, routes, namespace, settings.domain, names)


def _routes(
    owner: Owner,
    port: int,
    view: View,
    rules: Rules,
    labels: Labels,
    settings: Settings,
    memo: Memo,
) -> tuple[ir.Route, ...]:
    """An owner's routes, remembered by what it can see of the proxy and of its destinations."""
    if isinstance(owner, MeshRoutes):
        return memo(mesh_routes, owner, port, settings, memo)
    if not owner.spec.http:
        return ()
    return memo(
        istio.http_routes,
        owner,
        port,
        MESH_GATEWAYS,
        frozenset(labels) if memo(istio.wants_labels, owner) else frozenset(),
        view.namespace if memo(istio.wants_namespace, owner) else "",
        targets_of(owner, view, rules, settings, memo),
        settings,
        False,
    )


def targets_of(owner: VirtualService, view: View, rules: Rules, settings: Settings, memo: Memo) -> Targets:
    """What a VirtualService's destinations are to a view's clients. Another name obeys its host's rule."""
    hosts = memo(istio.destination_hosts, owner, settings.domain)
    found = ((host, view.by_host.get(host)) for host in hosts)
    return memo(
        Targets,
        tuple((host, one, rules.of(one.alias_of if one and one.alias_of else host)) for host, one in found),
    )
