"""VirtualService ``tls`` and ``tcp``: chains of one service's port in a sidecar."""

from __future__ import annotations

from dataclasses import dataclass, replace

from weft import ir
from weft.compile.destinations import Targets, cluster_of
from weft.compile.istio.virtual_service import MESH, full_gateway
from weft.compile.outbound import detected_handler, streamed
from weft.compile.policy import NO_STREAM
from weft.compile.protocol import Protocol
from weft.compile.service import Labels, Port, Service
from weft.compile.settings import Settings
from weft.compile.sources import source
from weft.model.virtual_service import (
    L4MatchAttributes,
    RouteDestination,
    TLSMatchAttributes,
    VirtualService,
)
from weft.names import expand_host


@dataclass(frozen=True, slots=True, eq=False)
class Chains:
    """Chains of one VirtualService; ``whole``: they take every connection that comes to the port."""

    chains: tuple[ir.FilterChain, ...]
    whole: bool = False


def chains(
    owner: VirtualService,
    service: Service,
    port: Port,
    labels: Labels,
    namespace: str,
    targets: Targets,
    settings: Settings,
) -> Chains:
    """Chains of a service's port as a VirtualService routes it; none when it says nothing about it."""
    gateways = frozenset({MESH})
    blocks = tuple(address for address in service.addresses if "/" in address)
    if port.protocol.is_tls:
        return Chains(tls_chains(owner, port.number, gateways, labels, namespace, targets, settings, blocks))
    found = tcp_chains(owner, port.number, gateways, labels, namespace, targets, settings, blocks)
    if port.protocol is not Protocol.AUTO:
        return found
    seen = tuple(
        replace(chain, handler=detected_handler(chain.handler))
        if isinstance(chain.handler, ir.TcpHandler)
        else chain
        for chain in found.chains
    )
    return Chains(seen, found.whole)


def tls_chains(
    owner: VirtualService,
    port: int,
    gateways: frozenset[str],
    labels: Labels,
    namespace: str,
    targets: Targets,
    settings: Settings,
    blocks: tuple[str, ...] = (),
) -> tuple[ir.FilterChain, ...]:
    """Chains by SNI. The first rule for the same names and subnets holds."""
    found: dict[ir.ChainMatch, ir.FilterChain] = {}
    for index, rule in enumerate(owner.spec.tls or ()):
        for place, match in enumerate(rule.match or ()):
            if not rule.route or not applies(match, port, gateways, labels, namespace, owner):
                continue
            test = ir.ChainMatch(
                addresses=tuple(match.destination_subnets or blocks),
                server_names=tuple(name.lower() for name in match.sni_hosts or ()),
            )
            name = f"{owner.metadata.namespace}/{owner.metadata.name}/tls-{index}-{place}"
            handler = forward(owner, index, rule.route, port, targets, settings)
            found.setdefault(test, ir.FilterChain(name=name, match=test, handler=handler))
    return tuple(found.values())


def tcp_chains(
    owner: VirtualService,
    port: int,
    gateways: frozenset[str],
    labels: Labels,
    namespace: str,
    targets: Targets,
    settings: Settings,
    blocks: tuple[str, ...] = (),
) -> Chains:
    """Chains by destination and source subnet; what takes every address ends them."""
    found: dict[ir.ChainMatch, ir.FilterChain] = {}
    for index, rule in enumerate(owner.spec.tcp or ()):
        if not rule.route:
            continue
        handler = forward(owner, index, rule.route, port, targets, settings)
        name = f"{owner.metadata.namespace}/{owner.metadata.name}/tcp-{index}"
        subnets: list[str] = []
        for place, match in enumerate(rule.match or (None,)):
            if not applies(match, port, gateways, labels, namespace, owner):
                continue
            if match is not None and match.source_subnet:
                test = ir.ChainMatch(
                    addresses=tuple(match.destination_subnets or blocks),
                    source_addresses=(match.source_subnet,),
                )
                found.setdefault(test, ir.FilterChain(name=f"{name}-{place}", match=test, handler=handler))
                continue
            if match is None or not match.destination_subnets:
                test = ir.ChainMatch(addresses=blocks)
                found.setdefault(test, ir.FilterChain(name=name, match=test, handler=handler))
                return Chains(tuple(found.values()), whole=True)
            subnets += match.destination_subnets
        if subnets:
            test = ir.ChainMatch(addresses=tuple(subnets))
            found.setdefault(test, ir.FilterChain(name=name, match=test, handler=handler))
    return Chains(tuple(found.values()))


def applies(
    match: L4MatchAttributes | TLSMatchAttributes | None,
    port: int,
    gateways: frozenset[str],
    labels: Labels,
    namespace: str,
    owner: VirtualService,
) -> bool:
    """What is known of the proxy before any connection: its gateways, port, labels and namespace."""
    if match is None:
        return True
    if match.port and match.port != port:
        return False
    named = match.gateways or owner.spec.gateways or (MESH,)
    if not any(full_gateway(name, owner.metadata.namespace) in gateways for name in named):
        return False
    if not set(labels).issuperset((match.source_labels or {}).items()):
        return False
    return not match.source_namespace or match.source_namespace == namespace


def reached(
    match: L4MatchAttributes | TLSMatchAttributes | None, port: int, gateway: str, owner: VirtualService
) -> bool:
    """Whether a match holds for a port of a gateway: nothing but these two counts there."""
    if match is None:
        return True
    names = [full_gateway(name, owner.metadata.namespace) for name in match.gateways or ()]
    return match.port in {None, 0, port} and (not names or gateway in names)


def forward(
    owner: VirtualService,
    index: int,
    parts: tuple[RouteDestination, ...],
    port: int,
    targets: Targets,
    settings: Settings,
) -> ir.TcpHandler:
    """Weighted clusters; a part of weight zero gets nothing, unless it is alone.

    The rule of the first part's host holds for the connection; its subset counts where there is one part.
    """
    destinations: list[ir.Destination] = []
    for part in parts:
        if not part.weight and len(parts) > 1:
            continue
        to = part.destination
        host = expand_host(to.host, owner.metadata.namespace, settings.domain).lower()
        number = to.port.number if to.port else None
        cluster = cluster_of(host, number, to.subset or "", targets.get(host), port)
        destinations.append(ir.Destination(cluster=cluster, weight=part.weight or 1))
    prefix = (
        destinations[0].cluster
        if len(destinations) == 1
        else f"{owner.metadata.name}.{owner.metadata.namespace}"
    )
    handler = ir.TcpHandler(
        stat_prefix=prefix, destinations=tuple(destinations), source=source(owner.key, index)
    )
    first = parts[0].destination
    target = targets.get(expand_host(first.host, owner.metadata.namespace, settings.domain).lower())
    subset = target.rule.subset((first.subset or "") if len(parts) == 1 else "")
    return streamed(handler, subset.stream if subset else NO_STREAM)
