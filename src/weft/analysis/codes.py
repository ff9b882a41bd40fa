"""Every code that a finding may bear: Istio's (pkg/config/analysis/msg/messages.yaml), and weft's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from weft.errors import Severity

ERROR: Final = Severity.ERROR
WARNING: Final = Severity.WARNING
INFO: Final = Severity.INFO

RANK: Final = {ERROR: 0, WARNING: 1, INFO: 2}
"""The worst first."""


@dataclass(frozen=True, slots=True)
class Code:
    """A kind of finding. ``silent``: why weft never gives it; it is listed so that people find it."""

    id: str
    level: Severity
    name: str
    about: str
    silent: str = ""

    @property
    def url(self) -> str:
        """Where it is explained."""
        if self.id.startswith("IST"):
            return f"https://istio.io/latest/docs/reference/config/analysis/{self.id.lower()}/"
        return f"docs/reference/analysis.md#{self.id.lower()}"


_CLUSTER: Final = "only an installation of Istio in Kubernetes can be asked"
_UPGRADE: Final = "it is about upgrades of Istio"

_ISTIO: Final = (
    Code("IST0001", ERROR, "InternalError", "An analyzer itself failed: a defect, please report it."),
    Code("IST0002", WARNING, "Deprecated", "Something that will go away is used."),
    Code("IST0101", ERROR, "ReferencedResourceNotFound", "What a resource refers to does not exist."),
    Code(
        "IST0102", INFO, "NamespaceNotInjected", "No label says whether pods of the namespace get sidecars."
    ),
    Code("IST0103", WARNING, "PodMissingProxy", "A pod of an injected namespace has no sidecar."),
    Code("IST0106", ERROR, "SchemaValidationError", "A resource does not obey its schema or its rules."),
    Code("IST0107", WARNING, "MisplacedAnnotation", "An annotation stands on a kind that it is not for."),
    Code("IST0108", WARNING, "UnknownAnnotation", "Istio knows no annotation of this name."),
    Code(
        "IST0109",
        ERROR,
        "ConflictingMeshGatewayVirtualServiceHosts",
        "Several VirtualServices of the mesh have the same host.",
    ),
    Code(
        "IST0110", ERROR, "ConflictingSidecarWorkloadSelectors", "Several Sidecars select the same workload."
    ),
    Code(
        "IST0111",
        ERROR,
        "MultipleSidecarsWithoutWorkloadSelectors",
        "Several Sidecars of a namespace have no selector.",
    ),
    Code(
        "IST0112",
        ERROR,
        "VirtualServiceDestinationPortSelectorRequired",
        "A destination has several ports and the route names none.",
    ),
    Code(
        "IST0116",
        WARNING,
        "DeploymentAssociatedToMultipleServices",
        "Services of a deployment use one port with different protocols.",
    ),
    Code(
        "IST0118",
        INFO,
        "PortNameIsNotUnderNamingConvention",
        "A port's name does not tell its protocol, so that it is detected.",
    ),
    Code(
        "IST0123",
        WARNING,
        "NamespaceMultipleInjectionLabels",
        "Several labels of a namespace decide about sidecars.",
    ),
    Code("IST0125", WARNING, "InvalidAnnotation", "An annotation has a value that it cannot have."),
    Code(
        "IST0126",
        ERROR,
        "UnknownMeshNetworksServiceRegistry",
        "A network takes its endpoints from a registry that is not known.",
    ),
    Code("IST0127", WARNING, "NoMatchingWorkloadsFound", "A policy applies to no workload."),
    Code(
        "IST0128",
        WARNING,
        "NoServerCertificateVerificationDestinationLevel",
        "A DestinationRule asks for TLS and does not say whom to trust.",
    ),
    Code(
        "IST0129",
        WARNING,
        "NoServerCertificateVerificationPortLevel",
        "A DestinationRule asks for TLS on a port and does not say whom to trust.",
    ),
    Code("IST0130", WARNING, "VirtualServiceUnreachableRule", "Rules before it leave nothing for a rule."),
    Code("IST0131", INFO, "VirtualServiceIneffectiveMatch", "A match of an earlier rule covers a match."),
    Code(
        "IST0132",
        WARNING,
        "VirtualServiceHostNotFoundInGateway",
        "A Gateway serves none of the hosts of a VirtualService that is bound to it.",
    ),
    Code("IST0133", WARNING, "SchemaWarning", "A resource is accepted, and says something dubious."),
    Code(
        "IST0134",
        WARNING,
        "ServiceEntryAddressesRequired",
        "A TCP port of a ServiceEntry without addresses cannot be told from others.",
    ),
    Code("IST0135", INFO, "DeprecatedAnnotation", "An annotation will go away."),
    Code("IST0136", INFO, "AlphaAnnotation", "An annotation is experimental. Only on request (--analyzer)."),
    Code(
        "IST0137",
        WARNING,
        "DeploymentConflictingPorts",
        "Services of a deployment lead different ports to one target port.",
    ),
    Code(
        "IST0138",
        WARNING,
        "GatewayDuplicateCertificate",
        "Gateways share a certificate: a browser that reuses a connection may get 404.",
    ),
    Code(
        "IST0139",
        ERROR,
        "InvalidWebhook",
        "An injection webhook overlaps with another, or leads to a service that does not exist.",
    ),
    Code(
        "IST0140",
        WARNING,
        "IngressRouteRulesNotAffected",
        "Subsets that one VirtualService chooses do not count where another one, of a gateway, routes.",
    ),
    Code("IST0141", ERROR, "InsufficientPermissions", "Rights for an installation are missing.", _CLUSTER),
    Code("IST0142", ERROR, "UnsupportedKubernetesVersion", "Kubernetes is too old.", _CLUSTER),
    Code("IST0143", ERROR, "LocalhostListener", "A Service's port listens on localhost only.", _CLUSTER),
    Code("IST0144", WARNING, "InvalidApplicationUID", "An application runs as user 1337, the sidecar's."),
    Code(
        "IST0145",
        ERROR,
        "ConflictingGateways",
        "Gateways select the same workload, and have the same port and host.",
    ),
    Code(
        "IST0146",
        WARNING,
        "ImageAutoWithoutInjectionWarning",
        "A deployment leaves its sidecar's image to an injector that will not see it.",
    ),
    Code(
        "IST0147",
        ERROR,
        "ImageAutoWithoutInjectionError",
        "A pod runs whose sidecar's image no injector filled in.",
    ),
    Code("IST0148", INFO, "NamespaceInjectionEnabledByDefault", "Pods of a namespace get sidecars unasked."),
    Code(
        "IST0149",
        ERROR,
        "JwtClaimBasedRoutingWithoutRequestAuthN",
        "Routes go by claims of a token that nobody checks.",
    ),
    Code(
        "IST0150",
        WARNING,
        "ExternalNameServiceTypeInvalidPortName",
        "A port of an ExternalName Service is named for TCP, or for nothing.",
    ),
    Code(
        "IST0151",
        WARNING,
        "EnvoyFilterUsesRelativeOperation",
        "A patch depends on what others did before, and has no priority.",
    ),
    Code(
        "IST0152",
        ERROR,
        "EnvoyFilterUsesReplaceOperationIncorrectly",
        "REPLACE is for filters and virtual hosts only.",
    ),
    Code(
        "IST0153",
        ERROR,
        "EnvoyFilterUsesAddOperationIncorrectly",
        "ADD has no effect on route configurations and routes.",
    ),
    Code(
        "IST0154",
        ERROR,
        "EnvoyFilterUsesRemoveOperationIncorrectly",
        "REMOVE has no effect on route configurations and routes.",
    ),
    Code(
        "IST0155",
        WARNING,
        "EnvoyFilterUsesRelativeOperationWithProxyVersion",
        "A patch depends on another one that is for certain versions of the proxy only.",
    ),
    Code("IST0156", ERROR, "UnsupportedGatewayAPIVersion", "Definitions are too old.", _UPGRADE),
    Code("IST0157", WARNING, "InvalidTelemetryProvider", "Access logs without a provider go nowhere."),
    Code(
        "IST0158",
        WARNING,
        "PodsIstioProxyImageMismatchInNamespace",
        "Pods run another sidecar than the injector would give them.",
    ),
    Code(
        "IST0159",
        ERROR,
        "ConflictingTelemetryWorkloadSelectors",
        "Several Telemetry resources select the same workload.",
    ),
    Code(
        "IST0160",
        ERROR,
        "MultipleTelemetriesWithoutWorkloadSelectors",
        "Several Telemetry resources of a namespace have no selector.",
    ),
    Code(
        "IST0161",
        ERROR,
        "InvalidGatewayCredential",
        "A Gateway's secret holds no certificate that is good today.",
    ),
    Code(
        "IST0162",
        WARNING,
        "GatewayPortNotDefinedOnService",
        "A Gateway's port cannot be reached through the Service of its workload.",
    ),
    Code(
        "IST0163",
        WARNING,
        "InvalidExternalControlPlaneConfig",
        "A webhook's address of an external control plane is no address.",
    ),
    Code(
        "IST0164",
        INFO,
        "ExternalControlPlaneAddressIsNotAHostname",
        "A webhook names an external control plane by its IP.",
    ),
    Code(
        "IST0165",
        WARNING,
        "ReferencedInternalGateway",
        "A VirtualService names a Gateway that Istio makes for itself.",
    ),
    Code(
        "IST0166",
        WARNING,
        "IneffectiveSelector",
        "A selector chooses the proxy of a Kubernetes Gateway, which only targetRef can.",
    ),
    Code("IST0167", WARNING, "IneffectivePolicy", "A policy has no effect where it is."),
    Code("IST0168", WARNING, "UnknownUpgradeCompatibility", "A default has changed.", _UPGRADE),
    Code("IST0169", WARNING, "UpdateIncompatibility", "A default has changed.", _UPGRADE),
    Code(
        "IST0170",
        WARNING,
        "MultiClusterInconsistentService",
        "A Service differs from cluster to cluster.",
    ),
    Code("IST0171", WARNING, "NegativeConditionStatus", "A resource's status says that it is not in force."),
    Code("IST0172", WARNING, "FutureUnsupportedGatewayAPIVersion", "Definitions age.", _UPGRADE),
    Code("IST0173", ERROR, "DestinationRuleSubsetNotSelectPods", "No workload belongs to a subset."),
    Code("IST0174", WARNING, "UnknownDestinationRuleHost", "A DestinationRule is for no known host."),
    Code(
        "IST0175",
        WARNING,
        "JwksUriFetchUnrestricted",
        "Istio's control plane would fetch keys of tokens from anywhere.",
    ),
    Code(
        "IST0176",
        WARNING,
        "GatewayAPICRDVersionBelowMinimum",
        "A definition of the Gateway API is older than Istio can use.",
    ),
    Code(
        "IST0177",
        WARNING,
        "ConflictingServiceEntryProtocol",
        "ServiceEntries give one port of a host different protocols.",
    ),
)

_WEFT: Final = (
    Code("WEFT0001", WARNING, "Untranslated", "A field is kept and has no effect, here or not yet."),
    Code(
        "WEFT0003",
        ERROR,
        "Uncompiled",
        "weft failed to make a proxy's configuration.",
        "the control plane's log has it",
    ),
    Code("WEFT0010", ERROR, "Syntax", "A document is not YAML, or no mapping."),
    Code("WEFT0011", ERROR, "Shape", "A field has a value of the wrong type or form."),
    Code("WEFT0012", ERROR, "UnknownField", "There is no field of this name."),
    Code("WEFT0013", ERROR, "Rule", "Fields that are right by themselves do not go together."),
    Code("WEFT0014", ERROR, "UnknownKind", "weft does not know the kind, or not in this version."),
    Code(
        "WEFT0015", ERROR, "Content", "A part of a document could not be read, as a key that is there twice."
    ),
    Code("WEFT0016", WARNING, "Doubtful", "A resource is accepted, and will hardly do what was meant."),
    Code("WEFT0021", WARNING, "Skipped", "A kind is not weft's: apply leaves it out.", "weft apply says it"),
    Code("WEFT0022", WARNING, "Twice", "Two documents declare one resource: the last one counts here."),
    Code("WEFT0023", ERROR, "Foreign", "An object belongs to somebody else.", "weft apply says it"),
    Code("WEFT0024", ERROR, "Refused", "The API refuses a change.", "weft apply says it"),
    Code(
        "WEFT0025", ERROR, "Relative", "A path means nothing without the file's folder.", "weft apply says it"
    ),
    Code(
        "WEFT0026", ERROR, "Uncompilable", "weft fails to compile the resources: a defect, please report it."
    ),
    Code("WEFT0101", WARNING, "ClaimsIgnored", "A match by claims of a token that nobody verifies."),
    Code("WEFT0102", WARNING, "Unheeded", "A value of a field has no effect yet."),
    Code("WEFT0103", WARNING, "SecretUnusable", "A secret that a proxy needs is not there or is not usable."),
    Code("WEFT0104", WARNING, "SecretWithheld", "A proxy may not have a secret.", "the log has it"),
    Code(
        "WEFT0105", ERROR, "Patch", "Envoy cannot read the value of an EnvoyFilter's patch, or a field of it."
    ),
    Code("WEFT0110", WARNING, "Delegation", "A rule that leads to another VirtualService is left out."),
    Code("WEFT0111", WARNING, "Overruled", "Of resources that contradict each other, another one counts."),
    Code("WEFT0112", WARNING, "KeysUnknown", "The keys of an issuer of tokens cannot be fetched."),
    Code("WEFT0201", WARNING, "NotInForce", "By the Gateway API's rules, a resource or a part is refused."),
    Code(
        "WEFT0202",
        WARNING,
        "NoGatewayClass",
        "A Gateway is of a class that does not exist: nobody serves it.",
    ),
)

CODES: Final = {code.id: code for code in (*_ISTIO, *_WEFT)}
