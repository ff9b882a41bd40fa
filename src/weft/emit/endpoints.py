"""Endpoints: who answers, in the order in which a client at some place should try them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weft.emit.packed import Packed, packed_once
from weft.emit.scalars import address, struct, uint32
from weft.ir.endpoint import NOWHERE, Endpoint, EndpointSet, Health, Locality
from weft.names import canonical_name, canonical_revision
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
        name = canonical_name(labels, endpoint.workload)
        revision = canonical_revision(labels)
        workload = f"{endpoint.workload};{endpoint.namespace};{name};{revision};"
        metadata.filter_metadata["istio"].fields["workload"].string_value = workload
        metadata.filter_metadata["weft"].CopyFrom(
            struct(
                (
                    ("workload", endpoint.workload),
                    ("namespace", endpoint.namespace),
                    ("app", labels.get("app") or _UNKNOWN),
                    ("version", labels.get("version") or _UNKNOWN),
                    ("canonical_name", name),
                    ("canonical_revision", revision),
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


def _distance(client: Locality, there: Locality) -> int:
    """How many parts of the place are not shared: 0 the same subzone … 3 another region."""
    if client.region != there.region:
        return 3
    if client.zone != there.zone:
        return 2
    return int(client.subzone != there.subzone)


def _locality(place: Locality) -> core_v3.Locality:
    return core_v3.Locality(region=place.region, zone=place.zone, sub_zone=place.subzone)


def load_assignment(
    cluster: str, endpoints: Iterable[Endpoint], client: Locality = NOWHERE, *, failover: bool = False
) -> endpoint_v3.ClusterLoadAssignment:
    """Endpoints by locality. With ``failover`` nearer places have priority (0 first, without gaps)."""
    places: dict[Locality, list[Endpoint]] = {}
    for endpoint in endpoints:
        places.setdefault(endpoint.locality, []).append(endpoint)
    distances = {place: _distance(client, place) if failover else 0 for place in places}
    priorities = {distance: rank for rank, distance in enumerate(sorted(set(distances.values())))}
    made = endpoint_v3.ClusterLoadAssignment(cluster_name=cluster)
    for place in sorted(places, key=lambda place: (distances[place], place)):
        made.endpoints.add(
            locality=_locality(place),
            lb_endpoints=[_host(endpoint) for endpoint in places[place]],
            load_balancing_weight=uint32(sum(max(1, endpoint.weight) for endpoint in places[place])),
            priority=priorities[distances[place]],
        )
    return made


def _assignment(
    unit: EndpointSet, client: Locality, network: str, failover: bool
) -> endpoint_v3.ClusterLoadAssignment:
    reachable = (endpoint for endpoint in unit.endpoints if not network or endpoint.network in {"", network})
    return load_assignment(unit.cluster, reachable, client, failover=failover)


def pack(
    unit: EndpointSet, locality: Locality = NOWHERE, network: str = "", *, failover: bool = False
) -> Packed:
    """The endpoints of one cluster as a client at ``locality`` in ``network`` sees them.

    Without ``failover`` all clients get the same bytes, wherever they are.
    """
    place = locality if failover else NOWHERE
    return packed_once(unit, unit.cluster, _assignment, place, network, failover)
