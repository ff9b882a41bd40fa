"""Endpoints by place, ranked for one client: Istio's locality load balancing (loadbalancer.go there)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from weft.ir.endpoint import Endpoint, Health, Locality
from weft.ir.placement import UNPLACED, Placement, Standpoint, Tiers
from weft.names import (
    HOSTNAME_LABEL,
    NETWORK_LABEL,
    NODE_LABEL,
    REGION_LABEL,
    SUBZONE_LABEL,
    ZONE_LABEL,
)

_TOPOLOGY: Final = frozenset({NETWORK_LABEL, REGION_LABEL, ZONE_LABEL, SUBZONE_LABEL, HOSTNAME_LABEL})


@dataclass(slots=True)
class Group:
    """Endpoints of one place and priority (0 first). ``weight`` is the group's share beside the others."""

    locality: Locality
    endpoints: list[Endpoint]
    priority: int = 0
    weight: int = 0


def groups(
    endpoints: Iterable[Endpoint], placement: Placement, client: Standpoint = UNPLACED
) -> tuple[Group, ...]:
    """The endpoints as the client shall use them, the best first."""
    if placement.owner:
        endpoints = (endpoint for endpoint in endpoints if endpoint.owner == placement.owner)
    if placement.select:
        wanted = set(placement.select)
        endpoints = (endpoint for endpoint in endpoints if wanted <= set(endpoint.labels))
    if placement.same_node:
        endpoints = (endpoint for endpoint in endpoints if endpoint.node == client.node)
    if placement.healthy_only:
        endpoints = (endpoint for endpoint in endpoints if endpoint.health is not Health.UNHEALTHY)
    by_place: dict[Locality, list[Endpoint]] = {}
    for endpoint in endpoints:
        by_place.setdefault(endpoint.locality, []).append(endpoint)
    found = [Group(place, by_place[place]) for place in sorted(by_place)]
    if placement.labels:
        found = [part for group in found for part in _by_labels(group, placement, client)]
    for group in found:
        group.weight = sum(max(1, endpoint.weight) for endpoint in group.endpoints)
    if placement.distribute:
        found = _shared(found, placement, client.locality)
    _rank(found, placement, client.locality)
    return tuple(sorted(found, key=lambda group: (group.priority, group.locality)))


def _by_labels(group: Group, placement: Placement, client: Standpoint) -> Iterable[Group]:
    """A place's endpoints by how many of the labels, from the first on, they share with the client.

    Another network is passed over once, as the first label: what follows ranks the endpoints over there too.
    """
    wanted = [
        (name, _of_client(client, name) if value is None else value) for name, value in placement.labels
    ]
    skips_network = wanted[0][0] == NETWORK_LABEL
    parts: dict[int, list[Endpoint]] = {}
    for endpoint in group.endpoints:
        rank = 0
        for place, (name, value) in enumerate(wanted):
            if _of_endpoint(endpoint, name) == value:
                continue
            if place == 0 and skips_network:
                rank = len(wanted)
                continue
            rank += len(wanted) - place
            break
        parts.setdefault(rank, []).append(endpoint)
    for rank in sorted(parts):
        yield Group(group.locality, parts[rank], priority=rank)


def _of_client(client: Standpoint, name: str) -> str:
    return _label(name, client.locality, client.network, client.node, dict(client.labels))


def _of_endpoint(endpoint: Endpoint, name: str) -> str:
    return _label(name, endpoint.locality, endpoint.network, endpoint.node, dict(endpoint.labels))


def _label(name: str, place: Locality, network: str, node: str, labels: Mapping[str, str]) -> str:
    """A label, or what is known of the place, which goes before a label of that name."""
    if name not in _TOPOLOGY:
        return labels.get(name, "")
    if name == NETWORK_LABEL:
        return labels.get(name) or network
    if name == HOSTNAME_LABEL:
        return node or labels.get(NODE_LABEL) or labels.get(name, "")
    known = {REGION_LABEL: place.region, ZONE_LABEL: place.zone, SUBZONE_LABEL: place.subzone}[name]
    return known or labels.get(name, "")


def _shared(found: list[Group], placement: Placement, client: Locality) -> list[Group]:
    """Weights by the first rule that is about the client's place; places it does not name get nothing."""
    for rule in placement.distribute:
        if not matches(client, rule.origin):
            continue
        left = list(found)
        kept: list[Group] = []
        for pattern, percent in rule.to:
            here = [group for group in left if matches(group.locality, pattern)]
            left = [group for group in left if group not in here]
            total = sum(group.weight for group in here)
            for group in here:
                share = -(-group.weight * percent // total)
                kept.append(replace(group, weight=share or group.weight))
        return kept
    return found


def matches(place: Locality, pattern: str) -> bool:
    """Whether a place is meant by ``region/zone/subzone``, where ``*`` and what is left out mean any."""
    region, _, rest = pattern.partition("/")
    zone, _, subzone = rest.partition("/")
    return (
        region in {"*", place.region}
        and zone in {"*", "", place.zone}
        and subzone in {"*", "", place.subzone}
    )


def _rank(found: list[Group], placement: Placement, client: Locality) -> None:
    """Priorities without gaps: those by labels first, within them those by place."""
    if placement.tiers is not Tiers.NONE and not placement.distribute:
        for group in found:
            group.priority = group.priority * _PLACES + _distance(group.locality, placement, client)
    order = {rank: number for number, rank in enumerate(sorted({group.priority for group in found}))}
    for group in found:
        group.priority = order[group.priority]


_PLACES: Final = 5


def _distance(there: Locality, placement: Placement, client: Locality) -> int:
    """0 the same place … 3 another region, 4 one that the own region does not fail over to."""
    regions = placement.tiers is Tiers.REGION
    if there.region == client.region:
        if regions or (there.zone == client.zone and there.subzone == client.subzone):
            return 0
        return 1 if there.zone == client.zone else 2
    to = next((to for origin, to in placement.failover if origin == client.region), None)
    if regions:
        return 1 if to == there.region else 2
    return 3 if to is None or to == there.region else 4
