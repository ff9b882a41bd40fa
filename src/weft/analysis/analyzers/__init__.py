"""The analyzers, by the names that Istio gives them (istio/istio, pkg/config/analysis/analyzers)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from weft.analysis.analyzers import (
    authorization,
    clusters,
    conditions,
    deployments,
    deprecations,
    destination_rules,
    envoy_filters,
    gateway_secrets,
    gateways,
    injection,
    kubernetes_gateways,
    misannotation,
    service_entries,
    services,
    virtual_services,
    webhooks,
    workload_selectors,
)
from weft.analysis.scene import Found, Scene


@dataclass(frozen=True, slots=True)
class Analyzer:
    """``usual``: it runs unless others are asked for by name."""

    name: str
    run: Callable[[Scene], Iterator[Found]]
    usual: bool = True

    @property
    def about(self) -> str:
        """What it finds, in a sentence."""
        return " ".join((self.run.__doc__ or "").split())


ANALYZERS: Final = (
    Analyzer("annotations.K8sAnalyzer", misannotation.misused),
    Analyzer("annotations.AlphaAnalyzer", misannotation.alpha, usual=False),
    Analyzer("authn.BlockedCIDRsAnalyzer", authorization.blocked_ranges),
    Analyzer("auth.AuthorizationPoliciesAnalyzer", authorization.policies),
    Analyzer("conditions.ConditionAnalyzer", conditions.conditions),
    Analyzer("deployment.MultiServiceAnalyzer", deployments.services),
    Analyzer("applicationUID.Analyzer", deployments.users),
    Analyzer("destinationrule.CaCertificateAnalyzer", destination_rules.authorities),
    Analyzer("destinationrule.SubsetSelectPodAnalyzer", destination_rules.subsets),
    Analyzer("deprecation.DeprecationAnalyzer", deprecations.fields),
    Analyzer("envoyfilter.EnvoyPatchAnalyzer", envoy_filters.patches),
    Analyzer("externalcontrolplane.ExternalControlPlaneAnalyzer", webhooks.external),
    Analyzer("gateway.IngressGatewayPortAnalyzer", gateways.ports),
    Analyzer("gateway.CertificateAnalyzer", gateway_secrets.duplicates),
    Analyzer("gateway.SecretAnalyzer", gateway_secrets.secrets),
    Analyzer("gateway.ConflictingGatewayAnalyzer", gateways.conflicts),
    Analyzer("injection.Analyzer", injection.namespaces),
    Analyzer("injection.ImageAnalyzer", injection.images),
    Analyzer("injection.ImageAutoAnalyzer", injection.auto_images),
    Analyzer("k8sgateway.SelectorAnalyzer", kubernetes_gateways.selectors),
    Analyzer("k8sgateway.CRDVersionAnalyzer", kubernetes_gateways.definitions),
    Analyzer("meshnetworks.MeshNetworksAnalyzer", clusters.networks),
    Analyzer("services.MultiClusterServiceAnalyzer", clusters.services),
    Analyzer("service.PortNameAnalyzer", services.port_names),
    Analyzer("sidecar.SelectorAnalyzer", workload_selectors.sidecars),
    Analyzer("virtualservice.ConflictingMeshGatewayHostsAnalyzer", virtual_services.shared_hosts),
    Analyzer("virtualservice.DestinationHostAnalyzer", virtual_services.destinations),
    Analyzer("virtualservice.DestinationRuleAnalyzer", virtual_services.subsets),
    Analyzer("virtualservice.GatewayAnalyzer", virtual_services.gateways),
    Analyzer("virtualservice.JWTClaimRouteAnalyzer", virtual_services.claim_routes),
    Analyzer("serviceentry.Analyzer", service_entries.addresses),
    Analyzer("serviceentry.ConflictingServiceEntryProtocolAnalyzer", service_entries.protocols),
    Analyzer("webhook.Analyzer", webhooks.injectors),
    Analyzer("telemetry.ProviderAnalyzer", workload_selectors.providers),
    Analyzer("telemetry.SelectorAnalyzer", workload_selectors.telemetries),
    Analyzer("telemetry.DefaultSelectorAnalyzer", workload_selectors.default_telemetries),
    Analyzer("telemetry.LightstepAnalyzer", deprecations.lightstep),
)
