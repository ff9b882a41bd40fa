"""TCPRoute and TLSRoute in the mesh: for sidecars they are VirtualServices of their parents' hosts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from weft.compile.gatewayapi.layer4 import backends
from weft.compile.memo import Memo
from weft.compile.registry import Services
from weft.compile.service import Resolution, Service
from weft.compile.settings import Settings
from weft.model.istio import Destination, PortSelector
from weft.model.request_match import L4MatchAttributes, TLSMatchAttributes
from weft.model.resource import Key
from weft.model.route import BackendRef, ParentReference
from weft.model.tcp_route import TCPRoute
from weft.model.tls_route import TLSRoute
from weft.model.virtual_service import RouteDestination, VirtualService, VirtualServiceSpec
from weft.model.virtual_service import TCPRoute as TcpRule
from weft.model.virtual_service import TLSRoute as TlsRule
from weft.names import service_host

VirtualServices = Mapping[Key, VirtualService]
Stream = TCPRoute | TLSRoute

_PARENTS = frozenset({"/Service", "networking.istio.io/ServiceEntry"})


def with_streams(
    resources: VirtualServices,
    tcp: Mapping[Key, TCPRoute],
    tls: Mapping[Key, TLSRoute],
    services: Services,
    settings: Settings,
    memo: Memo,
) -> VirtualServices:
    """The VirtualServices, and what stands for routes whose parents are services."""
    routes: list[tuple[Key, Stream]] = [*tcp.items(), *tls.items()]
    made = {
        found: resource
        for key, route in routes
        if route.spec.parent_refs
        for found, resource in memo(_made, key, route, services, settings)
    }
    return {**resources, **made} if made else resources


def _made(
    key: Key, route: Stream, services: Services, settings: Settings
) -> tuple[tuple[Key, VirtualService], ...]:
    return tuple(
        (Key(key.kind, key.namespace, f"{key.name}/{place}"), resource)
        for place, resource in enumerate(_each(route, services, settings))
    )


def _each(route: Stream, services: Services, settings: Settings) -> Iterator[VirtualService]:
    """One for each parent. Its kind and name stay those of the route, so that proxies name that."""
    for ref in route.spec.parent_refs or ():
        if ref.group is None or f"{ref.group}/{ref.kind or 'Gateway'}" not in _PARENTS:
            continue
        namespace = str(ref.namespace or route.metadata.namespace)
        source = Key(f"{ref.group}/{ref.kind}", namespace, str(ref.name))
        parents = [
            service
            for service in services.by_source.get(source, ())
            if service.resolution is not Resolution.ALIAS
        ]
        if parents:
            # A consumer's route is for clients of its own namespace, the producer's for all (GEP-1294).
            seen = ("*",) if namespace == route.metadata.namespace else (".",)
            yield VirtualService.model_construct(
                api_version=route.api_version,
                kind=route.kind,
                metadata=route.metadata,
                spec=_spec(route, ref, parents, seen, settings),
            )


def _spec(
    route: Stream,
    ref: ParentReference,
    parents: Iterable[Service],
    seen: tuple[str, ...],
    settings: Settings,
) -> VirtualServiceSpec:
    hosts = tuple(service.host for service in parents)
    to = tuple(_destination(part, route, settings) for part in backends(route) if part.weight != 0)
    to = to or (_NOWHERE,)
    ports: set[int | None] = {ref.port}
    if ref.section_name:
        ports = {
            port.number
            for service in parents
            for port in service.ports
            if port.name == ref.section_name and ref.port in {None, port.number}
        }
    tcp: tuple[TcpRule, ...] | None = None
    tls: tuple[TlsRule, ...] | None = None
    if isinstance(route, TLSRoute):
        names = tuple(str(name) for name in route.spec.hostnames)
        tls = tuple(
            TlsRule.model_construct(
                match=(TLSMatchAttributes.model_construct(port=port, sni_hosts=names),), route=to
            )
            for port in sorted(ports, key=str)
        )
    else:
        tcp = tuple(
            TcpRule.model_construct(match=(L4MatchAttributes.model_construct(port=port),), route=to)
            for port in sorted(ports, key=str)
        )
    return VirtualServiceSpec.model_construct(hosts=hosts, export_to=seen, tcp=tcp, tls=tls)


def _destination(part: BackendRef, route: Stream, settings: Settings) -> RouteDestination:
    """What a backend leads to; one that does not exist closes its share of the connections."""
    namespace = str(part.namespace or route.metadata.namespace)
    group, kind = str(part.group or ""), str(part.kind or "Service")
    host = service_host(str(part.name), namespace, settings.domain)
    if (group, kind) == ("networking.istio.io", "Hostname"):
        host = str(part.name)
    elif (group, kind) != ("", "Service"):
        host = f"unknown.{host}"
    return _to(host, part.port, 1 if part.weight is None else part.weight)


def _to(host: str, port: int | None, weight: int) -> RouteDestination:
    number = None if port is None else PortSelector.model_construct(number=port)
    return RouteDestination.model_construct(
        destination=Destination.model_construct(host=host, port=number), weight=weight
    )


_NOWHERE = _to("unknown.invalid", 1, 1)
"""No such host: connections are closed."""
