"""``defaultConfig`` of MeshConfig: Istio's ProxyConfig message."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Literal

from pydantic import Field

from weft.model.base import Flaw, Shape, each, given, wire_name
from weft.model.client_tls import ClientTLSSettings
from weft.model.connection_pool import TcpKeepalive
from weft.model.hosts import host_and_port
from weft.model.proxy_config import ProxyImage
from weft.model.scalars import Bool, Float, ProtoDuration, Text
from weft.model.scalars import ProtoJsonInt as ProtoInt
from weft.model.scalars import ProtoJsonUInt as UInt
from weft.model.workload_group import ReadinessProbe


class Zipkin(Shape):
    """``Tracing.Zipkin`` of Istio's mesh configuration."""

    address: Text | None = None


class Lightstep(Shape):
    """``Tracing.Lightstep`` of Istio's mesh configuration."""

    address: Text | None = None
    access_token: Text | None = None


class Datadog(Shape):
    """``Tracing.Datadog`` of Istio's mesh configuration."""

    address: Text | None = None


class Stackdriver(Shape):
    """``Tracing.Stackdriver`` of Istio's mesh configuration."""

    debug: Bool | None = None
    max_number_of_attributes: ProtoInt | None = None
    max_number_of_annotations: ProtoInt | None = None
    max_number_of_message_events: ProtoInt | None = None


class OpenCensusAgent(Shape):
    """``Tracing.OpenCensusAgent`` of Istio's mesh configuration."""

    address: Text | None = None
    context: (
        tuple[Literal["UNSPECIFIED", "W3C_TRACE_CONTEXT", "GRPC_BIN", "CLOUD_TRACE_CONTEXT", "B3"], ...]
        | None
    ) = None


class LiteralTag(Shape):
    """``Tracing.Literal`` of Istio's mesh configuration."""

    value: Text | None = None


class EnvironmentTag(Shape):
    """``Tracing.Environment`` of Istio's mesh configuration."""

    name: Text | None = None
    default_value: Text | None = None


class HeaderTag(Shape):
    """``Tracing.RequestHeader`` of Istio's mesh configuration."""

    name: Text | None = None
    default_value: Text | None = None


class CustomTag(Shape):
    """``Tracing.CustomTag`` of Istio's mesh configuration."""

    literal: LiteralTag | None = None
    environment: EnvironmentTag | None = None
    header: HeaderTag | None = None


class Tracing(Shape):
    """``Tracing`` of Istio's mesh configuration."""

    zipkin: Zipkin | None = None
    lightstep: Lightstep | None = None
    datadog: Datadog | None = None
    stackdriver: Stackdriver | None = None
    open_census_agent: OpenCensusAgent | None = None
    custom_tags: dict[str, CustomTag] | None = None
    max_path_tag_length: UInt | None = None
    sampling: Float | None = None
    tls_settings: ClientTLSSettings | None = None
    enable_istio_tags: Bool | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Collectors that can be reached."""
        for name in ("zipkin", "datadog", "lightstep"):
            collector = getattr(self, name)
            if collector is None:
                continue
            address = collector.address or ""
            if name != "lightstep":
                address = address.replace("$(HOST_IP)", "127.0.0.1", 1)
            yield from each((name, "address"), [host_and_port(address)], "as 'collector:9411'")
        if self.lightstep is not None and not self.lightstep.access_token:
            yield Flaw(("lightstep", "accessToken"), "the access token is missing", "add accessToken")


class SDS(Shape):
    """``SDS`` of Istio's mesh configuration."""

    enabled: Bool | None = None
    k8s_sa_jwt_path: Text | None = Field(default=None, alias="k8sSaJwtPath")


class RemoteService(Shape):
    """``RemoteService`` of Istio's mesh configuration."""

    address: Text | None = None
    tls_settings: ClientTLSSettings | None = None
    tcp_keepalive: TcpKeepalive | None = None


class ProxyProtocolConfiguration(Shape):
    """``Topology.ProxyProtocolConfiguration`` of Istio's mesh configuration."""


class Topology(Shape):
    """``Topology`` of Istio's mesh configuration."""

    num_trusted_proxies: UInt | None = None
    forward_client_cert_details: (
        Literal[
            "UNDEFINED", "SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY"
        ]
        | None
    ) = None
    proxy_protocol: ProxyProtocolConfiguration | None = None


class ProxyStatsMatcher(Shape):
    """``ProxyConfig.ProxyStatsMatcher`` of Istio's mesh configuration."""

    inclusion_prefixes: tuple[Text, ...] | None = None
    inclusion_suffixes: tuple[Text, ...] | None = None
    inclusion_regexps: tuple[Text, ...] | None = None


class CryptoMb(Shape):
    """``PrivateKeyProvider.CryptoMb`` of Istio's mesh configuration."""

    poll_delay: ProtoDuration | None = None
    fallback: Bool | None = None


class QAT(Shape):
    """``PrivateKeyProvider.QAT`` of Istio's mesh configuration."""

    poll_delay: ProtoDuration | None = None
    fallback: Bool | None = None


class PrivateKeyProvider(Shape):
    """``PrivateKeyProvider`` of Istio's mesh configuration."""

    cryptomb: CryptoMb | None = None
    qat: QAT | None = None

    def flaws(self) -> Iterator[Flaw]:
        """One of them, and how often it is asked."""
        if given(self.cryptomb, self.qat) == 0:
            yield Flaw((), "the provider is missing", "add cryptomb or qat")
        for name in ("cryptomb", "qat"):
            provider = getattr(self, name)
            if provider is not None and not provider.poll_delay:
                yield Flaw((name, "pollDelay"), "pollDelay is missing", "as '10ms'")


class SetCurrentClientCertDetails(Shape):
    """``ProxyConfig.ProxyHeaders.SetCurrentClientCertDetails`` of Istio's mesh configuration."""

    subject: Bool | None = None
    cert: Bool | None = None
    chain: Bool | None = None
    dns: Bool | None = None
    uri: Bool | None = None


class RequestId(Shape):
    """``ProxyConfig.ProxyHeaders.RequestId`` of Istio's mesh configuration."""

    disabled: Bool | None = None


class Server(Shape):
    """``ProxyConfig.ProxyHeaders.Server`` of Istio's mesh configuration."""

    disabled: Bool | None = None
    value: Text | None = None


class AttemptCount(Shape):
    """``ProxyConfig.ProxyHeaders.AttemptCount`` of Istio's mesh configuration."""

    disabled: Bool | None = None


class EnvoyDebugHeaders(Shape):
    """``ProxyConfig.ProxyHeaders.EnvoyDebugHeaders`` of Istio's mesh configuration."""

    disabled: Bool | None = None


class MetadataExchangeHeaders(Shape):
    """``ProxyConfig.ProxyHeaders.MetadataExchangeHeaders`` of Istio's mesh configuration."""

    mode: Literal["UNDEFINED", "IN_MESH"] | None = None


class XForwardedHost(Shape):
    """``ProxyConfig.ProxyHeaders.XForwardedHost`` of Istio's mesh configuration."""

    enabled: Bool | None = None


class XForwardedPort(Shape):
    """``ProxyConfig.ProxyHeaders.XForwardedPort`` of Istio's mesh configuration."""

    enabled: Bool | None = None


class ProxyHeaders(Shape):
    """``ProxyConfig.ProxyHeaders`` of Istio's mesh configuration."""

    forwarded_client_cert: (
        Literal[
            "UNDEFINED", "SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY"
        ]
        | None
    ) = None
    set_current_client_cert_details: SetCurrentClientCertDetails | None = None
    request_id: RequestId | None = None
    server: Server | None = None
    attempt_count: AttemptCount | None = None
    envoy_debug_headers: EnvoyDebugHeaders | None = None
    metadata_exchange_headers: MetadataExchangeHeaders | None = None
    preserve_http1_header_case: Bool | None = None
    x_forwarded_host: XForwardedHost | None = None
    x_forwarded_port: XForwardedPort | None = None


class ConnectionSettings(Shape):
    """``ProxyConfig.ConnectionSettings`` of Istio's mesh configuration."""

    profile: Literal["SIDECAR", "EDGE"] | None = None
    listener_per_connection_buffer_limit_bytes: ProtoInt | None = None
    cluster_per_connection_buffer_limit_bytes: ProtoInt | None = None
    http_idle_timeout: ProtoDuration | None = None
    http_max_connection_duration: ProtoDuration | None = None
    http_drain_timeout: ProtoDuration | None = None
    http_request_timeout: ProtoDuration | None = None
    http_request_headers_timeout: ProtoDuration | None = None
    http_stream_idle_timeout: ProtoDuration | None = None
    http_max_stream_duration: ProtoDuration | None = None
    http_max_concurrent_streams: ProtoInt | None = None
    http2_initial_stream_window_size: ProtoInt | None = None
    http2_initial_connection_window_size: ProtoInt | None = None
    http_headers_with_underscores_action: (
        Literal[
            "HEADERS_WITH_UNDERSCORES_UNSPECIFIED",
            "HEADERS_WITH_UNDERSCORES_ALLOW",
            "HEADERS_WITH_UNDERSCORES_REJECT_REQUEST",
            "HEADERS_WITH_UNDERSCORES_DROP_HEADER",
        ]
        | None
    ) = None
    http_merge_slashes: Bool | None = None
    http_path_with_escaped_slashes_action: (
        Literal[
            "PATH_WITH_ESCAPED_SLASHES_UNSPECIFIED",
            "KEEP_UNCHANGED",
            "REJECT_REQUEST",
            "UNESCAPE_AND_REDIRECT",
            "UNESCAPE_AND_FORWARD",
        ]
        | None
    ) = None
    listener_connection_limit: ProtoInt | None = None
    global_downstream_connection_limit: ProtoInt | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Limits as Envoy takes them."""
        least = {
            "listener_per_connection_buffer_limit_bytes": 0,
            "cluster_per_connection_buffer_limit_bytes": 0,
            "http_max_concurrent_streams": 1,
            "http2_initial_stream_window_size": 65535,
            "http2_initial_connection_window_size": 65535,
            "listener_connection_limit": 1,
            "global_downstream_connection_limit": 1,
        }
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is not None and value < lowest:
                yield Flaw((wire_name(self, name),), f"{value} is too small: at least {lowest}")


class ProxySettings(Shape):
    """What holds for a proxy from its start, unless an annotation or a ProxyConfig says otherwise."""

    config_path: Text | None = None
    binary_path: Text | None = None
    service_cluster: Text | None = None
    tracing_service_name: (
        Literal["APP_LABEL_AND_NAMESPACE", "CANONICAL_NAME_ONLY", "CANONICAL_NAME_AND_NAMESPACE"] | None
    ) = None
    drain_duration: ProtoDuration | None = None
    discovery_address: Text | None = None
    discovery_refresh_delay: ProtoDuration | None = None
    zipkin_address: Text | None = None
    statsd_udp_address: Text | None = None
    envoy_metrics_service_address: Text | None = None
    proxy_admin_port: ProtoInt | None = None
    availability_zone: Text | None = None
    control_plane_auth_policy: Literal["NONE", "MUTUAL_TLS", "INHERIT"] | None = None
    custom_config_file: Text | None = None
    stat_name_length: ProtoInt | None = None
    concurrency: ProtoInt | None = None
    proxy_bootstrap_template_path: Text | None = None
    interception_mode: Literal["REDIRECT", "TPROXY", "NONE"] | None = None
    tracing: Tracing | None = None
    sds: SDS | None = None
    envoy_access_log_service: RemoteService | None = None
    envoy_metrics_service: RemoteService | None = None
    proxy_metadata: dict[str, Text] | None = None
    runtime_values: dict[str, Text] | None = None
    status_port: ProtoInt | None = None
    extra_stat_tags: tuple[Text, ...] | None = None
    gateway_topology: Topology | None = None
    termination_drain_duration: ProtoDuration | None = None
    mesh_id: Text | None = None
    readiness_probe: ReadinessProbe | None = None
    proxy_stats_matcher: ProxyStatsMatcher | None = None
    hold_application_until_proxy_starts: Bool | None = None
    ca_certificates_pem: tuple[Text, ...] | None = None
    image: ProxyImage | None = None
    private_key_provider: PrivateKeyProvider | None = None
    proxy_headers: ProxyHeaders | None = None
    file_flush_interval: ProtoDuration | None = None
    file_flush_min_size_kb: UInt | None = None
    stats_compression: Bool | None = None
    connection_settings: ConnectionSettings | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Addresses, ports and times as they can be (Istio's validation of ProxyConfig)."""
        if self.drain_duration is not None and (
            self.drain_duration < timedelta(seconds=1) or self.drain_duration.microseconds
        ):
            yield Flaw(("drainDuration",), "it is in whole seconds, one at least", "as '45s'")
        for name in ("config_path", "binary_path", "discovery_address", "service_cluster"):
            if getattr(self, name) == "":
                yield Flaw((wire_name(self, name),), "it must not be empty", "leave it out for the default")
        for name in ("discovery_address", "statsd_udp_address", "envoy_metrics_service_address"):
            if text := getattr(self, name):
                yield from each((wire_name(self, name),), [host_and_port(text)], "as 'collector:9411'")
        for name in ("envoy_access_log_service", "envoy_metrics_service"):
            if (service := getattr(self, name)) is not None and service.address:
                wrong = host_and_port(service.address)
                yield from each((wire_name(self, name), "address"), [wrong], "as 'collector:9411'")
        for name in ("proxy_admin_port", "status_port"):
            port = getattr(self, name)
            if port is not None and not 1 <= port <= 65535:
                yield Flaw((wire_name(self, name),), f"{port} is not a port: write 1 to 65535")
        if self.control_plane_auth_policy == "INHERIT":
            yield Flaw(("controlPlaneAuthPolicy",), "INHERIT is not for proxies", "write MUTUAL_TLS or NONE")
        if "ISTIO_META_DNS_AUTO_ALLOCATE" in (self.proxy_metadata or {}):
            path = ("proxyMetadata", "ISTIO_META_DNS_AUTO_ALLOCATE")
            hint = "ServiceEntries get their addresses without it"
            yield Flaw(path, "this is deprecated", hint, warns=True)
