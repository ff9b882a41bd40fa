"""UDP proxies: sessions of datagrams, each at one cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weft.emit.scalars import maybe_duration
from weft.protos import (
    consistent_hashing_v3,
    core_v3,
    listener_v3,
    network_inputs_v3,
    udp_proxy_v3,
    xds_core_v3,
    xds_matcher_v3,
)
from weft.protos.wire import pack

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from weft.ir.listener import UdpHandler
    from weft.ir.route import Destination

NAME: Final = "envoy.filters.udp_listener.udp_proxy"
_ROUTE: Final = "route"
_BY_HASH: Final = "envoy.matching.matchers.consistent_hashing"
_SOURCE_PORT: Final = "envoy.matching.inputs.source_port"


def udp_proxy(unit: UdpHandler) -> listener_v3.ListenerFilter:
    """The listener filter that takes the datagrams."""
    made = udp_proxy_v3.UdpProxyConfig(
        stat_prefix=unit.stat_prefix, idle_timeout=maybe_duration(unit.idle_timeout)
    )
    made.matcher.CopyFrom(_chosen(unit.destinations))  # the field for one cluster is deprecated
    return listener_v3.ListenerFilter(name=NAME, typed_config=pack(made))


def socket(address: core_v3.Address) -> core_v3.Address:
    """The same address for datagrams."""
    made = core_v3.Address()
    made.CopyFrom(address)
    made.socket_address.protocol = core_v3.SocketAddress.Protocol.UDP
    return made


def _chosen(destinations: tuple[Destination, ...]) -> xds_matcher_v3.Matcher:
    """The first one by default; the others by the hash of the client's port, as wide as their weights.

    Envoy has no weighted clusters for UDP. A hash that is at least ``threshold`` after the modulo takes the
    last destinations first, so that each gets the numbers from its own threshold to the next one's.
    """
    matcher = xds_matcher_v3.Matcher
    first, *others = destinations
    made = matcher(on_no_match=_to(first))
    total = sum(target.weight for target in destinations)
    below = total
    for target in reversed(others):
        below -= target.weight
        test = matcher.MatcherList.Predicate.SinglePredicate(
            input=_extension(_SOURCE_PORT, network_inputs_v3.SourcePortInput()),
            custom_match=_extension(
                _BY_HASH, consistent_hashing_v3.ConsistentHashing(threshold=below, modulo=total)
            ),
        )
        made.matcher_list.matchers.append(
            matcher.MatcherList.FieldMatcher(
                predicate=matcher.MatcherList.Predicate(single_predicate=test), on_match=_to(target)
            )
        )
    return made


def _to(target: Destination) -> xds_matcher_v3.Matcher.OnMatch:
    return xds_matcher_v3.Matcher.OnMatch(
        action=_extension(_ROUTE, udp_proxy_v3.Route(cluster=target.cluster))
    )


def _extension(name: str, config: Message) -> xds_core_v3.TypedExtensionConfig:
    return xds_core_v3.TypedExtensionConfig(name=name, typed_config=pack(config))
