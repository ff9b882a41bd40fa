"""What a sidecar does with connections to its application: Istio's filter chain matches, port by port."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Final

from weft import ir
from weft.compile.protocol import Protocol
from weft.compile.settings import Settings
from weft.names import (
    ALPN_MESH_H2,
    ALPN_MESH_HTTP1,
    ALPN_MESH_HTTP10,
    ALPN_MESH_TCP,
    ALPN_PEER_EXCHANGE,
    BLACKHOLE_CLUSTER,
    INBOUND_PASSTHROUGH_CLUSTER,
    VIRTUAL_INBOUND,
    WORKLOAD_CERTIFICATE,
    WORKLOAD_TRUST_BUNDLE,
    inbound_cluster,
)

MESH_HTTP: Final = (ALPN_MESH_HTTP10, ALPN_MESH_HTTP1, ALPN_MESH_H2)
MESH_TCP: Final = (ALPN_PEER_EXCHANGE, ALPN_MESH_TCP)
MESH_ANY: Final = (ALPN_MESH_TCP, ALPN_PEER_EXCHANGE, *MESH_HTTP)
PLAIN_HTTP: Final = ("http/1.0", "http/1.1", "h2c")

_ACCEPT_HTTP: Final = ("h2", "http/1.1")
_ACCEPT_TCP: Final = (ALPN_PEER_EXCHANGE, "h2", "http/1.1")


class PeerMode(StrEnum):
    """Which connections a port takes (PeerAuthentication)."""

    STRICT = "STRICT"
    PERMISSIVE = "PERMISSIVE"
    DISABLE = "DISABLE"


@dataclass(frozen=True, slots=True)
class _Option:
    """One chain of a port: ``http`` or TCP, inside the mesh's TLS when ``mutual``."""

    name: str
    http: bool
    mutual: bool
    transport: str
    protocols: tuple[str, ...] = ()


# Istio: pilot/pkg/networking/core/filterchain_options.go
_PLAIN_HTTP: Final = _Option("http", True, False, "raw_buffer")
_PLAIN_TCP: Final = _Option("tcp", False, False, "raw_buffer")
_PLAIN_TLS: Final = _Option("tls", False, False, "tls")
_SEEN_HTTP: Final = _Option("http", True, False, "raw_buffer", PLAIN_HTTP)
_OPTIONS: Final[dict[tuple[str, PeerMode], tuple[_Option, ...]]] = {
    ("http", PeerMode.STRICT): (_Option("mtls-http", True, True, "tls"),),
    ("http", PeerMode.PERMISSIVE): (_Option("mtls-http", True, True, "tls", MESH_ANY), _PLAIN_HTTP),
    ("http", PeerMode.DISABLE): (_PLAIN_HTTP,),
    ("tcp", PeerMode.STRICT): (_Option("mtls-tcp", False, True, "tls"),),
    ("tcp", PeerMode.PERMISSIVE): (
        _Option("mtls-tcp", False, True, "tls", MESH_ANY),
        _PLAIN_TLS,
        _PLAIN_TCP,
    ),
    ("tcp", PeerMode.DISABLE): (_PLAIN_TCP,),
    ("auto", PeerMode.STRICT): (
        _Option("mtls-http", True, True, "tls", MESH_HTTP),
        _Option("mtls-tcp", False, True, "tls"),
    ),
    ("auto", PeerMode.PERMISSIVE): (
        _Option("mtls-http", True, True, "tls", MESH_HTTP),
        _SEEN_HTTP,
        _Option("mtls-tcp", False, True, "tls", MESH_TCP),
        _PLAIN_TCP,
        _PLAIN_TLS,
    ),
    # Where only some ports want TLS, the inspector runs on those that nothing declares too.
    ("auto", PeerMode.DISABLE): (_SEEN_HTTP, _PLAIN_TCP, _PLAIN_TLS),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundPort:
    """A port of the application. ``service`` declared it; a Sidecar that did (``named``) may say more.

    ``owner`` is that Sidecar, for tracing. ``bound``: it has a listener of its own, at ``bind``.
    ``endpoint``: where the application really listens. ``tls``: for callers outside of the mesh.
    ``stat_name``: what statistics call its cluster, if not by its name.
    """

    number: int
    protocol: Protocol
    mode: PeerMode
    service: ir.ServiceRef | None = None
    named: bool = False
    owner: str = ""
    bind: str = ""
    bound: bool = False
    endpoint: str = ""
    connections: ir.Connections | None = None
    tls: ir.DownstreamTls | None = None
    source: ir.Source | None = None
    stat_name: str = ""

    @property
    def kind(self) -> str:
        """``http``, ``tcp`` or ``auto``."""
        if self.protocol.is_http:
            return "http"
        return "auto" if self.protocol is Protocol.AUTO else "tcp"


def peer_tls(settings: Settings, *, http: bool) -> ir.DownstreamTls:
    """The mesh's own TLS: the peer shows a certificate of an accepted trust domain."""
    return ir.DownstreamTls(
        certificates=(ir.SecretRef(source=ir.SecretFrom.FILE, name=WORKLOAD_CERTIFICATE),),
        trust=ir.SecretRef(source=ir.SecretFrom.FILE, name=WORKLOAD_TRUST_BUNDLE),
        require_client_certificate=True,
        peer_trust_domains=settings.peer_trust_domains,
        alpn=_ACCEPT_HTTP if http else _ACCEPT_TCP,
        limits=settings.enforced(
            replace(settings.mesh_limits, minimum=settings.mesh_limits.minimum or ir.TlsVersion.V1_2)
        ),
    )


def port_chains(port: InboundPort, settings: Settings, bound: bool) -> tuple[ir.FilterChain, ...]:
    """The chains of a declared port. ``bound``: the listener is the port's own, so no match on it."""
    cluster = inbound_cluster(port.number)
    return _chains(port, settings, f"0.0.0.0_{port.number}", cluster, None if bound else port.number)


def passthrough_chains(mode: PeerMode, settings: Settings, number: int | None) -> tuple[ir.FilterChain, ...]:
    """The chains of ports that nothing declares; ``number`` where a rule names one of those."""
    port = InboundPort(number=number or 0, protocol=Protocol.AUTO, mode=mode)
    name = VIRTUAL_INBOUND if number is None else f"{VIRTUAL_INBOUND}_{number}"
    return _chains(port, settings, name, INBOUND_PASSTHROUGH_CLUSTER, number)


def _chains(
    port: InboundPort, settings: Settings, name: str, cluster: str, match: int | None
) -> tuple[ir.FilterChain, ...]:
    return tuple(
        ir.FilterChain(
            name=f"{name}-{option.name}",
            match=ir.ChainMatch(
                port=match, transport=option.transport, application_protocols=option.protocols
            ),
            handler=_http(port, cluster, settings, strangers=_outside(port, option))
            if option.http
            else _tcp(cluster, port.source),
            tls=(port.tls or peer_tls(settings, http=option.http)) if option.mutual else None,
        )
        for option in _options(port)
    )


def _options(port: InboundPort) -> tuple[_Option, ...]:
    if port.tls is None:
        return _OPTIONS[port.kind, port.mode]
    http = port.kind == "http"
    return (_Option("https" if http else "tls", http, True, "tls"),)


def _outside(port: InboundPort, option: _Option) -> bool:
    """Whether who comes this way is nobody of the mesh: its peers come by mutual TLS where that is taken."""
    return port.tls is not None or (port.mode is PeerMode.PERMISSIVE and not option.mutual)


def _http(port: InboundPort, cluster: str, settings: Settings, *, strangers: bool) -> ir.HttpHandler:
    passthrough = cluster == INBOUND_PASSTHROUGH_CLUSTER
    host = port.service.host if port.service else port.owner
    route = ir.Route(
        name="default",
        match=ir.RequestMatch(),
        action=ir.Forward(
            destinations=(ir.Destination(cluster=cluster),),
            timeout=timedelta(0),
            retry=None if port.protocol in {Protocol.GRPC, Protocol.GRPC_WEB} else settings.inbound_retry,
        ),
        operation=f"{host}:{port.number}/*",
    )
    table = ir.RouteTable(
        name=cluster,
        virtual_hosts=(
            ir.VirtualHost(
                name=f"inbound|http|{port.number}",
                domains=("*",),
                routes=(route,),
                count_attempts=False,  # it is the caller's proxy that tries again
            ),
        ),
        ignore_port_in_host=False,
    )
    return ir.HttpHandler(
        stat_prefix=cluster if passthrough else f"inbound_0.0.0.0_{port.number}",
        routes=table,
        version=ir.HttpVersion.AUTO,
        client_certificate=ir.ClientCertificate.APPEND_FORWARD,
        strangers=strangers,
        path_normalization=settings.path_normalization,
        source=port.source,
        grpc=port.protocol.may_be_grpc,
    )


def _tcp(cluster: str, source: ir.Source | None = None) -> ir.TcpHandler:
    return ir.TcpHandler(stat_prefix=cluster, destinations=(ir.Destination(cluster=cluster),), source=source)


def blackhole(name: str, port: int) -> ir.FilterChain:
    """A connection straight to the proxy's own port: forwarding it would come back for ever."""
    return ir.FilterChain(
        name=f"{name}-blackhole", match=ir.ChainMatch(port=port), handler=_tcp(BLACKHOLE_CLUSTER)
    )


def virtual_inbound(
    attachment: ir.Attachment,
    settings: Settings,
    ports: tuple[InboundPort, ...],
    default: PeerMode,
    exceptions: tuple[tuple[int, PeerMode], ...],
) -> ir.Listener:
    """The listener that captured connections come to.

    ``default`` and ``exceptions`` are the modes of ports that nothing declares.
    """
    chains = [
        blackhole(VIRTUAL_INBOUND, attachment.inbound_port),
        *passthrough_chains(default, settings, None),
    ]
    for number, mode in exceptions:
        chains += passthrough_chains(mode, settings, number)
    for port in ports:
        chains += port_chains(port, settings, bound=False)
    inspection = _inspection(tuple(chains))
    return ir.Listener(
        name=VIRTUAL_INBOUND,
        direction=ir.Direction.INBOUND,
        address=attachment.inbound_address,
        port=attachment.inbound_port,
        receive=ir.Receive.REDIRECTED,
        chains=tuple(chains),
        inspect_tls=inspection.tls,
        inspect_http=inspection.http,
        inspect_tls_except=inspection.tls_except,
        inspect_http_except=inspection.http_except,
        inspect_timeout=settings.detection_timeout,
    )


def bound_inbound(
    attachment: ir.Attachment, settings: Settings, address: str, port: InboundPort
) -> ir.Listener:
    """A listener on the workload's own address, where no packet is redirected (rootless)."""
    chains = port_chains(port, settings, bound=True)
    inspection = _inspection(chains)
    number = dict(attachment.inbound_ports).get(port.number, port.number)
    return ir.Listener(
        name=f"{address}_{port.number}",
        direction=ir.Direction.INBOUND,
        address=address,
        port=number,
        receive=ir.Receive.BOUND,
        chains=chains,
        inspect_tls=inspection.tls,
        inspect_http=inspection.http,
        inspect_timeout=settings.detection_timeout,
    )


@dataclass(frozen=True, slots=True)
class _Inspection:
    """Which inspectors run, and on which destination ports they must not: a server may speak first."""

    tls: bool
    http: bool
    tls_except: tuple[int, ...]
    http_except: tuple[int, ...]


def _inspection(chains: tuple[ir.FilterChain, ...]) -> _Inspection:
    tls = {chain.match.port for chain in chains if chain.tls is not None}
    http = {chain.match.port for chain in chains if set(PLAIN_HTTP) & set(chain.match.application_protocols)}
    declared = sorted({chain.match.port for chain in chains if chain.match.port is not None})
    return _Inspection(
        bool(tls),
        bool(http),
        tuple(port for port in declared if port not in tls),
        tuple(port for port in declared if port not in http),
    )
