"""Which listeners the services of a view need: one a port for HTTP, one an address for everything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from weft import ir
from weft.compile.chains import apart
from weft.compile.istio import layer4
from weft.compile.memo import Memo
from weft.compile.mesh_routes import Routing, targets_of
from weft.compile.outbound import ANYWHERE, detected_handler, port_listener, tcp_handler
from weft.compile.policy import Stream
from weft.compile.protocol import Protocol
from weft.compile.rules import Rules
from weft.compile.service import Labels, Port, Resolution, Service, reachable
from weft.compile.settings import Settings
from weft.compile.view import View
from weft.names import BLACKHOLE_CLUSTER, outbound_cluster

Members = tuple[tuple[str, tuple[str, ...]], ...]
"""Addresses behind each headless service, by host."""


@dataclass(slots=True)
class _Slot:
    """What one address and port is asked for; the first service to want all TCP there gets it."""

    table: str = ""
    looks_up: bool = False
    grpc: bool = False
    chains: list[ir.FilterChain] = field(default_factory=list)

    def add(self, chains: tuple[ir.FilterChain, ...]) -> None:
        self.chains += chains


def listeners_of(
    view: View,
    routing: Routing,
    rules: Rules,
    labels: Labels,
    members: Members,
    bind: str,
    bound: bool,
    settings: Settings,
    memo: Memo,
) -> tuple[ir.Listener, ...]:
    """Listeners for all ports of a view, in the order of their names.

    ``bind``: where they listen, whatever the services' own addresses; ``bound``: on real ports.
    """
    slots: dict[tuple[str, int], _Slot] = {}
    heads = dict(members)
    for service in sorted(view.services, key=lambda service: service.order):
        if service.resolution is Resolution.ALIAS:
            continue
        for port in service.ports:
            if not reachable(service, port):
                continue
            if port.protocol.is_http:
                slot = slots.setdefault((bind or ANYWHERE, port.number), _Slot())
                slot.table = str(port.number)
                slot.looks_up |= service.resolution is Resolution.NAMED
                slot.grpc |= port.protocol.may_be_grpc
                continue
            chains = _chains(service, port, view, routing, rules, labels, settings, memo)
            for address in (bind,) if bind else _addresses(service, heads):
                slot = slots.setdefault((address, port.number), _Slot())
                slot.add(chains)
                slot.grpc |= port.protocol.may_be_grpc
                if port.protocol is Protocol.AUTO and not slot.table:
                    own = (*service.addresses, *service.external_addresses, *heads.get(service.host, ()))
                    here = address == ANYWHERE or address not in own
                    slot.table = str(port.number) if here else f"{service.host}:{port.number}"
    return tuple(
        memo(
            port_listener,
            address,
            number,
            slot.table,
            memo(apart, tuple(slot.chains)),
            slot.looks_up,
            slot.grpc,
            bound,
            settings,
        )
        for (address, number), slot in sorted(slots.items())
    )


def stream_socket(
    view: View,
    routing: Routing,
    rules: Rules,
    labels: Labels,
    bind: str,
    settings: Settings,
    memo: Memo,
) -> ir.Listener:
    """A Unix socket for what is no HTTP. It has no port to tell by: a service there has one only (Istio).

    The first service takes all that comes; of TLS, each what names it.
    """
    found: list[ir.FilterChain] = []
    for service in sorted(view.services, key=lambda service: service.order):
        if service.resolution is Resolution.ALIAS or len(service.ports) != 1:
            continue
        (port,) = service.ports
        if reachable(service, port):
            made = _chains(service, port, view, routing, rules, labels, settings, memo)
            found += (chain for chain in made if not chain.match.addresses)  # a socket has none
    nobody = ir.FilterChain(name=bind, match=ir.ChainMatch(), handler=tcp_handler(BLACKHOLE_CLUSTER))
    return port_listener(bind, 0, "", apart((*found, nobody)), False, False, True, settings)


def _addresses(service: Service, members: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Where clients of a service connect to: its IPs, its members' when it is headless, or anywhere."""
    plain = tuple(address for address in service.addresses if "/" not in address)
    if plain and len(plain) == len(service.addresses):
        return (*plain, *service.external_addresses)
    if service.headless:
        return members.get(service.host) or (ANYWHERE,)
    return (*plain, ANYWHERE)


def _chains(
    service: Service,
    port: Port,
    view: View,
    routing: Routing,
    rules: Rules,
    labels: Labels,
    settings: Settings,
    memo: Memo,
) -> tuple[ir.FilterChain, ...]:
    """Chains of all rules about a service's port in their order; all else goes to the service itself."""
    made: dict[ir.ChainMatch, ir.FilterChain] = {}
    stream = rules.of(service.host).default.stream
    for owner in routing.services.get(service.host, ()):
        own = memo(
            layer4.chains,
            owner,
            service,
            port,
            labels,
            view.namespace,
            targets_of(owner, view, rules, settings, memo),
            settings,
        )
        for chain in own.chains:
            made.setdefault(chain.match, chain)
        if own.whole:
            break
    else:
        if not (made and port.protocol.is_tls):
            for chain in memo(default_chains, service, port, stream):
                made.setdefault(chain.match, chain)
    return tuple(made.values())


def default_chains(service: Service, port: Port, stream: Stream) -> tuple[ir.FilterChain, ...]:
    """All of a port to the service itself. Without an address of its own, TLS is told apart by SNI."""
    cluster = outbound_cluster(service.host, port.number)
    handler = tcp_handler(cluster, stream)
    blocks = tuple(address for address in service.addresses if "/" in address)
    match = ir.ChainMatch(addresses=blocks)
    if port.protocol.is_tls and (blocks or not service.addresses) and not service.headless:
        match = replace(match, server_names=(service.host,))
    if port.protocol is Protocol.AUTO:
        handler = detected_handler(handler)
    if service.resolution is Resolution.NAMED:
        handler = replace(handler, look_up_port=port.number)
    return (ir.FilterChain(name=cluster, match=match, handler=handler),)
