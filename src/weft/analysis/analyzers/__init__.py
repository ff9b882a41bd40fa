"""The analyzers: Istio's, by its names (istio/istio, pkg/config/analysis/analyzers), and our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from weft.analysis.analyzers import (
    attachments,
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
    """``usual``: it runs unless others are asked for by name.

    ``whole``: it looks at workloads, Services, namespaces or secrets, which files that are only a part of
    what there is do not have; those that are not, judge such files too.
    """

    name: str
    run: Callable[[Scene], Iterator[Found]]
    usual: bool = True
    whole: bool = True

    @property
    def about(self) -> str:
        """What it finds, in a sentence."""
        return " ".join((self.run.__doc__ or "").split())


ANALYZERS: Final = (
    Analyzer("annotations.K8sAnalyzer", misannotation.misused),
    Analyzer("annotations.AlphaAnalyzer", misannotation.alpha, usual=False),
    Analyzer("authn.BlockedCIDRsAnalyzer", authorization.blocked_ranges, whole=False),
    Analyzer("auth.AuthorizationPoliciesAnalyzer", authorization.policies),
    Analyzer("conditions.ConditionAnalyzer", conditions.conditions),
    Analyzer("deployment.MultiServiceAnalyzer", deployments.services),
    Analyzer("applicationUID.Analyzer", deployments.users),
    Analyzer("destinationrule.CaCertificateAnalyzer", destination_rules.authorities, whole=False),
    Analyzer("destinationrule.SubsetSelectPodAnalyzer", destination_rules.subsets),
    Analyzer("deprecation.DeprecationAnalyzer", deprecations.fields, whole=False),
    Analyzer("envoyfilter.EnvoyPatchAnalyzer", envoy_filters.patches, whole=False),
    Analyzer("externalcontrolplane.ExternalControlPlaneAnalyzer", webhooks.external, whole=False),
    Analyzer("gateway.IngressGatewayPortAnalyzer", gateways.ports),
    Analyzer("gateway.CertificateAnalyzer", gateway_secrets.duplicates, whole=False),
    Analyzer("gateway.SecretAnalyzer", gateway_secrets.secrets),
    Analyzer("gateway.ConflictingGatewayAnalyzer", gateways.conflicts),
    Analyzer("injection.Analyzer", injection.namespaces),
    Analyzer("injection.ImageAnalyzer", injection.images),
    Analyzer("injection.ImageAutoAnalyzer", injection.auto_images),
    Analyzer("k8sgateway.SelectorAnalyzer", kubernetes_gateways.selectors),
    Analyzer("k8sgateway.CRDVersionAnalyzer", kubernetes_gateways.definitions, whole=False),
    Analyzer("meshnetworks.MeshNetworksAnalyzer", clusters.networks),
    Analyzer("services.MultiClusterServiceAnalyzer", clusters.services),
    Analyzer("service.PortNameAnalyzer", services.port_names),
    Analyzer("sidecar.SelectorAnalyzer", workload_selectors.sidecars),
    Analyzer(
        "virtualservice.ConflictingMeshGatewayHostsAnalyzer", virtual_services.shared_hosts, whole=False
    ),
    Analyzer("virtualservice.DestinationHostAnalyzer", virtual_services.destinations),
    Analyzer("virtualservice.DestinationRuleAnalyzer", virtual_services.subsets, whole=False),
    Analyzer("virtualservice.GatewayAnalyzer", virtual_services.gateways, whole=False),
    Analyzer("virtualservice.JWTClaimRouteAnalyzer", virtual_services.claim_routes),
    Analyzer("serviceentry.Analyzer", service_entries.addresses, whole=False),
    Analyzer("serviceentry.ConflictingServiceEntryProtocolAnalyzer", service_entries.protocols, whole=False),
    Analyzer("webhook.Analyzer", webhooks.injectors),
    Analyzer("telemetry.ProviderAnalyzer", workload_selectors.providers, whole=False),
    Analyzer("telemetry.SelectorAnalyzer", workload_selectors.telemetries),
    Analyzer("telemetry.DefaultSelectorAnalyzer", workload_selectors.default_telemetries, whole=False),
    Analyzer("telemetry.LightstepAnalyzer", deprecations.lightstep, whole=False),
    Analyzer("weft.TokenAnalyzer", authorization.unverified),
    Analyzer("weft.ParentAnalyzer", attachments.parents),
    Analyzer("weft.ClassAnalyzer", attachments.classes),
)
