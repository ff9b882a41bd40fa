"""Fields that will never have an effect here, and why. Their use is reported like that of untranslated ones.

A path stands for the field and all that is in it; lists are ``[]``, maps ``{}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_NO_PORTS: Final = "weft opens no ports of hosts for Services: traffic from outside comes through gateways"
_NO_BALANCER: Final = "weft makes no load balancers: traffic from outside comes through gateways"
_OWN_ADDRESS: Final = "a Service has the addresses in clusterIPs, or one of IPv4 that the mesh finds"
_OUTLIERS: Final = (
    "spec.trafficPolicy.outlierDetection",
    "spec.trafficPolicy.portLevelSettings[].outlierDetection",
    "spec.subsets[].trafficPolicy.outlierDetection",
    "spec.subsets[].trafficPolicy.portLevelSettings[].outlierDetection",
)

_NO_AMBIENT: Final = "it is for Istio's ambient mode; every workload of weft has a sidecar"
_NO_INGRESS: Final = "weft reads no Ingress: write a Gateway with routes"
_PORTS: Final = "a node gives each sidecar ports that are free, and sends its traffic there itself"
_METRICS: Final = "metrics are read by Prometheus, or go out by OpenTelemetry"
_NO_TRACER: Final = "Envoy has no such tracer any more: write an extensionProvider of kind opentelemetry"
_OWN_ENVOY: Final = "weft runs the Envoy that is installed beside it"
_OWN_BOOTSTRAP: Final = "weft writes the bootstrap: an EnvoyFilter for BOOTSTRAP changes it"
_ENROLLED: Final = "a proxy learns of its control plane from its node, which is enrolled there"
# Fields of MeshConfig's defaultConfig, and of the annotation proxy.istio.io/config.
_STARTS: Final[Mapping[str, str]] = {
    "availabilityZone": "the locality of a workload tells its zone",
    "binaryPath": _OWN_ENVOY,
    "caCertificatesPem": "whom proxies trust is for caCertificates of the mesh to say, for all alike",
    "configPath": _OWN_BOOTSTRAP,
    "connectionSettings.listenerConnectionLimit": "as in Istio: globalDownstreamConnectionLimit works",
    "controlPlaneAuthPolicy": "proxies and control plane always speak mutual TLS",
    "customConfigFile": _OWN_BOOTSTRAP,
    "discoveryAddress": _ENROLLED,
    "discoveryRefreshDelay": "configuration is pushed as soon as it changes",
    "extraStatTags": "metrics have the labels of Istio's; a tag needs not be declared",
    "envoyMetricsService": _METRICS,
    "envoyMetricsServiceAddress": _METRICS,
    "holdApplicationUntilProxyStarts": "an application is always started when its sidecar is ready",
    "image": _OWN_ENVOY,
    "interceptionMode": "a node chooses how it captures, or --capture of weft run and weft up does",
    "privateKeyProvider": "Envoy 1.40 has no cryptomb and no qat, but in its contrib build",
    "proxyAdminPort": "Envoy's admin is on a Unix socket: 'weft proxy' asks it",
    "proxyBootstrapTemplatePath": _OWN_BOOTSTRAP,
    "proxyHeaders.metadataExchangeHeaders": "sidecars of weft add no such headers to requests",
    "sds": "certificates always come by SDS",
    "statNameLength": "Envoy has no limit to the names of statistics",
    "statsCompression": "statistics are fetched on the same host, where it would only cost",
    "statsdUdpAddress": _METRICS,
    "statusPort": "a node probes applications itself, and answers for its sidecars",
}

UNSUPPORTED: Final[Mapping[str, Mapping[str, str]]] = {
    "/Service": {
        "spec.allocateLoadBalancerNodePorts": _NO_BALANCER,
        "spec.externalTrafficPolicy": "gateways take traffic from outside, and know the clients' addresses",
        "spec.healthCheckNodePort": _NO_BALANCER,
        "spec.loadBalancerClass": _NO_BALANCER,
        "spec.loadBalancerIP": _NO_BALANCER,
        "spec.loadBalancerSourceRanges": _NO_BALANCER,
        "spec.ipFamilies": _OWN_ADDRESS,
        "spec.ipFamilyPolicy": _OWN_ADDRESS,
        "spec.ports[].nodePort": _NO_PORTS,
        "spec.sessionAffinityConfig": "a client keeps its endpoint as long as that is there",
    },
    "gateway.networking.k8s.io/BackendTLSPolicy": {
        "spec.options": "the Gateway API defines none; MeshConfig's tlsDefaults limit versions and ciphers",
    },
    "gateway.networking.k8s.io/GatewayClass": {
        "spec.parametersRef": "parameters are the Gateway's own, or a ConfigMap's with the label "
        "gateway.istio.io/defaults-for-class",
    },
    "networking.istio.io/DestinationRule": {
        f"{place}.consecutiveErrors": "consecutive5xxErrors and consecutiveGatewayErrors took its place"
        for place in _OUTLIERS
    },
    "networking.istio.io/EnvoyFilter": {
        "spec.configPatches[].match.waypoint": f"{_NO_AMBIENT}: there are no waypoints",
    },
    "networking.istio.io/Gateway": {
        "spec.servers[].defaultEndpoint": "where connections go is for VirtualServices to say",
    },
    "networking.istio.io/ProxyConfig": {
        "spec.image": "weft runs the Envoy that is installed beside it",
    },
    "networking.istio.io/Sidecar": {
        f"spec.{place}.port.targetPort": "as in Istio: it is for ports of ServiceEntries"
        for place in ("egress[]", "ingress[]")
    },
    "networking.istio.io/VirtualService": {
        "spec.http[].fault.abort.http2Error": "Envoy answers statuses: write httpStatus or grpcStatus",
        "spec.http[].fault.delay.exponentialDelay": "Envoy waits for a fixed time: write fixedDelay",
    },
    "networking.istio.io/WorkloadGroup": {
        "spec.probe.exec": "it would run on hosts whatever the group says: give the command to the workload",
    },
    "telemetry.istio.io/Telemetry": {
        "spec.metrics[].reportingInterval": "bytes of a connection are counted when it ends; series are "
        "pushed every five seconds",
    },
    "weft.dev/MeshConfig": {
        "spec.caCertificates[].certSigners": "weft does not use Kubernetes' signers of certificates",
        "spec.configSources": "configuration comes by the API, or from the folder of --config",
        "spec.defaultConfig.tracing.lightstep": _NO_TRACER,
        "spec.defaultConfig.tracing.openCensusAgent": _NO_TRACER,
        "spec.defaultConfig.tracing.stackdriver": _NO_TRACER,
        "spec.extensionProviders[].lightstep": _NO_TRACER,
        "spec.extensionProviders[].opencensus": _NO_TRACER,
        "spec.extensionProviders[].sds": "certificates of gateways are Secrets, which come from weft itself",
        "spec.extensionProviders[].stackdriver": "it needs a filter that only Google's Envoys have",
        "spec.hboneIdleTimeout": _NO_AMBIENT,
        "spec.ingressClass": _NO_INGRESS,
        "spec.ingressControllerMode": _NO_INGRESS,
        "spec.ingressSelector": _NO_INGRESS,
        "spec.ingressService": _NO_INGRESS,
        "spec.proxyHttpPort": "applications are captured; 'weft run --capture env' gives each a proxy",
        "spec.proxyInboundListenPort": _PORTS,
        "spec.proxyListenPort": _PORTS,
        "spec.serviceScopeConfigs": _NO_AMBIENT,
        "spec.verifyCertificateAtClient": "servers are verified unless insecureSkipVerify is said",
        **{f"spec.defaultConfig.{field}": why for field, why in _STARTS.items()},
    },
}


# Values that have no effect, of fields that do.
VALUES: Final[Mapping[str, Mapping[str, Mapping[object, str]]]] = {
    "/Service": {"spec.type": {"LoadBalancer": _NO_BALANCER, "NodePort": _NO_PORTS}},
}


def reason(kind: str, path: str) -> str:
    """Why a field of a kind has no effect; empty when it may have one."""
    table = UNSUPPORTED.get(kind, {})
    for field, why in table.items():
        if path == field or path.startswith((f"{field}.", f"{field}[", f"{field}{{")):
            return why
    return ""
