"""Every name that goes over the wire, spelled once. Istio's, so that its tools keep working.

Sources: istio/istio pilot/pkg/model/push_context.go (clusters, SNI), pilot/pkg/networking/core
(listeners, route configurations), pkg/model (node ids).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

ROOT_NAMESPACE: Final = "istio-system"
CLUSTER_DOMAIN: Final = "cluster.local"
TRUST_DOMAIN: Final = "cluster.local"
# Who the control plane is: all of its own certificates bear this DNS name, and nobody else's do.
CONTROL_PLANE_ACCOUNT: Final = "istiod"
CONTROL_PLANE_HOST: Final = "istiod.istio-system.svc"
# The one DNS name of every node: Prometheus verifies no other form of names.
NODE_HOST: Final = "weft-node.istio-system.svc"

PASSTHROUGH_CLUSTER: Final = "PassthroughCluster"
LOOKUP_CLUSTER: Final = "AllowAnyDynamicDNSCluster"
BLACKHOLE_CLUSTER: Final = "BlackHoleCluster"
INBOUND_PASSTHROUGH_CLUSTER: Final = "InboundPassthroughCluster"
XDS_CLUSTER: Final = "xds-grpc"
# Where spans, logs and metrics go: a process and a port beside the control plane's.
TELEMETRY_CLUSTER: Final = "weft-telemetry"
# Of a proxy's runtime: the share of requests that it tells of while somebody watches; and what marks those.
TAP_SHARE: Final = "weft.tap.share"
TAP_MARK: Final = "tap"
# Where a filter of ours leaves how many messages a call of gRPC had.
GRPC_MESSAGES: Final = "weft.grpc"
GRPC_MESSAGES_FILTER: Final = "weft.filters.http.grpc_messages"
# The proxy's own replicas, which Envoy must know from its start (cluster_manager.local_cluster_name).
LOCAL_CLUSTER: Final = "local"
LOCAL_ENDPOINTS: Final = "local|"

# The condition of a WorkloadEntry that, when False, keeps traffic away (Istio, pkg/workloadentry).
HEALTHY: Final = "Healthy"

# Where the JWT filter leaves the claims of a verified token (Istio, pilot/pkg/xds/filters).
JWT_FILTER: Final = "envoy.filters.http.jwt_authn"
JWT_PAYLOAD: Final = "payload"
# What policies that are tried out come to is told under names that begin so (Istio, authz/model).
DRY_RUN_ALLOW: Final = "istio_dry_run_allow_"
DRY_RUN_DENY: Final = "istio_dry_run_deny_"
# The same of policies that an authorizer decides about, and what begins the names of their rules; what ends
# those of rules that refuse what they fit, because there is nobody to decide (authz/builder).
CONSULTATION: Final = "istio_ext_authz_"
CONSULTATION_RULE: Final = "istio-ext-authz"
CONSULTATION_IN_VAIN: Final = "-deny-due-to-bad-CUSTOM-action"

VIRTUAL_OUTBOUND: Final = "virtualOutbound"
VIRTUAL_INBOUND: Final = "virtualInbound"
BLOCK_ALL: Final = "block_all"
ALLOW_ANY: Final = "allow_any"
ALLOW_ANY_LOOKUP: Final = "allow_any_dynamic_dns"

OUTBOUND_PORT: Final = 15001
INBOUND_PORT: Final = 15006
XDS_PORT: Final = 15012
TELEMETRY_PORT: Final = 15013
MONITORING_PORT: Final = 15014
API_PORT: Final = 15017
NODE_METRICS_PORT: Final = 15020
HEALTH_PORT: Final = 15021
DNS_PORT: Final = 15053
PROMETHEUS_PORT: Final = 15090
# A redirected sidecar hands inbound connections to its application from this address (Istio's
# InboundPassthroughBindIpv4): the node's rules send every other connection of the sidecar to its own
# workload through the inbound listener, so that one without it goes round for ever.
INBOUND_SOURCE: Final = "127.0.0.6"
HOST_BLOCK_FIRST_PORT: Final = 15400
HOST_BLOCK_SIZE: Final = 8

# The controllerName of GatewayClasses that are ours.
# Whose resources these are, for EnvoyFilters that ask for a version of Istio's proxy.
ISTIO_VERSION: Final = "1.31.0"
GATEWAY_CONTROLLER: Final = "weft.dev/gateway-controller"
# Where gateways of one host are that have the same ports.
GATEWAY_ADDRESSES: Final = "127.192.0.0/10"
GATEWAY_NAME_LABEL: Final = "gateway.networking.k8s.io/gateway-name"
HTTP3_ANNOTATION: Final = "weft.dev/http3"
# Istio's, on the entry of an instance: the WorkloadGroup by which it was registered.
GROUP_ANNOTATION: Final = "istio.io/autoRegistrationGroup"
WORKLOAD_LABEL: Final = "weft.dev/workload"
# What a replica has behind its Workload's name.
REPLICA: Final = re.compile(r"-\d+$")
NODE_LABEL: Final = "weft.dev/node"
# Where something runs (Kubernetes' and Istio's labels); Istio's own goes before all: region.zone.subzone.
LOCALITY_LABEL: Final = "istio-locality"
NETWORK_LABEL: Final = "topology.istio.io/network"
GATEWAY_PORT_LABEL: Final = "networking.istio.io/gatewayPort"
# Istio's name for a part of a mesh with a registry of its own; weft's has one.
CLUSTER_ID: Final = "weft"
CLUSTER_LABEL: Final = "topology.istio.io/cluster"
REGION_LABEL: Final = "topology.kubernetes.io/region"
ZONE_LABEL: Final = "topology.kubernetes.io/zone"
SUBZONE_LABEL: Final = "topology.istio.io/subzone"
HOSTNAME_LABEL: Final = "kubernetes.io/hostname"

# File SDS: Envoy runs in its workload's directory and watches it; one secret a file, since Envoy's file
# subscription refuses two ("Unexpected SDS secrets length").
WORKLOAD_CERTIFICATE: Final = "default"
WORKLOAD_CERTIFICATE_FILE: Final = "sds.json"
WORKLOAD_TRUST_BUNDLE: Final = "ROOTCA"
WORKLOAD_TRUST_BUNDLE_FILE: Final = "sds-rootca.json"
# Where SPIFFE's clients look for the Workload API (SPIFFE Workload Endpoint, section 4).
SPIFFE_SOCKET_VARIABLE: Final = "SPIFFE_ENDPOINT_SOCKET"

# xDS type URLs.
CLUSTER_TYPE: Final = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINT_TYPE: Final = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER_TYPE: Final = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTE_TYPE: Final = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
SECRET_TYPE: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105
EXTENSION_TYPE: Final = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
VIRTUAL_HOST_TYPE: Final = "type.googleapis.com/envoy.config.route.v3.VirtualHost"

# What a gateway's Secret is called over SDS, before NAMESPACE/NAME (istio pilot/pkg/credentials).
GATEWAY_SECRET_SCHEME: Final = "kubernetes-gateway://"  # noqa: S105
CONFIG_MAP_SCHEME: Final = "configmap://"
AUTHORITY_SUFFIX: Final = "-cacert"

# ALPN between Istio proxies (pilot/pkg/networking/util): outbound HTTP offers these, TCP offers "istio".
ALPN_MESH_HTTP1: Final = "istio-http/1.1"
ALPN_MESH_HTTP10: Final = "istio-http/1.0"
ALPN_MESH_H2: Final = "istio-h2"
ALPN_MESH_TCP: Final = "istio"
ALPN_PEER_EXCHANGE: Final = "istio-peer-exchange"


def service_host(name: str, namespace: str, domain: str = CLUSTER_DOMAIN) -> str:
    """``reviews`` in ``default`` -> ``reviews.default.svc.cluster.local``."""
    return f"{name}.{namespace}.svc.{domain}"


def expand_host(host: str, namespace: str, domain: str = CLUSTER_DOMAIN) -> str:
    """Istio's short-name rule: a name without a dot means a service of the resource's namespace.

    Wildcards and names with a dot are taken as they are (istio.io: VirtualService.hosts).
    """
    return host if "." in host or host == "*" else service_host(host, namespace, domain)


def outbound_cluster(host: str, port: int, subset: str = "") -> str:
    """``outbound|9080|v1|reviews.default.svc.cluster.local``."""
    return f"outbound|{port}|{subset}|{host}"


def outbound_udp_cluster(host: str, port: int) -> str:
    """``outbound_udp|53||dns.default.svc.cluster.local``: the same port may be there for TCP, too."""
    return f"outbound_udp|{port}||{host}"


def inbound_cluster(port: int) -> str:
    """``inbound|9080||``."""
    return f"inbound|{port}||"


def table_variant(name: str, mark: str) -> str:
    """A route table that only some listeners may use: ``http.80~1a2b3c4d``."""
    return f"{name}~{mark}"


def table_name(text: str) -> str:
    """What a table is called, whichever variant it is."""
    return text.partition("~")[0]


def outbound_sni(host: str, port: int, subset: str = "") -> str:
    """``outbound_.9080_.v1_.reviews.default.svc.cluster.local``."""
    return f"outbound_.{port}_.{subset}_.{host}"


_CLUSTER: Final = re.compile(
    r"(?P<direction>outbound|inbound)(?P<udp>_udp)?\|(?P<port>\d+)\|(?P<subset>[^|]*)\|(?P<host>.*)"
)
_SNI: Final = re.compile(r"outbound_\.(?P<port>\d+)_\.(?P<subset>[^_]*)_\.(?P<host>.*)")


@dataclass(frozen=True, slots=True)
class ClusterName:
    """The parts of a cluster's name. ``sealed``: the form of an SNI, where TLS of the mesh passes through.

    ``udp``: datagrams go there.
    """

    direction: str
    port: int
    subset: str
    host: str
    sealed: bool = False
    udp: bool = False

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The parts, or None for a name of another form, as ``PassthroughCluster``."""
        match = _CLUSTER.fullmatch(text)
        if match is not None:
            return cls(
                match["direction"],
                int(match["port"]),
                match["subset"],
                match["host"],
                udp=match["udp"] is not None,
            )
        match = _SNI.fullmatch(text)
        if match is None:
            return None
        return cls("outbound", int(match["port"]), match["subset"], match["host"], sealed=True)


@dataclass(frozen=True, slots=True)
class ProxyName:
    """An xDS node id: ``sidecar~10.0.0.1~reviews-0.default~default.svc.cluster.local``.

    ``kind`` is ``sidecar`` or ``router``.
    """

    kind: str
    address: str
    name: str
    namespace: str
    domain: str = CLUSTER_DOMAIN

    def __str__(self) -> str:
        return f"{self.kind}~{self.address}~{self.name}.{self.namespace}~{self.namespace}.svc.{self.domain}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a node id; the last part may be missing, as in ``weft xds --proxy TYPE~IP~NAME.NS``.

        Raises:
            ValueError: when the text has another form.
        """
        parts = text.split("~")
        if len(parts) in {3, 4} and parts[0] in {"sidecar", "router"} and "." in parts[2]:
            name, _, namespace = parts[2].rpartition(".")
            _, found, domain = parts[3].partition(".svc.") if len(parts) == 4 else ("", "", "")
            if name and namespace:
                return cls(parts[0], parts[1], name, namespace, domain if found else CLUSTER_DOMAIN)
        raise ValueError(
            f"{text!r} is not a proxy: write sidecar~IP~NAME.NAMESPACE or router~IP~NAME.NAMESPACE"
        )


def local_endpoints(namespace: str, name: str) -> str:
    """What the endpoints of a proxy's local cluster are called over EDS: a name of its own for each."""
    return f"{LOCAL_ENDPOINTS}{namespace}|{name}"


def authorization_rule(namespace: str, name: str, rule: int) -> str:
    """What a proxy calls a rule of an AuthorizationPolicy: ``ns[default]-policy[viewers]-rule[0]``."""
    return f"ns[{namespace}]-policy[{name}]-rule[{rule}]"


class AuthorizationRule(NamedTuple):
    """A rule of an AuthorizationPolicy, from 0."""

    namespace: str
    name: str
    rule: int


_RULE: Final = re.compile(r"ns\[([^\[\]]*)\]-policy\[([^\[\]]*)\]-rule\[(\d+)\]")


_CONSULTED: Final = re.compile(rf"{CONSULTATION_RULE}-(?:(.*)-)?ns\[")


def read_consulted_provider(text: str) -> str | None:
    """The provider in the name of a rule that leaves the decision to one; None for other rules."""
    found = _CONSULTED.match(text)
    return found[1] or "" if found is not None else None


def read_authorization_rule(text: str) -> AuthorizationRule | None:
    """The rule of that name, whatever goes before it; None when it is none."""
    found = _RULE.search(text)
    return AuthorizationRule(found[1], found[2], int(found[3])) if found else None


def workload_name(labels: Mapping[str, str], name: str) -> str:
    """What an instance is one of, as a pod is one of its Deployment's: series bear this name."""
    return labels.get(WORKLOAD_LABEL) or name


def canonical_name(labels: Mapping[str, str], workload: str) -> str:
    """What telemetry calls the service: Istio's own label, then the usual ones, then the workload's name."""
    for label in ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app"):
        if labels.get(label):
            return labels[label]
    return workload


def canonical_revision(labels: Mapping[str, str]) -> str:
    """Its revision: Istio's own label, then the usual ones, then ``latest``."""
    for label in ("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"):
        if labels.get(label):
            return labels[label]
    return "latest"
