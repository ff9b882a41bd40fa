"""Clusters: a destination, how its endpoints are found, balanced, connected to and protected."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from weft.ir.endpoint import Endpoint
from weft.ir.placement import ANYWHERE, UNPLACED, Placement, Standpoint
from weft.ir.route import Source
from weft.ir.tls import UpstreamTls


class Discovery(StrEnum):
    """``EDS``: endpoints come in their own lane. ``ORIGINAL_DST``: where the client wanted to go.

    ``NAMED``: the host that the request names, looked up in DNS; its clients come by a listener with
    ``HttpHandler.explicit_proxy``. ``BLACK_HOLE``: a static cluster without endpoints.
    """

    EDS = "eds"
    STATIC = "static"
    STRICT_DNS = "strict_dns"
    LOGICAL_DNS = "logical_dns"
    ORIGINAL_DST = "original_dst"
    NAMED = "named"
    BLACK_HOLE = "black_hole"


class Algorithm(StrEnum):
    """Envoy's load-balancing policies; ``PROVIDED`` is the cluster's own (ORIGINAL_DST, NAMED).

    ``REPORTED_LOAD``: in turns, the more often the less load an endpoint says that it has (ORCA).
    """

    ROUND_ROBIN = "round_robin"
    LEAST_REQUEST = "least_request"
    RANDOM = "random"
    RING_HASH = "ring_hash"
    MAGLEV = "maglev"
    REPORTED_LOAD = "reported_load"
    PROVIDED = "provided"


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneAware:
    """Envoy's own routing within the zone; ``enabled`` False keeps it off. ``min_hosts`` None: Envoy's 6."""

    enabled: bool = True
    min_hosts: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedLoad:
    """How reports of load (ORCA) become weights; None: Envoy's default.

    ``metrics``: those that are looked at, instead of the application's or the processor's utilization.
    ``error_penalty``: what the ratio of failures is multiplied with, before it is added to the load.
    ``settled_after``: how long a new endpoint reports before it is heeded; ``forgotten_after``: how long a
    report counts; ``period``: how often weights are computed, 100 ms at least.
    """

    metrics: tuple[str, ...] = ()
    error_penalty: float | None = None
    settled_after: timedelta | None = None
    forgotten_after: timedelta | None = None
    period: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancing:
    """``warm_up``: how long a new endpoint's share grows.

    ``locality_weighted``: shares go by the weights of places, not by their endpoints. ``panic_percent``:
    when fewer are healthy, all get traffic; None: Istio's 0 (never). ``keeps_draining``: endpoints that drain
    still get the requests of their sessions.
    """

    algorithm: Algorithm = Algorithm.LEAST_REQUEST
    ring_minimum: int | None = None
    table_size: int | None = None
    warm_up: timedelta | None = None
    warm_up_minimum_percent: float | None = None
    warm_up_aggression: float | None = None
    locality_weighted: bool = False
    zone_aware: ZoneAware | None = None
    reported: ReportedLoad = ReportedLoad()
    keeps_draining: bool = False
    panic_percent: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepalive:
    """TCP keep-alive; None leaves the system's default."""

    probes: int | None = None
    time: timedelta | None = None
    interval: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """HTTP/2 pings on a connection: how often, and how long an answer may take."""

    interval: timedelta
    timeout: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """Connection pool and circuit breakers; None is Istio's default (2**32 - 1, that is no limit).

    ``retry_budget_interval``: requests of so long count as active ones; None: only those that are.
    """

    connect_timeout: timedelta = timedelta(seconds=10)
    max_connections: int | None = None
    max_pending_requests: int | None = None
    max_requests: int | None = None
    max_retries: int | None = None
    max_requests_per_connection: int | None = None
    max_concurrent_streams: int | None = None
    idle_timeout: timedelta | None = None
    max_connection_duration: timedelta | None = None
    keepalive: Keepalive | None = None
    ping: Ping | None = None
    retry_budget_percent: float | None = None
    retry_budget_min_concurrency: int | None = None
    retry_budget_interval: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierDetection:
    """When an endpoint is taken out for a while. None: that test is off.

    ``http_codes``: the statuses that count as failures, instead of 5xx.
    """

    interval: timedelta = timedelta(seconds=10)
    ejection_time: timedelta = timedelta(seconds=30)
    max_ejection_percent: int = 10
    consecutive_5xx: int | None = None
    consecutive_gateway_errors: int | None = None
    consecutive_local_failures: int | None = None
    split_local_errors: bool = False
    min_health_percent: int = 0
    http_codes: tuple[int, ...] = ()


class UpstreamProtocol(StrEnum):
    """What is spoken to the endpoints.

    ``AS_RECEIVED``: what the client spoke (h1 or h2). ``NEGOTIATED``: what TLS agrees upon.
    """

    HTTP1 = "http1"
    HTTP2 = "http2"
    AS_RECEIVED = "as_received"
    NEGOTIATED = "negotiated"
    TCP = "tcp"


class MutualTls(StrEnum):
    """Automatic mTLS by what each endpoint supports (its metadata), or the cluster's ``tls`` always."""

    AUTO = "auto"
    ALWAYS = "always"


class ProxyHeader(StrEnum):
    """Version of the PROXY protocol by which the client's address is announced to an endpoint."""

    V1 = "v1"
    V2 = "v2"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRef:
    """The service behind a cluster, for telemetry metadata and Istio's ``filter_metadata.istio.services``."""

    host: str
    name: str
    namespace: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """One Envoy cluster. ``endpoints`` is filled only where ``discovery`` is not EDS.

    ``tls`` with ``mutual=AUTO``: used for endpoints whose ``tls`` metadata is set, others get plaintext.
    ``original_port`` replaces that of ORIGINAL_DST; ``source_address`` is bound before connecting:
    the inbound clusters of ``Capture.REDIRECT`` need ``names.INBOUND_SOURCE``, or they loop.
    ``placement`` orders the endpoints: those of EDS clusters when they are packed for a client, others for
    the ``client`` that the cluster is for. ``races``: addresses of both families are tried at once, and the
    first that answers is taken, instead of an IPv4 one; with LOGICAL_DNS.
    ``stat_name``: what statistics call it; empty: by its name. ``keep_case``: names of HTTP/1 headers stay as
    they were written. ``buffer_limit``: as a listener's.
    """

    name: str
    discovery: Discovery
    protocol: UpstreamProtocol
    service: ServiceRef | None = None
    subset: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    dns_refresh: timedelta = timedelta(seconds=60)
    respect_dns_ttl: bool = True
    races: bool = False
    balancing: LoadBalancing = LoadBalancing()
    placement: Placement = ANYWHERE
    client: Standpoint = UNPLACED
    connections: Connections = Connections()
    outlier: OutlierDetection | None = None
    tls: UpstreamTls | None = None
    mutual: MutualTls = MutualTls.AUTO
    proxy_header: ProxyHeader | None = None
    source_address: str = ""
    original_port: int | None = None
    source: Source | None = None
    metadata: tuple[tuple[str, str], ...] = field(default=())
    stat_name: str = ""
    keep_case: bool = False
    buffer_limit: int | None = None
