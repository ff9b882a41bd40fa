"""Listeners, filter chains, and what handles a connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from weft.ir.authentication import RequestAuthentication
from weft.ir.authorization import Authorization
from weft.ir.external_authorization import Authorizer, Consultation
from weft.ir.rate_limit import RateLimit
from weft.ir.route import Destination, RouteTable, Source
from weft.ir.tls import DownstreamTls


class Direction(StrEnum):
    """Which way traffic flows, seen from the application (Envoy's traffic_direction)."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"
    GATEWAY = "gateway"


class ClientCertificate(StrEnum):
    """What becomes of ``x-forwarded-client-cert`` (Envoy's forward_client_cert_details)."""

    SANITIZE = "sanitize"
    SANITIZE_SET = "sanitize_set"
    APPEND_FORWARD = "append_forward"
    FORWARD_ONLY = "forward_only"
    ALWAYS_FORWARD_ONLY = "always_forward_only"


class HttpVersion(StrEnum):
    """What a listener speaks; ``AUTO`` reads it from ALPN or the first bytes. ``HTTP3`` goes with QUIC."""

    AUTO = "auto"
    HTTP1 = "http1"
    HTTP2 = "http2"
    HTTP3 = "http3"


class PathNormalization(StrEnum):
    """What becomes of a path before it is matched (Istio's MeshConfig.pathNormalization).

    ``BASE``: RFC 3986 dot segments. ``MERGE_SLASHES``: and ``//`` is ``/``.
    ``DECODE_AND_MERGE_SLASHES``: and escaped slashes are decoded first.
    """

    NONE = "none"
    BASE = "base"
    MERGE_SLASHES = "merge_slashes"
    DECODE_AND_MERGE_SLASHES = "decode_and_merge_slashes"


class Underscores(StrEnum):
    """What becomes of headers with ``_`` in their name: they may pass for others with ``-``."""

    ALLOW = "allow"
    REJECT = "reject"
    DROP = "drop"


class EscapedSlashes(StrEnum):
    """What becomes of ``%2F`` and ``%5C`` in a path. ``REDIRECT``: the client is sent to the plain one."""

    KEEP = "keep"
    REJECT = "reject"
    REDIRECT = "redirect"
    FORWARD = "forward"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """How long and how much of a client's connections and requests a proxy takes; None: its default.

    ``request_timeout``: until all of a request is there; ``headers_timeout``: until its headers are.
    ``drain_timeout``: between the announcement that an HTTP/2 connection ends and its end. Windows in bytes.
    ``merge_slashes`` and ``escaped_slashes`` go before ``HttpHandler.path_normalization``.
    """

    idle_timeout: timedelta | None = None
    stream_idle_timeout: timedelta | None = None
    request_timeout: timedelta | None = None
    headers_timeout: timedelta | None = None
    drain_timeout: timedelta | None = None
    max_connection_duration: timedelta | None = None
    max_stream_duration: timedelta | None = None
    max_concurrent_streams: int | None = None
    stream_window: int | None = None
    connection_window: int | None = None
    underscores: Underscores | None = None
    merge_slashes: bool | None = None
    escaped_slashes: EscapedSlashes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateParts:
    """What ``x-forwarded-client-cert`` says of a caller's certificate beside its hash."""

    subject: bool = True
    uri: bool = True
    dns: bool = True
    certificate: bool = False
    chain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnHeaders:
    """Headers that a proxy makes. ``keep_server``: what the answer's ``server`` says stays.

    ``debug``: ``x-envoy-*`` headers are there. ``forwarded_port``: requests say the port that the client
    connected to. ``keep_case``: names of HTTP/1 headers stay as they were written.
    """

    keep_server: bool = False
    request_id: bool = True
    debug: bool = True
    forwarded_port: bool = False
    keep_case: bool = False
    certificate: CertificateParts = CertificateParts()


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpHandler:
    """An HTTP connection manager.

    ``routes`` is a table's name (RDS) or a table of its own (inbound). ``trusted_hops`` counts the
    proxies in front whose ``x-forwarded-for`` is believed; ``edge`` sanitises what clients claim.
    ``strangers``: who calls is nobody of the mesh; what it says of its request's past is not believed.
    ``explicit_proxy``: clients name the host themselves (``http_proxy``), and may ask for tunnels (CONNECT).
    ``looks_up``: some of its clusters have ``Discovery.NAMED``: the host of a request is looked up for them.
    ``on_demand``: a cluster that a route leads to and that is not there is asked for.
    ``consultations`` come first, then ``authentication``; ``authorization``: stages that a request passes in
    this order; ``authorizers``: those that its routes ask for, each of them once.
    ``grpc``: calls of gRPC may come; the messages of their streams are counted.
    """

    stat_prefix: str
    routes: str | RouteTable
    version: HttpVersion = HttpVersion.AUTO
    client_certificate: ClientCertificate = ClientCertificate.SANITIZE
    edge: bool = False
    explicit_proxy: bool = False
    looks_up: bool = False
    trusted_hops: int = 0
    strangers: bool = False
    server_name: str = ""
    headers: OwnHeaders = OwnHeaders()
    limits: HttpLimits = HttpLimits()
    preserve_external_request_id: bool = False
    path_normalization: PathNormalization = PathNormalization.BASE
    source: Source | None = None
    rate_limits: tuple[RateLimit, ...] = ()
    authorizers: tuple[Authorizer, ...] = ()
    consultations: tuple[Consultation, ...] = ()
    authentication: RequestAuthentication | None = None
    authorization: tuple[Authorization, ...] = ()
    on_demand: bool = False
    grpc: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """Bytes travel as the body of an HTTP request, CONNECT or POST, which names ``to`` (``host:port``)."""

    to: str
    post: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpHandler:
    """A TCP proxy to weighted clusters. ``alpn``: offered upstream in place of what the cluster offers.

    ``hash_source_ip``: connections of one client go to one endpoint (ring hash, maglev).
    ``look_up_port``: the name in the SNI is looked up, for a cluster with ``Discovery.NAMED``, at that port.
    ``on_demand``: a cluster that is not there is asked for.
    """

    stat_prefix: str
    destinations: tuple[Destination, ...]
    alpn: tuple[str, ...] = ()
    idle_timeout: timedelta | None = None
    max_duration: timedelta | None = None
    hash_source_ip: bool = False
    tunnel: Tunnel | None = None
    look_up_port: int | None = None
    source: Source | None = None
    consultations: tuple[Consultation, ...] = ()
    authorization: tuple[Authorization, ...] = ()
    on_demand: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpHandler:
    """A UDP proxy: all datagrams of a client's address and port are one session, at one of the clusters.

    Of several the client's port chooses, by their weights.
    """

    stat_prefix: str
    destinations: tuple[Destination, ...]
    idle_timeout: timedelta | None = None
    source: Source | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainMatch:
    """When a chain takes a connection; empty fields match everything. CIDRs as ``10.0.0.0/8``."""

    port: int | None = None
    addresses: tuple[str, ...] = ()
    source_addresses: tuple[str, ...] = ()
    server_names: tuple[str, ...] = ()
    transport: str = ""
    application_protocols: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterChain:
    """``transport`` in the match is ``tls`` or ``raw_buffer``; ``name`` is unique in its listener.

    ``epoch`` has no meaning but that the connections of another one are ended.
    """

    name: str
    match: ChainMatch
    handler: HttpHandler | TcpHandler
    tls: DownstreamTls | None = None
    handshake_timeout: timedelta = timedelta(seconds=5)
    epoch: int = 0


class Receive(StrEnum):
    """How a connection reaches the listener and says where it wanted to go.

    ``BOUND``: it came to this very port. ``REDIRECTED``: by nft; SO_ORIGINAL_DST tells.
    ``PROXY_PROTOCOL``: a PROXY v2 header tells (rootless capture). ``HANDED_OVER``: the listener is not
    bound; another one gives it connections by original destination.
    """

    BOUND = "bound"
    REDIRECTED = "redirected"
    PROXY_PROTOCOL = "proxy_protocol"
    HANDED_OVER = "handed_over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One Envoy listener.

    ``hand_over``: give the connection to the listener of its original destination, if there is one.
    ``inspect_tls`` and ``inspect_http``: read the first bytes to tell the protocol;
    ``inspect_http_except`` lists destination ports whose protocol is declared, so nothing waits there;
    ``inspect_tls_except`` those where TLS is never expected, so that a server may speak first.
    ``inspect_timeout`` zero waits for the client without a limit (Istio's default).
    ``shared_port``: somebody else may have the port at an address that this one covers or that covers it.
    ``udp``: datagrams instead of connections, so no chains. ``quic``: the chains are those of QUIC, over UDP.
    ``buffer_limit``: how many bytes a connection keeps in each direction, about; None: Envoy's 1 MiB.
    """

    name: str
    direction: Direction
    address: str
    port: int
    receive: Receive
    chains: tuple[FilterChain, ...]
    default_chain: FilterChain | None = None
    hand_over: bool = False
    inspect_tls: bool = False
    inspect_http: bool = False
    inspect_http_except: tuple[int, ...] = ()
    inspect_tls_except: tuple[int, ...] = ()
    inspect_timeout: timedelta = timedelta(seconds=5)
    continue_on_inspect_timeout: bool = True
    additional_addresses: tuple[str, ...] = ()
    shared_port: bool = False
    udp: UdpHandler | None = None
    quic: bool = False
    buffer_limit: int | None = None
    source: Source | None = None

    def with_chains(self, change: Callable[[FilterChain], FilterChain]) -> Listener:
        """The same with each of its chains changed; itself where none is."""
        chains = tuple(map(change, self.chains))
        last = None if self.default_chain is None else change(self.default_chain)
        known = (*self.chains, self.default_chain)
        if all(new is old for new, old in zip((*chains, last), known, strict=True)):
            return self
        return replace(self, chains=chains, default_chain=last)
