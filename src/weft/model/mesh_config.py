"""MeshConfig of weft.dev: Istio's mesh configuration as a resource."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from ipaddress import ip_network
from typing import Annotated, Final, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape, at_most_one, each, twice, wire_name
from weft.model.connection_pool import ConnectionPoolSettings, TcpKeepalive
from weft.model.destination_rule import (
    ClientTLSSettings,
    LocalityLoadBalancerSetting,
    OutlierDetection,
    ZoneAwareLoadBalancerSetting,
)
from weft.model.extension_provider import ExtensionProvider
from weft.model.hosts import trust_domain, wildcard
from weft.model.proxy_settings import ProxySettings
from weft.model.resource import Condition, LabelSelector, Resource
from weft.model.scalars import Bool, Float, ProtoDuration, Text
from weft.model.scalars import ProtoJsonInt as ProtoInt
from weft.model.virtual_service import HTTPRetry

CURVES: Final = frozenset(
    {"P-224", "P-256", "P-521", "P-384", "X25519", "X25519Kyber768Draft00", "X25519MLKEM768"}
)


class OutboundTrafficPolicy(Shape):
    """``MeshConfig.OutboundTrafficPolicy`` of Istio's mesh configuration."""

    mode: Literal["REGISTRY_ONLY", "ALLOW_ANY", "ALLOW_ANY_DYNAMIC_DNS"] | None = None
    tls: ClientTLSSettings | None = None


class InboundTrafficPolicy(Shape):
    """``MeshConfig.InboundTrafficPolicy`` of Istio's mesh configuration."""

    mode: Literal["PASSTHROUGH", "LOCALHOST"] | None = None


class ConfigSource(Shape):
    """``ConfigSource`` of Istio's mesh configuration."""

    address: Text | None = None
    tls_settings: ClientTLSSettings | None = None
    subscribed_resources: tuple[Literal["SERVICE_REGISTRY"], ...] | None = None


class CertificateData(Shape):
    """``MeshConfig.CertificateData`` of Istio's mesh configuration."""

    pem: Text | None = None
    spiffe_bundle_url: Text | None = None
    cert_signers: tuple[Text, ...] | None = None
    trust_domains: tuple[Text, ...] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """The roots, or where they are."""
        yield from at_most_one(self, "pem", "spiffe_bundle_url")


class Certificate(Shape):
    """``Certificate`` of Istio's mesh configuration."""

    secret_name: Text | None = None
    dns_names: tuple[Text, ...] | None = None


class ServiceSettingsValues(Shape):
    """``MeshConfig.ServiceSettings.Settings`` of Istio's mesh configuration."""

    cluster_local: Bool | None = None


class ServiceSettings(Shape):
    """``MeshConfig.ServiceSettings`` of Istio's mesh configuration."""

    settings: ServiceSettingsValues | None = None
    hosts: tuple[Text, ...] | None = None


class ServiceScopeConfigs(Shape):
    """``MeshConfig.ServiceScopeConfigs`` of Istio's mesh configuration."""

    namespace_selector: LabelSelector | None = None
    services_selector: LabelSelector | None = None
    scope: Literal["LOCAL", "GLOBAL"] | None = None


class CertificateAuthority(Shape):
    """``MeshConfig.CA`` of Istio's mesh configuration."""

    address: Text | None = None
    tls_settings: ClientTLSSettings | None = None
    request_timeout: ProtoDuration | None = None
    istiod_side: Bool | None = None


class DefaultProviders(Shape):
    """``MeshConfig.DefaultProviders`` of Istio's mesh configuration."""

    tracing: tuple[Text, ...] | None = None
    metrics: tuple[Text, ...] | None = None
    access_logging: tuple[Text, ...] | None = None


class ProxyPathNormalization(Shape):
    """``MeshConfig.ProxyPathNormalization`` of Istio's mesh configuration."""

    normalization: Literal["DEFAULT", "NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"] | None = (
        None
    )


class TLSConfig(Shape):
    """``MeshConfig.TLSConfig`` of Istio's mesh configuration."""

    min_protocol_version: Literal["TLS_AUTO", "TLSV1_2", "TLSV1_3"] | None = None
    ecdh_curves: tuple[Text, ...] | None = None
    cipher_suites: tuple[Text, ...] | None = None


class DefaultTrafficPolicy(Shape):
    """``MeshConfig.DefaultTrafficPolicy`` of Istio's mesh configuration."""

    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None


class VisibilityRule(Shape):
    """``ServiceEntryVisibility.MatchRule`` of Istio's mesh configuration."""

    namespace_selector: LabelSelector | None = None


class VisibilityPolicy(Shape):
    """``ServiceEntryVisibility.Policy`` of Istio's mesh configuration."""

    visibility: Literal["VISIBILITY_UNSPECIFIED", "NONE", "NAMESPACE", "PUBLIC"] | None = None
    matching_rules: tuple[VisibilityRule, ...] | None = None


class ServiceEntryVisibility(Shape):
    """``ServiceEntryVisibility`` of Istio's mesh configuration."""

    default_visibility: Literal["VISIBILITY_UNSPECIFIED", "NONE", "NAMESPACE", "PUBLIC"] | None = None
    apply_to_sidecars: Bool | None = None
    policies: tuple[VisibilityPolicy, ...] | None = None


class KeyFetching(Shape):
    """Where the keys of issuers may be fetched from; public addresses over HTTPS unless it says more."""

    allowed_networks: tuple[Text, ...] | None = None
    """CIDR blocks that may be dialled though they are private, loopback or link-local."""
    allow_plaintext: Bool | None = None
    """Whether keys may come over plain HTTP, too."""

    def flaws(self) -> Iterator[Flaw]:
        """Blocks that can be read."""
        for number, block in enumerate(self.allowed_networks or ()):
            try:
                ip_network(block, strict=False)
            except ValueError:
                yield Flaw(("allowedNetworks", number), f"{block!r} is not a CIDR block", "as 10.0.0.0/8")


class DefaultRetry(HTTPRetry):
    """When and how often requests are tried again, where no route says it."""

    def flaws(self) -> Iterator[Flaw]:
        """None: Istio does not look at it before it is used."""
        return iter(())


class MeshConfigSpec(Shape):
    """Istio's MeshConfig: what holds for the whole mesh. Our own: ``clusterDelivery``, ``flowSampling``,
    ``compliancePolicy``, ``evidenceLog``, ``keyFetching``."""

    cluster_delivery: Literal["auto", "eager", "onDemand"] | None = None
    """Whether sidecars get all clusters, or each when it is needed; auto: by their number, above 300."""

    compliance_policy: Literal["pqc"] | None = None
    """What every TLS connection of proxies has to fulfil, whatever is said elsewhere. ``pqc``: TLS 1.3 with
    post-quantum key exchange (X25519MLKEM768), or no connection; Istio's COMPLIANCE_POLICY."""

    flow_sampling: Annotated[Float, Field(ge=0, le=100)] | None = None
    """Percentage of successful requests that are kept as evidence for policies (default 10); failures and
    denials always are."""

    evidence_log: Bool | None = None
    """Whether proxies log requests in the form that ``weft explain`` reads, beside logs of another form: in
    ``access.log`` of their directory. Without a word: if there is an ``accessLogFile``."""

    key_fetching: KeyFetching | None = None
    """Where the control plane may fetch the keys of RequestAuthentications from."""

    proxy_listen_port: ProtoInt | None = None
    proxy_inbound_listen_port: ProtoInt | None = None
    proxy_http_port: ProtoInt | None = None
    connect_timeout: ProtoDuration | None = None
    hbone_idle_timeout: ProtoDuration | None = None
    protocol_detection_timeout: ProtoDuration | None = None
    tcp_keepalive: TcpKeepalive | None = None
    ingress_class: Text | None = None
    ingress_service: Text | None = None
    ingress_controller_mode: Literal["UNSPECIFIED", "OFF", "DEFAULT", "STRICT"] | None = None
    ingress_selector: Text | None = None
    enable_tracing: Bool | None = None
    access_log_file: Text | None = None
    access_log_format: Text | None = None
    access_log_encoding: Literal["TEXT", "JSON"] | None = None
    enable_envoy_access_log_service: Bool | None = None
    disable_envoy_listener_log: Bool | None = None
    default_config: ProxySettings | None = None
    outbound_traffic_policy: OutboundTrafficPolicy | None = None
    inbound_traffic_policy: InboundTrafficPolicy | None = None
    config_sources: tuple[ConfigSource, ...] | None = None
    enable_auto_mtls: Bool | None = None
    trust_domain: Text | None = None
    trust_domain_aliases: tuple[Text, ...] | None = None
    ca_certificates: tuple[CertificateData, ...] | None = None
    default_service_export_to: tuple[Text, ...] | None = None
    default_virtual_service_export_to: tuple[Text, ...] | None = None
    default_destination_rule_export_to: tuple[Text, ...] | None = None
    root_namespace: Text | None = None
    locality_lb_setting: LocalityLoadBalancerSetting | None = None
    zone_aware_lb_setting: ZoneAwareLoadBalancerSetting | None = None
    dns_refresh_rate: ProtoDuration | None = None
    h2_upgrade_policy: Literal["DO_NOT_UPGRADE", "UPGRADE"] | None = None
    inbound_cluster_stat_name: Text | None = None
    outbound_cluster_stat_name: Text | None = None
    certificates: tuple[Certificate, ...] | None = None
    service_settings: tuple[ServiceSettings, ...] | None = None
    service_scope_configs: tuple[ServiceScopeConfigs, ...] | None = None
    enable_prometheus_merge: Bool | None = None
    verify_certificate_at_client: Bool | None = None
    ca: CertificateAuthority | None = None
    extension_providers: tuple[ExtensionProvider, ...] | None = None
    default_providers: DefaultProviders | None = None
    discovery_selectors: tuple[LabelSelector, ...] | None = None
    path_normalization: ProxyPathNormalization | None = None
    default_http_retry_policy: DefaultRetry | None = None
    default_inbound_http_retry_policy: HTTPRetry | None = None
    mesh_mtls: TLSConfig | None = Field(default=None, alias="meshMTLS")
    tls_defaults: TLSConfig | None = None
    default_traffic_policy: DefaultTrafficPolicy | None = None
    service_entry_visibility: ServiceEntryVisibility | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Ports, times and names as they can be (Istio's validation of MeshConfig)."""
        port = self.proxy_listen_port
        if port is not None and not 1 <= port <= 65535:
            yield Flaw(("proxyListenPort",), f"{port} is not a port: write 1 to 65535")
        connect = self.connect_timeout
        if connect is not None and not timedelta(milliseconds=1) <= connect <= timedelta(hours=1):
            yield Flaw(("connectTimeout",), "connecting takes from 1ms to 1h", "as '10s'")
        for name, time in (
            ("connectTimeout", connect),
            ("protocolDetectionTimeout", self.protocol_detection_timeout),
        ):
            if time is not None and time.microseconds % 1000:
                yield Flaw((name,), "whole milliseconds only", "as '100ms'")
        for number, item in enumerate(self.service_settings or ()):
            for place, host in enumerate(item.hosts or ()):
                yield from each(("serviceSettings", number, "hosts", place), [wildcard(host)])
        if self.trust_domain is not None:
            yield from each(("trustDomain",), [trust_domain(self.trust_domain)])
        for number, name in enumerate(self.trust_domain_aliases or ()):
            yield from each(("trustDomainAliases", number), [trust_domain(name)])
        names = [provider.name for provider in self.extension_providers or ()]
        for number in twice(names):
            if names[number]:
                message = f"{names[number]!r} is there twice"
                hint = "give each provider a name of its own"
                yield Flaw(("extensionProviders", number, "name"), message, hint, warns=True)
        if self.mesh_mtls is not None and self.mesh_mtls.ecdh_curves:
            yield Flaw(("meshMTLS", "ecdhCurves"), "mTLS of the mesh has its own curves", "write tlsDefaults")
        retries = self.default_inbound_http_retry_policy
        for name in ("per_try_timeout", "retry_remote_localities", "retry_ignore_previous_hosts"):
            if retries is not None and getattr(retries, name) is not None:
                where = ("defaultInboundHttpRetryPolicy", wire_name(retries, name))
                yield Flaw(where, "this has no effect: there is one application", "remove it", warns=True)
        seen: set[str] = set()
        for number, name in enumerate((self.tls_defaults and self.tls_defaults.ecdh_curves) or ()):
            path = ("tlsDefaults", "ecdhCurves", number)
            if name and name not in CURVES:
                yield Flaw(path, f"{name!r} is not a curve of Envoy", "as X25519 or P-256", warns=True)
            elif name in seen:
                yield Flaw(path, f"{name!r} is there twice", "remove it", warns=True)
            seen.add(name)


class MeshConfigStatus(Shape):
    """What became of it."""

    conditions: tuple[Condition, ...] | None = None
    observed_generation: ProtoInt | None = None


class MeshConfig(Resource):
    """What holds for the whole mesh; the one named ``default`` in the root namespace counts."""

    spec: MeshConfigSpec = Field(default_factory=lambda: MeshConfigSpec())
    status: MeshConfigStatus | None = None
