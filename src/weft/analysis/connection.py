"""Which listener and which filter chain take a connection.

Rules: the comments of FilterChainMatch, and envoy source/common/listener_manager/
filter_chain_manager_impl.cc: one property after the other decides, the most specific value of each, and
nothing is tried twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weft.protos import core_v3, listener_v3

Network = IPv4Network | IPv6Network
Chains = list["listener_v3.FilterChain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What a listener knows of a connection. ``transport`` is ``tls`` or ``raw_buffer``."""

    address: str
    port: int
    transport: str = "raw_buffer"
    server_name: str = ""
    protocols: tuple[str, ...] = ()
    source_ip: str = ""


@lru_cache(maxsize=65_536)
def _network(prefix: str, bits: int) -> Network | None:
    try:
        return ip_network(f"{prefix}/{bits}", strict=False)
    except ValueError:
        return None


def network(block: core_v3.CidrRange) -> Network | None:
    """A CidrRange; without a length it is all addresses."""
    return _network(block.address_prefix, block.prefix_len.value if block.HasField("prefix_len") else 0)


def parse_ip(text: str) -> IPv4Address | IPv6Address | None:
    """An IP address, or None."""
    try:
        return ip_address(text)
    except ValueError:
        return None


def within(blocks: Iterable[core_v3.CidrRange], address: str) -> bool:
    """Whether one of the blocks holds the address."""
    ip = parse_ip(address)
    found = (network(block) for block in blocks)
    return ip is not None and any(one is not None and ip in one for one in found)


def chain_of(listener: listener_v3.Listener, connection: Connection) -> listener_v3.FilterChain | None:
    """The chain that takes the connection, the default one included; None when it is closed at once."""
    chains: Chains = list(listener.filter_chains)
    default = listener.default_filter_chain if listener.HasField("default_filter_chain") else None
    on_port = [c for c in chains if c.filter_chain_match.destination_port.value == connection.port]
    chains = on_port or [c for c in chains if not c.filter_chain_match.HasField("destination_port")]
    chains = _by_blocks(chains, lambda c: c.filter_chain_match.prefix_ranges, connection.address)
    chains = _by_name(chains, connection.server_name)
    chains = _by_text(chains, lambda c: c.filter_chain_match.transport_protocol, connection.transport)
    chains = _by_protocols(chains, connection.protocols)
    chains = _by_blocks(
        chains, lambda c: c.filter_chain_match.direct_source_prefix_ranges, connection.source_ip
    )
    chains = _by_source_type(chains, connection)
    chains = _by_blocks(chains, lambda c: c.filter_chain_match.source_prefix_ranges, connection.source_ip)
    chains = [c for c in chains if not c.filter_chain_match.source_ports]
    return chains[0] if chains else default


def _by_blocks(
    chains: Chains, of: Callable[[listener_v3.FilterChain], Sequence[core_v3.CidrRange]], address: str
) -> Chains:
    """Chains of the longest prefix that holds the address, else those without any prefix."""
    if not any(of(chain) for chain in chains):
        return chains
    ip = parse_ip(address)
    best: Chains = []
    longest = -1
    for chain in chains:
        for block in of(chain):
            known = network(block)
            if known is None or ip is None or ip not in known:
                continue
            if known.prefixlen > longest:
                longest, best = known.prefixlen, []
            if known.prefixlen == longest and chain not in best:
                best.append(chain)
    if best and longest > 0:
        return best
    return [*best, *(chain for chain in chains if not of(chain))]


def _by_name(chains: Chains, name: str) -> Chains:
    """Chains of the exact server name, else of the longest wildcard, else those without names."""
    if not any(chain.filter_chain_match.server_names for chain in chains):
        return chains
    wanted = [name] if name else []
    rest = name
    while name and "." in rest:
        rest = rest.partition(".")[2]
        wanted.append(f"*.{rest}")
    for one in wanted:
        found = [c for c in chains if one in c.filter_chain_match.server_names]
        if found:
            return found
    return [c for c in chains if not c.filter_chain_match.server_names]


def _by_text(chains: Chains, of: Callable[[listener_v3.FilterChain], str], value: str) -> Chains:
    found = [chain for chain in chains if of(chain) == value]
    return found or [chain for chain in chains if not of(chain)]


def _by_protocols(chains: Chains, protocols: Sequence[str]) -> Chains:
    """Chains of the first protocol that some chain names, in the client's order, else those without any."""
    for protocol in protocols:
        found = [c for c in chains if protocol in c.filter_chain_match.application_protocols]
        if found:
            return found
    return [c for c in chains if not c.filter_chain_match.application_protocols]


def _by_source_type(chains: Chains, connection: Connection) -> Chains:
    """0 any, 1 from the same address or loopback, 2 from elsewhere."""
    if all(not chain.filter_chain_match.source_type for chain in chains):
        return chains
    ip = parse_ip(connection.source_ip)
    local = connection.source_ip == connection.address or (ip is not None and ip.is_loopback)
    kind = 1 if local else 2
    found = [chain for chain in chains if chain.filter_chain_match.source_type == kind]
    return found or [chain for chain in chains if not chain.filter_chain_match.source_type]


def inspected(listener: listener_v3.Listener, name: str, port: int) -> bool:
    """Whether a listener filter, as ``tls_inspector``, looks at connections to a port."""
    for row in listener.listener_filters:
        if row.name.endswith(f".{name}") or row.typed_config.type_url.lower().endswith(name.replace("_", "")):
            return not (row.HasField("filter_disabled") and _disabled(row.filter_disabled, port))
    return False


def _disabled(predicate: listener_v3.ListenerFilterChainMatchPredicate, port: int) -> bool:
    match predicate.WhichOneof("rule"):
        case "or_match":
            return any(_disabled(rule, port) for rule in predicate.or_match.rules)
        case "and_match":
            return all(_disabled(rule, port) for rule in predicate.and_match.rules)
        case "not_match":
            return not _disabled(predicate.not_match, port)
        case "any_match":
            return bool(predicate.any_match)
        case "destination_port_range":
            bounds = predicate.destination_port_range
            return bool(bounds.start <= port < bounds.end)
    return False


def listens_on(listener: listener_v3.Listener) -> tuple[tuple[str, int], ...]:
    """Addresses and ports of a listener."""
    places = [listener.address, *(more.address for more in listener.additional_addresses)]
    return tuple(
        (place.socket_address.address, place.socket_address.port_value)
        for place in places
        if place.HasField("socket_address")
    )


def is_udp(listener: listener_v3.Listener) -> bool:
    """Whether it takes datagrams (SocketAddress.Protocol)."""
    return int(listener.address.socket_address.protocol) == 1


def listener_at(
    listeners: Iterable[listener_v3.Listener], address: str, port: int, *, udp: bool = False
) -> listener_v3.Listener | None:
    """The listener of an address and port: the exact one, else that of every address."""
    wide: listener_v3.Listener | None = None
    anywhere = "::" if ":" in address else "0.0.0.0"
    for listener in listeners:
        if is_udp(listener) != udp:
            continue
        for host, number in listens_on(listener):
            if number != port:
                continue
            if host == address:
                return listener
            if host == anywhere or (host in {"0.0.0.0", "::"} and wide is None):
                wide = listener
    return wide
