"""Mesh settings from a ``MeshConfig``, or from Istio's ConfigMap ``istio`` in the root namespace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_network
from typing import Final

from pydantic import ValidationError

from weft import ir
from weft.compile.age import age
from weft.compile.istio import traffic_policy as policies
from weft.compile.istio.gateway import VERSIONS, known_ciphers, known_groups
from weft.compile.istio.http_action import inbound_retry_of, retry_of
from weft.compile.reporting import Reporting
from weft.compile.settings import NO_LIMITS, Delivery, ForeignTrust, Settings
from weft.model.core import ConfigMap
from weft.model.mesh_config import (
    CertificateData,
    DefaultProviders,
    DefaultTrafficPolicy,
    MeshConfig,
    MeshConfigSpec,
    TLSConfig,
)
from weft.model.proxy_settings import Topology
from weft.model.resource import Key
from weft.names import ROOT_NAMESPACE
from weft.units import millionths
from weft.yaml import load

CONFIG_MAP: Final = "istio"
_CERTIFICATES: Final = {kind.name: kind for kind in ir.ClientCertificate}
_UPGRADE: Final = {"UPGRADE": True, "DO_NOT_UPGRADE": False}
_NORMALIZATION: Final = {kind.name: kind for kind in ir.PathNormalization}


def settings_of(configs: Mapping[Key, MeshConfig], maps: Mapping[Key, ConfigMap]) -> Settings:
    """What the oldest MeshConfig says, else the ConfigMap, else Istio's defaults."""
    return settings_from(said(configs, maps))


def said(configs: Mapping[Key, MeshConfig], maps: Mapping[Key, ConfigMap]) -> MeshConfigSpec | None:
    """What the oldest MeshConfig says, else the ConfigMap."""
    if (first := oldest(configs)) is not None:
        return first.spec
    for key, resource in maps.items():
        if key.name == CONFIG_MAP and key.namespace == ROOT_NAMESPACE:
            return spec_of(resource)
    return None


def oldest(configs: Mapping[Key, MeshConfig]) -> MeshConfig | None:
    """The MeshConfig that counts, in whatever namespace it is."""
    return min(configs.values(), key=lambda config: age(config.metadata), default=None)


def spec_of(resource: ConfigMap) -> MeshConfigSpec | None:
    """The settings in ``data.mesh``; None when they cannot be read."""
    documents, _ = load((resource.data or {}).get("mesh", ""), CONFIG_MAP)
    try:
        return MeshConfigSpec.model_validate(documents[0].data) if documents else None
    except ValidationError:
        return None


def _foreign(data: CertificateData) -> ForeignTrust:
    """Signers of certificates of Kubernetes' own API (``certSigners``) are none here."""
    return ForeignTrust(
        domains=tuple(data.trust_domains or ()), pem=data.pem or "", url=data.spiffe_bundle_url or ""
    )


def settings_from(spec: MeshConfigSpec | None) -> Settings:
    """Istio's defaults, where the user did not say."""
    default = Settings()
    if spec is None:
        return default
    outbound, inbound = spec.outbound_traffic_policy, spec.inbound_traffic_policy
    retry = default.retry
    if spec.default_http_retry_policy is not None:
        retry = retry_of(spec.default_http_retry_policy, False)
    inbound_retry = default.inbound_retry
    if spec.default_inbound_http_retry_policy is not None:
        inbound_retry = inbound_retry_of(spec.default_inbound_http_retry_policy)
    keys = spec.key_fetching
    networks = (keys.allowed_networks or ()) if keys is not None else ()
    made = Settings(
        key_networks=tuple(ip_network(block, strict=False) for block in networks),
        key_plaintext=keys is not None and bool(keys.allow_plaintext),
        inbound_retry=inbound_retry,
        trust_domain=spec.trust_domain or default.trust_domain,
        trust_domains=tuple(spec.trust_domain_aliases or ()),
        foreign=tuple(_foreign(one) for one in spec.ca_certificates or ()),
        root_namespace=spec.root_namespace or default.root_namespace,
        outbound_any=outbound is None or outbound.mode != "REGISTRY_ONLY",
        lookup=outbound is not None and outbound.mode == "ALLOW_ANY_DYNAMIC_DNS",
        lookup_tls=policies.client_tls(outbound.tls) if outbound is not None else None,
        localhost=inbound is not None and inbound.mode == "LOCALHOST",
        tls_limits=tls_limits(spec.tls_defaults),
        mesh_limits=tls_limits(spec.mesh_mtls),
        post_quantum=spec.compliance_policy == "pqc",
        keepalive=policies.keepalive(spec.tcp_keepalive),
        nearness=policies.nearness(spec.zone_aware_lb_setting, spec.locality_lb_setting) or default.nearness,
        upgrade=_upgrade(spec),
        dns_refresh=spec.dns_refresh_rate or default.dns_refresh,
        path_normalization=_NORMALIZATION.get(
            str(spec.path_normalization.normalization) if spec.path_normalization else "",
            default.path_normalization,
        ),
        auto_mtls=spec.enable_auto_mtls is not False,
        delivery=Delivery(spec.cluster_delivery or default.delivery),
        connect_timeout=spec.connect_timeout or default.connect_timeout,
        detection_timeout=spec.protocol_detection_timeout or default.detection_timeout,
        retry=retry,
        reporting=_reporting(spec),
        flow_share=default.flow_share if spec.flow_sampling is None else millionths(spec.flow_sampling),
        export_services=tuple(spec.default_service_export_to or default.export_services),
        export_virtual_services=tuple(
            spec.default_virtual_service_export_to or default.export_virtual_services
        ),
        export_destination_rules=tuple(
            spec.default_destination_rule_export_to or default.export_destination_rules
        ),
        discovery=tuple(spec.discovery_selectors or ()),
        entry_visibility=spec.service_entry_visibility,
        inbound_stat_name=spec.inbound_cluster_stat_name or "",
        outbound_stat_name=spec.outbound_cluster_stat_name or "",
        providers=spec.extension_providers or (),
    )
    topology = spec.default_config.gateway_topology if spec.default_config is not None else None
    return _with_default_policy(_behind(made, topology), spec.default_traffic_policy)


def _reporting(spec: MeshConfigSpec) -> Reporting:
    """Logs, metrics and traces where no Telemetry resource says more."""
    defaults = spec.default_providers or DefaultProviders()
    return Reporting(
        log_file=spec.access_log_file or None,
        log_json=spec.access_log_encoding == "JSON",
        log_format=spec.access_log_format or "",
        log_service=bool(spec.enable_envoy_access_log_service),
        log_refusals=not spec.disable_envoy_listener_log,
        evidence=spec.evidence_log,
        tracing=spec.enable_tracing is not False,
        log_providers=defaults.access_logging or (),
        metric_providers=defaults.metrics or (),
        trace_providers=defaults.tracing or (),
    )


def _upgrade(spec: MeshConfigSpec) -> bool | None:
    """Whether requests travel by HTTP/2: not by default where names of HTTP/1 headers keep their case."""
    headers = spec.default_config.proxy_headers if spec.default_config is not None else None
    keeps_case = headers is not None and bool(headers.preserve_http1_header_case)
    return _UPGRADE.get(str(spec.h2_upgrade_policy), False if keeps_case else None)


def _behind(made: Settings, topology: Topology | None) -> Settings:
    """``gatewayTopology``: what stands in front of gateways."""
    if topology is None:
        return made
    said = topology.forward_client_cert_details
    return replace(
        made,
        trusted_hops=topology.num_trusted_proxies or 0,
        edge_certificate=_CERTIFICATES.get(str(said), made.edge_certificate),
        edge_proxy_protocol=topology.proxy_protocol is not None,
    )


def tls_limits(defaults: TLSConfig | None) -> ir.TlsLimits:
    """What TLS may use where nobody says more."""
    if defaults is None:
        return NO_LIMITS
    return ir.TlsLimits(
        minimum=VERSIONS.get(str(defaults.min_protocol_version)),
        cipher_suites=known_ciphers(defaults.cipher_suites or ()),
        groups=known_groups(defaults.ecdh_curves or ()),
    )


def _with_default_policy(made: Settings, policy: DefaultTrafficPolicy | None) -> Settings:
    """``defaultTrafficPolicy``: for what no DestinationRule says."""
    if policy is None:
        return made
    pool = policy.connection_pool
    return replace(
        made,
        default_pool=policies.connections(pool, made) if pool else None,
        default_outlier=policies.outlier(policy.outlier_detection),
        default_upgrade=policies.upgrade(pool),
        default_client_protocol=bool(pool and pool.http and pool.http.use_client_protocol),
    )
