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
    from weft.protos import cluster_v3, core_v3

_USABLE: Final = frozenset({0, 1, 5})  # UNKNOWN, HEALTHY, DEGRADED (core.v3.HealthStatus)
_STATIC, _EDS = 0, 3
# RouteAction.ClusterNotFoundResponseCode
MISSING: Final = {0: 503, 1: 404, 2: 500}


@dataclass(frozen=True, slots=True)
class Upstreams:
    """The clusters of a proxy.

    ``is_kubernetes``: whether a host is a Kubernetes Service's. ``is_meshed``: whether the workloads of a
    cluster whose endpoints nobody knows will take mutual TLS. ``declared``: the resource behind a cluster.
    ``offline``: no proxy runs, so that what is fetched is not known.
    """

    running: Configuration
    is_kubernetes: Callable[[str], bool]
    is_meshed: Callable[[str], bool]
    declared: Callable[[str], Cause | None] = lambda cluster: None
    offline: bool = True

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
        if any(one.health_status in _USABLE for one in endpoints):
            return None, None
        return Failure.NO_HEALTHY_UPSTREAM, 503

    def _tls(self, cluster: cluster_v3.Cluster) -> str:
        """``mtls``, ``tls`` or ``none``; where each endpoint decides, what those that are known want."""
        if not cluster.transport_socket_matches:
            return self._socket(cluster.transport_socket)
        load = self.running.endpoints(cluster)
        endpoints = [one for group in load.endpoints for one in group.lb_endpoints] if load else []
        found = {self._endpoint(cluster, one.metadata) for one in endpoints}
        if not found:
            return "mtls" if self.is_meshed(cluster.name) else "none"
        return "mtls" if "mtls" in found else "tls" if "tls" in found else "none"

    def _endpoint(self, cluster: cluster_v3.Cluster, metadata: core_v3.Metadata) -> str:
        name = "envoy.transport_socket_match"
        own = metadata.filter_metadata[name].fields if name in metadata.filter_metadata else {}
        for row in cluster.transport_socket_matches:
            if all(key in own and own[key] == wanted for key, wanted in row.match.fields.items()):
                return self._socket(row.transport_socket)
        return self._socket(cluster.transport_socket)

    def _socket(self, socket: core_v3.TransportSocket) -> str:
        if not socket.typed_config.type_url:
            return "none"
        config: Any = self.running.decoded.open(socket.typed_config)
        if config is not None and config.DESCRIPTOR.name == "UpstreamProxyProtocolTransport":
            return self._socket(config.transport_socket)
        if config is None or config.DESCRIPTOR.name != "UpstreamTlsContext":
            return "none"
        common = config.common_tls_context
        shown = common.tls_certificates or common.tls_certificate_sds_secret_configs
        return "mtls" if shown else "tls"
