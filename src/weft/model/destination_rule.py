"""DestinationRule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from weft import units
from weft.model.base import Flaw, Shape, at_most_one, twice
from weft.model.connection_pool import ConnectionPoolSettings
from weft.model.istio import IstioStatus, LabelsSelector, PortSelector
from weft.model.resource import Resource
from weft.model.scalars import (
    Bool,
    Count,
    Float,
    PositiveDuration,
    ProtoDuration,
    ProtoInt,
    Text,
    UInt,
    UInt64,
)


class CookieAttribute(Shape):
    """A further attribute of the cookie, as SameSite."""

    name: Text
    value: Text | None = None


class HTTPCookie(Shape):
    """The cookie that is hashed; made when it is missing and has a ttl."""

    attributes: tuple[CookieAttribute, ...] | None = None
    name: Text
    path: Text | None = None
    ttl: Text | None = None

    def flaws(self) -> Iterator[Flaw]:
        """How long it lives is a duration."""
        try:
            units.parse_duration(self.ttl or "0")
        except ValueError as error:
            yield Flaw(("ttl",), str(error))


class MagLev(Shape):
    """Maglev's table."""

    table_size: UInt64 | None = None


class RingHash(Shape):
    """The hash ring."""

    minimum_ring_size: UInt64 | None = None


class ConsistentHashLB(Shape):
    """Sends requests with the same value to the same endpoint."""

    http_cookie: HTTPCookie | None = None
    http_header_name: Text | None = None
    http_query_parameter_name: Text | None = None
    maglev: MagLev | None = None
    minimum_ring_size: UInt64 | None = None
    ring_hash: RingHash | None = None
    use_source_ip: Bool | None = None

    def flaws(self) -> Iterator[Flaw]:
        """One value is hashed, into one kind of table."""
        keys = ("http_header_name", "http_cookie", "use_source_ip", "http_query_parameter_name")
        yield from at_most_one(self, *keys)
        yield from at_most_one(self, "ring_hash", "maglev")
        if not any(getattr(self, key) for key in keys):
            yield Flaw(
                (),
                "nothing is hashed",
                "add httpHeaderName, httpCookie, useSourceIp or httpQueryParameterName",
            )


class Distribute(Shape):
    """How traffic of one place is shared among places."""

    from_: Text | None = Field(default=None, alias="from")
    to: dict[str, UInt] | None = None


class Failover(Shape):
    """Where traffic goes when a region has no healthy endpoint."""

    from_: Text | None = Field(default=None, alias="from")
    to: Text | None = None


class LocalityLoadBalancerSetting(Shape):
    """Keeps traffic near, and says where else it may go."""

    distribute: tuple[Distribute, ...] | None = None
    enabled: Bool | None = None
    failover: tuple[Failover, ...] | None = None
    failover_priority: tuple[Text, ...] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Either shares or places to fall back to."""
        yield from at_most_one(self, "distribute", "failover")


class WarmupConfiguration(Shape):
    """Gives new endpoints their share little by little."""

    aggression: Annotated[Float, Field(ge=0)] | None = None
    duration: PositiveDuration
    minimum_percent: Annotated[Float, Field(ge=0, le=100)] | None = None


class ZoneAwareLoadBalancerSetting(Shape):
    """Keeps traffic in the zone as long as the zone can carry it."""

    enabled: Bool | None = None
    failover: tuple[Failover, ...] | None = None
    failover_priority: tuple[Text, ...] | None = None
    min_cluster_size: Annotated[ProtoInt, Field(ge=1)] | None = None


class LoadBalancerSettings(Shape):
    """How an endpoint is chosen."""

    consistent_hash: ConsistentHashLB | None = None
    locality_lb_setting: LocalityLoadBalancerSetting | None = None
    simple: (
        Literal["UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"] | None
    ) = None
    """LEAST_REQUEST unless said otherwise."""
    warmup: WarmupConfiguration | None = None
    """Spares new endpoints at first."""
    warmup_duration_secs: PositiveDuration | None = None
    zone_aware_lb_setting: ZoneAwareLoadBalancerSetting | None = None

    def flaws(self) -> Iterator[Flaw]:
        """One way to choose."""
        yield from at_most_one(self, "simple", "consistent_hash")


class OutlierDetection(Shape):
    """Sets endpoints aside that fail."""

    base_ejection_time: PositiveDuration | None = None
    """How long the first time; longer each further time; 30s unless said otherwise."""
    consecutive_5xx_errors: UInt | None = Field(default=None, alias="consecutive5xxErrors")
    """Failures in a row that set an endpoint aside; 5 unless said otherwise, 0 for never."""
    consecutive_errors: ProtoInt | None = None
    consecutive_gateway_errors: UInt | None = None
    consecutive_local_origin_failures: UInt | None = None
    interval: PositiveDuration | None = None
    """How often endpoints are looked at; 10s unless said otherwise."""
    max_ejection_percent: Annotated[Count, Field(le=100)] | None = None
    """The share that may be set aside; 10 unless said otherwise."""
    min_health_percent: Annotated[Count, Field(le=100)] | None = None
    outlier_detection_http_error_codes: tuple[Annotated[ProtoInt, Field(ge=100, le=599)], ...] | None = None
    split_external_local_origin_errors: Bool | None = None


class ClientTLSSettings(Shape):
    """TLS of the clients of a service."""

    ca_certificates: Text | None = None
    ca_crl: Text | None = None
    client_certificate: Text | None = None
    credential_name: Text | None = None
    """A Secret with the certificates; for gateways."""
    insecure_skip_verify: Bool | None = None
    mode: Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"] | None = None
    """ISTIO_MUTUAL uses the mesh's certificates."""
    private_key: Text | None = None
    sni: Text | None = None
    """The server name that is sent."""
    subject_alt_names: tuple[Text, ...] | None = None
    """Names that the server's certificate may bear."""

    def flaws(self) -> Iterator[Flaw]:
        """A client certificate where it is needed, by files or by the name of a Secret."""
        files = self.client_certificate or self.private_key or self.ca_certificates
        if self.credential_name and files:
            yield Flaw(("credentialName",), "certificates are given by files too", "keep one of them")
        if self.mode == "MUTUAL" and not self.credential_name:
            for name, value in (
                ("clientCertificate", self.client_certificate),
                ("privateKey", self.private_key),
            ):
                if not value:
                    yield Flaw((name,), f"mode MUTUAL needs {name}", "or name a Secret with credentialName")
        if self.mode == "ISTIO_MUTUAL" and files:
            yield Flaw(("mode",), "ISTIO_MUTUAL uses the mesh's own certificates", "remove the files")


class PortTrafficPolicy(Shape):
    """The policy of one port; it replaces the whole of the one around it."""

    connection_pool: ConnectionPoolSettings | None = None
    load_balancer: LoadBalancerSettings | None = None
    outlier_detection: OutlierDetection | None = None
    port: PortSelector | None = None
    tls: ClientTLSSettings | None = None


class ProxyProtocol(Shape):
    """Announces the client by PROXY protocol."""

    version: Literal["V1", "V2"] | None = None


class RetryBudget(Shape):
    """Bounds retries to a share of the requests."""

    budget_interval: ProtoDuration | None = None
    min_retry_concurrency: UInt | None = None
    percent: Annotated[Float, Field(ge=0, le=100)] | None = None


class TunnelSettings(Shape):
    """Wraps TCP in HTTP CONNECT or POST."""

    protocol: Text | None = None
    target_host: Text
    target_port: UInt


class TrafficPolicy(Shape):
    """How connections to a service are made, and which endpoints they go to."""

    connection_pool: ConnectionPoolSettings | None = None
    load_balancer: LoadBalancerSettings | None = None
    outlier_detection: OutlierDetection | None = None
    port_level_settings: Annotated[tuple[PortTrafficPolicy, ...], Field(max_length=4096)] | None = None
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None
    tls: ClientTLSSettings | None = None
    tunnel: TunnelSettings | None = None


class Subset(Shape):
    """A named part of a service: the workloads that bear these labels."""

    labels: dict[str, Text] | None = None
    """Workloads that belong to it."""
    name: Text
    """What routes call it."""
    traffic_policy: TrafficPolicy | None = None


class DestinationRuleSpec(Shape):
    """Policies of the clients of a service."""

    export_to: tuple[Text, ...] | None = None
    """Namespaces that see it: '.' its own, '*' all; all unless said otherwise."""
    host: Text
    """The service: a short name means one of the rule's namespace."""
    subsets: tuple[Subset, ...] | None = None
    """Parts of the service, to route to by name."""
    traffic_policy: TrafficPolicy | None = None
    """Holds for all of the service."""
    workload_selector: LabelsSelector | None = None
    """Clients that obey it; all unless given."""

    def flaws(self) -> Iterator[Flaw]:
        """Subsets differ in name."""
        subsets = self.subsets or ()
        for number in twice(subset.name for subset in subsets):
            yield Flaw(("subsets", number, "name"), f"the subset {subsets[number].name!r} is there twice")


class DestinationRule(Resource):
    """Policies for a service, obeyed by its clients."""

    spec: DestinationRuleSpec
    status: IstioStatus | None = None
