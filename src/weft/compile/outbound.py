"""Outbound listeners of a sidecar: ``virtualOutbound``, one a port for HTTP, one an address for the rest."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from weft import ir
from weft.compile.inbound import PLAIN_HTTP, blackhole
from weft.compile.policy import NO_STREAM, Stream
from weft.compile.routes import catch_all
from weft.compile.settings import Settings
from weft.names import ALLOW_ANY_LOOKUP, ALPN_MESH_TCP, BLACKHOLE_CLUSTER, VIRTUAL_OUTBOUND

ANYWHERE: Final = "0.0.0.0"
_READ_HEADER: Final = timedelta(seconds=5)
_ONLY_HTTP: Final = ir.ChainMatch(transport="raw_buffer", application_protocols=PLAIN_HTTP)


def fall_through(settings: Settings, name: str) -> ir.FilterChain:
    """What becomes of connections that nothing else takes."""
    cluster = settings.elsewhere if settings.outbound_any else BLACKHOLE_CLUSTER
    return ir.FilterChain(name=name, match=ir.ChainMatch(), handler=tcp_handler(cluster))


def tcp_handler(cluster: str, stream: Stream = NO_STREAM) -> ir.TcpHandler:
    """All of a connection's bytes to one cluster."""
    handler = ir.TcpHandler(stat_prefix=cluster, destinations=(ir.Destination(cluster=cluster),))
    return streamed(handler, stream)


def streamed(handler: ir.TcpHandler, stream: Stream) -> ir.TcpHandler:
    """The handler under what a rule says of its connections."""
    if stream is NO_STREAM:
        return handler
    return replace(
        handler,
        idle_timeout=stream.idle_timeout,
        max_duration=stream.max_duration,
        hash_source_ip=stream.hash_source_ip,
        tunnel=stream.tunnel,
    )


def detected_handler(handler: ir.TcpHandler) -> ir.TcpHandler:
    """The same for a port whose protocol is looked at: its cluster offers HTTP, which this is not."""
    return replace(handler, alpn=(ALPN_MESH_TCP,))


def virtual_outbound(attachment: ir.Attachment, settings: Settings) -> ir.Listener:
    """Where all captured connections arrive; it hands them over to the listener of their destination."""
    rootless = attachment.capture is ir.Capture.SECCOMP
    chains = [blackhole(VIRTUAL_OUTBOUND, attachment.outbound_port)]
    if settings.outbound_any and settings.lookup:
        chains.append(_looked_up(settings))
    return ir.Listener(
        name=VIRTUAL_OUTBOUND,
        direction=ir.Direction.OUTBOUND,
        address=attachment.outbound_address,
        port=attachment.outbound_port,
        receive=ir.Receive.PROXY_PROTOCOL if rootless else ir.Receive.REDIRECTED,
        chains=tuple(chains),
        default_chain=fall_through(settings, f"{VIRTUAL_OUTBOUND}-catchall-tcp"),
        hand_over=True,
        inspect_http=len(chains) > 1,
        inspect_timeout=settings.detection_timeout if len(chains) > 1 else _READ_HEADER,
    )


def _looked_up(settings: Settings) -> ir.FilterChain:
    """HTTP at ports that no service has, to the host that the request names."""
    name = f"{VIRTUAL_OUTBOUND}_allow_any_dynamic_dns"
    routes = ir.RouteTable(name=ALLOW_ANY_LOOKUP, virtual_hosts=(catch_all(settings),))
    handler = ir.HttpHandler(stat_prefix=f"outbound_{name}", routes=routes, looks_up=True, grpc=True)
    return ir.FilterChain(name=ALLOW_ANY_LOOKUP, match=_ONLY_HTTP, handler=handler)


def port_listener(
    address: str,
    port: int,
    table: str,
    tcp: tuple[ir.FilterChain, ...],
    looks_up: bool,
    grpc: bool,
    bound: bool,
    settings: Settings,
) -> ir.Listener:
    """A listener for one address (``0.0.0.0``: any) and port; ``bound``: a real one.

    ``table``: the route table for HTTP, empty when no HTTP is expected. ``tcp``: chains for all else, at
    most one of which matches everything. Where both are expected the first bytes decide. ``looks_up``: some
    service is a wildcard whose names are looked up; ``grpc``: some service may speak gRPC.
    """
    name = f"{address}_{port}"
    chains: list[ir.FilterChain] = [chain for chain in tcp if chain.match != ir.ChainMatch()]
    default = next((chain for chain in tcp if chain.match == ir.ChainMatch()), None)
    detect = bool(table) and (address == ANYWHERE or bool(tcp))
    if table:
        looks_up = looks_up or settings.lookup
        prefix = f"outbound_{name}"
        http = ir.HttpHandler(stat_prefix=prefix, routes=table, looks_up=looks_up, grpc=grpc)
        match = _ONLY_HTTP if detect else ir.ChainMatch()
        chains.insert(0, ir.FilterChain(name=f"{name}-http", match=match, handler=http))
    if not chains and default is not None:
        chains, default = [default], None
    elif default is None and (detect or not table):
        default = fall_through(settings, "PassthroughFilterChain")
    return ir.Listener(
        name=name,
        direction=ir.Direction.OUTBOUND,
        address=address,
        port=port,
        receive=ir.Receive.BOUND if bound else ir.Receive.HANDED_OVER,
        chains=tuple(chains),
        default_chain=default,
        inspect_tls=any(chain.match.server_names for chain in chains),
        inspect_http=detect,
        inspect_timeout=settings.detection_timeout,
    )
