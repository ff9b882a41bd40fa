"""Endpoints: who answers, in the order in which a client at some place should try them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from weft.emit.networks import reachable
from weft.emit.packed import Packed, packed_once
from weft.emit.placement import groups
from weft.emit.scalars import address, shares, struct, uint32
from weft.ir.endpoint import Endpoint, EndpointSet, Health, Locality
from weft.ir.placement import ANYWHERE, UNPLACED, Placement, Standpoint, seen
from weft.names import CLUSTER_ID, CLUSTER_LABEL, canonical_name, canonical_revision, workload_name
from weft.protos import core_v3, endpoint_v3

_UNKNOWN: Final = "unknown"  # Istio's word in metrics

if TYPE_CHECKING:
    from collections.abc import Iterable


def _health(health: Health) -> core_v3.HealthStatus.ValueType:
    match health:
        case Health.HEALTHY:
            return core_v3.HealthStatus.HEALTHY
        case Health.UNHEALTHY:
            return core_v3.HealthStatus.UNHEALTHY
        case Health.DRAINING:
            return core_v3.HealthStatus.DRAINING


def _metadata(endpoint: Endpoint) -> core_v3.Metadata:
    """How to speak to it, and who it is in the words of telemetry."""
    metadata = core_v3.Metadata()
    if endpoint.mesh_tls:
        socket = metadata.filter_metadata["envoy.transport_socket_match"]
        socket.fields["tlsMode"].string_value = "istio"
    if endpoint.workload:
        labels = dict(endpoint.labels)
        workload_of = workload_name(labels, endpoint.workload)
        name, revision = canonical_name(labels, workload_of), canonical_revision(labels)
        cluster = labels.get(CLUSTER_LABEL) or CLUSTER_ID
        workload = f"{workload_of};{endpoint.namespace};{name};{revision};{cluster}"
        metadata.filter_metadata["istio"].fields["workload"].string_value = workload
        metadata.filter_metadata["weft"].CopyFrom(
            struct(
                (
                    ("workload", workload_of),
                    ("namespace", endpoint.namespace),
                    ("app", labels.get("app") or _UNKNOWN),
                    ("version", labels.get("version") or _UNKNOWN),
                    ("canonical_name", name),
                    ("canonical_revision", revision),
                    ("cluster", cluster),
                )
            )
        )
    return metadata


def _host(endpoint: Endpoint) -> endpoint_v3.LbEndpoint:
    return endpoint_v3.LbEndpoint(
        endpoint=endpoint_v3.Endpoint(
            address=address(endpoint.address, endpoint.port), hostname=endpoint.hostname
        ),
        health_status=_health(endpoint.health),
        load_balancing_weight=uint32(max(1, endpoint.weight)),
        metadata=_metadata(endpoint),
    )


def _locality(place: Locality) -> core_v3.Locality:
    return core_v3.Locality(region=place.region, zone=place.zone, sub_zone=place.subzone)


def load_assignment(
    cluster: str,
    endpoints: Iterable[Endpoint],
    placement: Placement = ANYWHERE,
    client: Standpoint = UNPLACED,
) -> endpoint_v3.ClusterLoadAssignment:
    """Endpoints by place, as a client at ``client`` shall use them."""
    made = endpoint_v3.ClusterLoadAssignment(cluster_name=cluster)
    for group in groups(endpoints, placement, client):
        made.endpoints.add(
            locality=_locality(group.locality),
            lb_endpoints=[_host(endpoint) for endpoint in group.endpoints],
            load_balancing_weight=uint32(group.weight),
            priority=group.priority,
        )
    return made


def _assignment(
    unit: EndpointSet, placement: Placement, client: Standpoint
) -> endpoint_v3.ClusterLoadAssignment:
    endpoints = tuple(reachable(unit.endpoints, unit.gateways, client.network))
    weights = [max(1, endpoint.weight) for endpoint in endpoints]
    smaller = shares(weights)
    if smaller is not weights:
        endpoints = tuple(map(_weighing, endpoints, smaller))
    return load_assignment(unit.cluster, endpoints, placement, client)


def _weighing(endpoint: Endpoint, weight: int) -> Endpoint:
    return replace(endpoint, weight=weight)


def pack(unit: EndpointSet, placement: Placement = ANYWHERE, client: Standpoint = UNPLACED) -> Packed:
    """The endpoints of one cluster as a client sees them; clients that see the same get the same bytes."""
    return packed_once(unit, unit.cluster, _assignment, placement, seen(placement, client))
