"""Fields that will never have an effect here, and why. Their use is reported like that of untranslated ones.

A path stands for the field and all that is in it; lists are ``[]``, maps ``{}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_NO_PORTS: Final = "weft opens no ports of hosts for Services: traffic from outside comes through gateways"
_NO_BALANCER: Final = "weft makes no load balancers: traffic from outside comes through gateways"
_OUTLIERS: Final = (
    "spec.trafficPolicy.outlierDetection",
    "spec.trafficPolicy.portLevelSettings[].outlierDetection",
    "spec.subsets[].trafficPolicy.outlierDetection",
    "spec.subsets[].trafficPolicy.portLevelSettings[].outlierDetection",
)

UNSUPPORTED: Final[Mapping[str, Mapping[str, str]]] = {
    "/Service": {
        "spec.allocateLoadBalancerNodePorts": _NO_BALANCER,
        "spec.externalTrafficPolicy": "gateways take traffic from outside, and know the clients' addresses",
        "spec.healthCheckNodePort": _NO_BALANCER,
        "spec.loadBalancerClass": _NO_BALANCER,
        "spec.loadBalancerIP": _NO_BALANCER,
        "spec.loadBalancerSourceRanges": _NO_BALANCER,
        "spec.ports[].nodePort": _NO_PORTS,
        "spec.sessionAffinityConfig": "a client keeps its endpoint as long as that is there",
    },
    "networking.istio.io/DestinationRule": {
        f"{place}.consecutiveErrors": "consecutive5xxErrors and consecutiveGatewayErrors took its place"
        for place in _OUTLIERS
    },
    "networking.istio.io/Gateway": {
        "spec.servers[].defaultEndpoint": "where connections go is for VirtualServices to say",
    },
    "networking.istio.io/ProxyConfig": {
        "spec.image": "weft runs the Envoy that is installed beside it",
    },
    "networking.istio.io/VirtualService": {
        "spec.http[].fault.abort.http2Error": "Envoy answers statuses: write httpStatus or grpcStatus",
        "spec.http[].fault.delay.exponentialDelay": "Envoy waits for a fixed time: write fixedDelay",
    },
    "networking.istio.io/WorkloadGroup": {
        "spec.probe.exec": "it would run on hosts whatever the group says: give the command to the workload",
    },
}


def reason(kind: str, path: str) -> str:
    """Why a field of a kind has no effect; empty when it may have one."""
    table = UNSUPPORTED.get(kind, {})
    for field, why in table.items():
        if path == field or path.startswith((f"{field}.", f"{field}[", f"{field}{{")):
            return why
    return ""
