"""Where a proxy sends to: what a cluster stands for, whether anybody is there, how it is protected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from weft.analysis.explain.answer import Failure, Target
from weft.analysis.explain.configuration import Configuration
from weft.analysis.explain.origins import Cause, service_fields
from weft.names import BLACKHOLE_CLUSTER, ClusterName

if TYPE_CHECKING:
    from weft.protos import cluster_v3, core_v3, endpoint_v3

_USABLE: Final = frozenset({0, 1, 5})  # UNKNOWN, HEALTHY, DEGRADED (core.v3.HealthStatus)
_STATIC, _EDS = 0, 3
_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
# RouteAction.ClusterNotFoundResponseCode
MISSING: Final = {0: 503, 1: 404, 2: 500}


@dataclass(frozen=True, slots=True)
class Handshake:
    """How a proxy begins a connection to an endpoint. ``tls`` is ``mtls``, ``tls`` or ``none``."""

    tls: str
    sni: str = ""
    alpn: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Upstreams:
    """The clusters of a proxy.

    ``is_kubernetes``: whether a host is a Kubernetes Service's. ``is_meshed``: whether the workloads of a
    cluster whose endpoints nobody knows will take mutual TLS. ``declared``: the resource behind a cluster.
    ``offline``: no proxy runs, so that what is fetched is not known. ``planned``: who will be behind a
    cluster of which no endpoint is known.
    """

    running: Configuration
    is_kubernetes: Callable[[str], bool]
    is_meshed: Callable[[str], bool]
    declared: Callable[[str], Cause | None] = lambda cluster: None
    offline: bool = True
    planned: Callable[[str], endpoint_v3.ClusterLoadAssignment | None] = lambda cluster: None

    def target(self, name: str, weight: int = 1, missing: int = 0, *, asked: bool = False) -> Target:
        """A cluster as a destination. ``missing`` says what is answered when there is no such cluster.

        ``asked``: the proxy asks for it then, and nothing more is known of it.
        """
        cluster = self.running.cluster(name)
        service, namespace, port, subset = self._named(name, cluster)
        comes = cluster is None and asked
        failure, status = (None, None) if comes else self._state(cluster, name, missing)
        return Target(
            cluster=name,
            service=service,
            namespace=namespace,
            port=port,
            subset=subset,
            weight=weight,
            failure=failure,
            status=status,
            tls=self._tls(cluster) if cluster is not None else "none",
        )

    def _named(
        self, name: str, cluster: cluster_v3.Cluster | None
    ) -> tuple[str | None, str | None, int | None, str | None]:
        parts = ClusterName.parse(name)
        fields = service_fields(cluster.metadata) if cluster is not None else None
        if fields is None:
            if parts is None:
                return None, None, None, None
            return parts.host or None, None, parts.port, parts.subset or None
        host, short, namespace = fields["host"], fields.get("name", ""), fields.get("namespace") or None
        service = short if short and self.is_kubernetes(host) else host
        if parts is None:
            return service, namespace, None, None
        return service, namespace, parts.port, parts.subset or None

    def _state(
        self, cluster: cluster_v3.Cluster | None, name: str, missing: int
    ) -> tuple[Failure | None, int | None]:
        if cluster is None:
            return Failure.NO_CLUSTER, MISSING[missing]
        if name == BLACKHOLE_CLUSTER:
            return None, None
        kind = cluster.type if cluster.WhichOneof("cluster_discovery_type") == "type" else None
        if kind not in {_STATIC, _EDS}:
            return None, None
        load = self.running.endpoints(cluster)
        if load is None:
            return None, None
        endpoints = [one for group in load.endpoints for one in group.lb_endpoints]
        if any(map(self.usable, endpoints)):
            return None, None
        return Failure.NO_HEALTHY_UPSTREAM, 503

    def load(self, cluster: cluster_v3.Cluster) -> endpoint_v3.ClusterLoadAssignment | None:
        """The endpoints of a cluster, or those that it will have; None when nobody knows any."""
        found = self.running.endpoints(cluster)
        return found if found is not None else self.planned(cluster.name)

    @staticmethod
    def usable(endpoint: endpoint_v3.LbEndpoint) -> bool:
        """Whether requests are sent there."""
        return endpoint.health_status in _USABLE

    def is_http2(self, cluster: cluster_v3.Cluster) -> bool | None:
        """Whether requests go to a cluster by HTTP/2; None: as they come."""
        packed = cluster.typed_extension_protocol_options.get(_HTTP_OPTIONS)
        options: Any = self.running.decoded.open(packed) if packed is not None else None
        match options.WhichOneof("upstream_protocol_options") if options is not None else None:
            case "explicit_http_config":
                return bool(options.explicit_http_config.HasField("http2_protocol_options"))
            case "use_downstream_protocol_config":
                return None
        return False

    def handshake(self, cluster: cluster_v3.Cluster, endpoint: core_v3.Metadata) -> Handshake:
        """How a connection to an endpoint, by its metadata, begins."""
        config = self._context(self._socket_for(cluster, endpoint))
        if config is None:
            return Handshake("none")
        common = config.common_tls_context
        shown = common.tls_certificates or common.tls_certificate_sds_secret_configs
        return Handshake("mtls" if shown else "tls", config.sni, tuple(common.alpn_protocols))

    def _tls(self, cluster: cluster_v3.Cluster) -> str:
        """``mtls``, ``tls`` or ``none``; where each endpoint decides, what those that are known want."""
        if not cluster.transport_socket_matches:
            return self.handshake(cluster, cluster.metadata).tls
        load = self.running.endpoints(cluster)
        endpoints = [one for group in load.endpoints for one in group.lb_endpoints] if load else []
        found = {self.handshake(cluster, one.metadata).tls for one in endpoints}
        if not found:
            return "mtls" if self.is_meshed(cluster.name) else "none"
        return "mtls" if "mtls" in found else "tls" if "tls" in found else "none"

    def _socket_for(self, cluster: cluster_v3.Cluster, endpoint: core_v3.Metadata) -> core_v3.TransportSocket:
        name = "envoy.transport_socket_match"
        own = endpoint.filter_metadata[name].fields if name in endpoint.filter_metadata else {}
        for row in cluster.transport_socket_matches:
            if all(key in own and own[key] == wanted for key, wanted in row.match.fields.items()):
                return row.transport_socket
        return cluster.transport_socket

    def _context(self, socket: core_v3.TransportSocket) -> Any:
        """The ``UpstreamTlsContext`` of a socket; None when it has none."""
        if not socket.typed_config.type_url:
            return None
        config: Any = self.running.decoded.open(socket.typed_config)
        if config is not None and config.DESCRIPTOR.name == "UpstreamProxyProtocolTransport":
            return self._context(config.transport_socket)
        return config if config is not None and config.DESCRIPTOR.name == "UpstreamTlsContext" else None
