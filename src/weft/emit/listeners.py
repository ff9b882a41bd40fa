"""Listeners: where connections arrive, how their destination is known, which chain takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weft.emit.caller import remembered
from weft.emit.filters.cluster_discovery import WAIT
from weft.emit.filters.external_authorization import of_connections
from weft.emit.filters.forward_proxy import name_cache
from weft.emit.filters.rbac import NETWORK as RBAC
from weft.emit.filters.rbac import network as access_rules
from weft.emit.http import connection_manager
from weft.emit.peer_names import one_identity
from weft.emit.scalars import (
    address,
    boolean,
    cidr,
    duration,
    maybe_duration,
    shares,
    source_metadata,
    uint32,
)
from weft.emit.telemetry import refused_log, reports, tcp_logs
from weft.emit.tls import ads_source, downstream, quic
from weft.emit.udp import socket, udp_proxy
from weft.ir.listener import (
    ChainMatch,
    Direction,
    FilterChain,
    HttpHandler,
    Listener,
    Receive,
    TcpHandler,
)
from weft.ir.telemetry import Telemetry
from weft.protos import (
    core_v3,
    http_inspector_v3,
    listener_v3,
    network_set_filter_state_v3,
    original_dst_v3,
    proxy_protocol_v3,
    set_filter_state_v3,
    sni_forward_proxy_v3,
    tcp_proxy_v3,
    tls_inspector_v3,
    type_v3,
)
from weft.protos.wire import pack

if TYPE_CHECKING:
    from google.protobuf.message import Message

_TCP_PROXY: Final = "envoy.filters.network.tcp_proxy"
_SET_FILTER_STATE: Final = "envoy.filters.network.set_filter_state"
_SNI_FORWARD_PROXY: Final = "envoy.filters.network.sni_dynamic_forward_proxy"
_BUFFER: Final = 1 << 20  # Envoy's own limit
# Of a connection that waits for its own handshake, which has nothing to forward before.
_EARLY_BYTES: Final = 1 << 16
_UPSTREAM_ALPN: Final = "envoy.network.application_protocols"


def _direction(direction: Direction) -> core_v3.TrafficDirection.ValueType:
    inbound = direction is Direction.INBOUND
    return core_v3.TrafficDirection.INBOUND if inbound else core_v3.TrafficDirection.OUTBOUND


def _match(unit: ChainMatch) -> listener_v3.FilterChainMatch:
    made = listener_v3.FilterChainMatch(
        prefix_ranges=[cidr(block) for block in unit.addresses],
        source_prefix_ranges=[cidr(block) for block in unit.source_addresses],
        server_names=unit.server_names,
        transport_protocol=unit.transport,
        application_protocols=unit.application_protocols,
    )
    if unit.port is not None:
        made.destination_port.CopyFrom(uint32(unit.port))
    return made


def _alpn(protocols: tuple[str, ...]) -> listener_v3.Filter:
    """What this connection offers upstream, whatever the cluster would."""
    value = set_filter_state_v3.FilterStateValue(
        object_key=_UPSTREAM_ALPN,
        shared_with_upstream=set_filter_state_v3.FilterStateValue.SharedWithUpstream.ONCE,
    )
    value.format_string.text_format_source.inline_string = ",".join(protocols)
    config = network_set_filter_state_v3.Config(on_new_connection=[value])
    return listener_v3.Filter(name=_SET_FILTER_STATE, typed_config=pack(config))


def _sni_lookup(port: int) -> listener_v3.Filter:
    """The address of the name in the SNI, which the cluster connects to."""
    config = sni_forward_proxy_v3.FilterConfig(dns_cache_config=name_cache(), port_value=port)
    return listener_v3.Filter(name=_SNI_FORWARD_PROXY, typed_config=pack(config))


def _tcp_proxy(
    unit: TcpHandler, direction: Direction, telemetry: Telemetry, *, mutual: bool
) -> listener_v3.Filter:
    made = tcp_proxy_v3.TcpProxy(
        stat_prefix=unit.stat_prefix,
        idle_timeout=maybe_duration(unit.idle_timeout),
        access_log=tcp_logs(
            telemetry,
            direction,
            mutual=mutual,
            decider=RBAC if unit.authorization or unit.consultations else "",
        ),
    )
    if reports(telemetry, direction).metrics is not None:
        made.access_log_options.flush_access_log_on_connected = True
    if mutual and direction is Direction.INBOUND:
        # Not at once: who has not shown a certificate yet is no reason to bother the application, and a
        # connection is counted for whom it is when the other end of it stands.
        made.upstream_connect_mode = tcp_proxy_v3.UpstreamConnectMode.ON_DOWNSTREAM_TLS_HANDSHAKE
        made.max_early_data_bytes.CopyFrom(uint32(_EARLY_BYTES))
    if unit.max_duration is not None:
        made.max_downstream_connection_duration.CopyFrom(duration(unit.max_duration))
    if unit.hash_source_ip:
        made.hash_policy.add().source_ip.SetInParent()
    if unit.tunnel is not None:
        made.tunneling_config.hostname = unit.tunnel.to
        made.tunneling_config.use_post = unit.tunnel.post
    if unit.on_demand:
        made.on_demand.odcds_config.CopyFrom(ads_source())
        made.on_demand.timeout.CopyFrom(duration(WAIT))
    match unit.destinations:
        case (only,):
            made.cluster = only.cluster
        case several:
            weights = shares([target.weight for target in several])
            for target, weight in zip(several, weights, strict=True):
                made.weighted_clusters.clusters.add(name=target.cluster, weight=weight)
    return listener_v3.Filter(name=_TCP_PROXY, typed_config=pack(made))


def _filters(unit: FilterChain, direction: Direction, telemetry: Telemetry) -> list[listener_v3.Filter]:
    mutual = unit.tls is not None and unit.tls.require_client_certificate
    first = [*one_identity(unit.tls), *remembered(unit.tls, direction)]
    match unit.handler:
        case HttpHandler() as handler:
            manager = connection_manager(handler, direction, telemetry, mutual=mutual)
            return [*first, manager]
        case TcpHandler() as handler:
            alpn = [_alpn(handler.alpn)] if handler.alpn else []
            if handler.look_up_port is not None:
                alpn.append(_sni_lookup(handler.look_up_port))
            guard = [*first, *of_connections(handler), *access_rules(handler)]
            return [*guard, *alpn, _tcp_proxy(handler, direction, telemetry, mutual=mutual)]


def _chain(
    unit: FilterChain, direction: Direction, telemetry: Telemetry, *, over_quic: bool = False
) -> listener_v3.FilterChain:
    made = listener_v3.FilterChain(
        name=unit.name,
        filter_chain_match=_match(unit.match),
        filters=_filters(unit, direction, telemetry),
        metadata=source_metadata(unit.handler.source),
    )
    if unit.epoch:
        made.metadata.filter_metadata["weft"].fields["epoch"].number_value = unit.epoch
    if unit.tls is not None:
        made.transport_socket.CopyFrom(quic(unit.tls) if over_quic else downstream(unit.tls))
        made.transport_socket_connect_timeout.CopyFrom(duration(unit.handshake_timeout))
    return made


def _on_ports(ports: tuple[int, ...]) -> listener_v3.ListenerFilterChainMatchPredicate | None:
    """True for connections to one of these ports; None when there are none."""
    predicate = listener_v3.ListenerFilterChainMatchPredicate
    rules = [predicate(destination_port_range=type_v3.Int32Range(start=port, end=port + 1)) for port in ports]
    match rules:
        case []:
            return None
        case [only]:
            return only
        case several:
            return predicate(or_match=predicate.MatchSet(rules=several))


def _listener_filter(name: str, config: Message, off: tuple[int, ...] = ()) -> listener_v3.ListenerFilter:
    return listener_v3.ListenerFilter(
        name=f"envoy.filters.listener.{name}", typed_config=pack(config), filter_disabled=_on_ports(off)
    )


def _listener_filters(unit: Listener) -> list[listener_v3.ListenerFilter]:
    """Where the connection wanted to go, then what it speaks."""
    made: list[listener_v3.ListenerFilter] = []
    match unit.receive:
        case Receive.REDIRECTED:
            made.append(_listener_filter("original_dst", original_dst_v3.OriginalDst()))
        case Receive.PROXY_PROTOCOL if not unit.hand_over:
            made.append(_listener_filter("proxy_protocol", proxy_protocol_v3.ProxyProtocol()))
        case Receive.PROXY_PROTOCOL | Receive.BOUND | Receive.HANDED_OVER:
            pass
    if unit.inspect_tls:
        made.append(
            _listener_filter("tls_inspector", tls_inspector_v3.TlsInspector(), unit.inspect_tls_except)
        )
    if unit.inspect_http:
        made.append(
            _listener_filter("http_inspector", http_inspector_v3.HttpInspector(), unit.inspect_http_except)
        )
    return made


def _buffer_limit(unit: Listener) -> int | None:
    """What an authorizer is shown of a body is kept meanwhile, and must fit."""
    chains = unit.chains if unit.default_chain is None else (*unit.chains, unit.default_chain)
    handlers = [chain.handler for chain in chains if isinstance(chain.handler, HttpHandler)]
    asked = [one.authorizer for handler in handlers for one in handler.consultations]
    asked += (authorizer for handler in handlers for authorizer in handler.authorizers)
    shown = max((one.body.max_bytes for one in asked if one is not None and one.body is not None), default=0)
    return shown if shown > (unit.buffer_limit or _BUFFER) else unit.buffer_limit


def listener(unit: Listener, telemetry: Telemetry) -> listener_v3.Listener:
    """One listener. Its port is shared (``enable_reuse_port``) only when asked for: of two Envoys with the
    same address and port each would get a part of the connections, and nobody would notice.
    """
    if unit.udp is not None:
        return _datagrams(unit, [udp_proxy(unit.udp)])
    if unit.quic:
        made = _datagrams(unit, [])
        made.udp_listener_config.quic_options.SetInParent()
        made.filter_chains.extend(
            _chain(chain, unit.direction, telemetry, over_quic=True) for chain in unit.chains
        )
        return made
    bound = unit.receive is not Receive.HANDED_OVER
    made = listener_v3.Listener(
        name=unit.name,
        address=address(unit.address, unit.port),
        additional_addresses=[
            listener_v3.AdditionalAddress(address=address(host, unit.port))
            for host in unit.additional_addresses
        ],
        traffic_direction=_direction(unit.direction),
        filter_chains=[_chain(chain, unit.direction, telemetry) for chain in unit.chains],
        listener_filters=_listener_filters(unit),
        metadata=source_metadata(unit.source),
        access_log=refused_log(telemetry, unit.direction) if bound else (),
        enable_reuse_port=boolean(unit.shared_port),
    )
    if not bound:
        made.bind_to_port.CopyFrom(boolean(False))
    if unit.hand_over:
        made.use_original_dst.CopyFrom(boolean(True))
    if (limit := _buffer_limit(unit)) is not None:
        made.per_connection_buffer_limit_bytes.CopyFrom(uint32(limit))
    if made.listener_filters:
        made.listener_filters_timeout.CopyFrom(duration(unit.inspect_timeout))
        made.continue_on_listener_filters_timeout = unit.continue_on_inspect_timeout
    if unit.default_chain is not None:
        made.default_filter_chain.CopyFrom(_chain(unit.default_chain, unit.direction, telemetry))
    if unit.receive is Receive.PROXY_PROTOCOL and unit.hand_over:
        _read_proxy_header_last(made)
    return made


def _datagrams(unit: Listener, filters: list[listener_v3.ListenerFilter]) -> listener_v3.Listener:
    """A listener for UDP. Each of Envoy's threads needs a socket of its own there, so the port is shared."""
    return listener_v3.Listener(
        name=unit.name,
        address=socket(address(unit.address, unit.port)),
        traffic_direction=_direction(unit.direction),
        listener_filters=filters,
        metadata=source_metadata(unit.udp.source if unit.udp else None) or source_metadata(unit.source),
        udp_listener_config=listener_v3.UdpListenerConfig(
            downstream_socket_config=core_v3.UdpSocketConfig(prefer_gro=boolean(True))
        ),
        enable_reuse_port=boolean(True),
    )


def _read_proxy_header_last(made: listener_v3.Listener) -> None:
    """Read the PROXY header after Envoy looked for the original destination, so that the header wins.

    ``use_original_dst`` appends a filter that asks the kernel. Where connections are tracked, as beside
    Docker, that answers with the listener's own address even if nothing was redirected, and the listener
    would hand the connection to itself for ever. Only this old flag puts the header's filter behind it.
    """
    if not made.filter_chains:
        made.filter_chains.append(made.default_filter_chain)
        made.ClearField("default_filter_chain")
    made.filter_chains[0].use_proxy_proto.CopyFrom(boolean(True))
