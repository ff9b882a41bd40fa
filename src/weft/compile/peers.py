"""The replicas of a proxy's own workload, where Envoy counts on knowing them (its local cluster).

Zone-aware balancing compares where they are with where a service's endpoints are; a limit for a whole service
is divided among them.
"""

from __future__ import annotations

from collections.abc import Mapping

from weft.compile.protocol import Protocol
from weft.compile.rate_limit import shared
from weft.compile.receiving import selecting
from weft.compile.service import Instance
from weft.compile.settings import Settings
from weft.compile.world import World
from weft.model.destination_rule import DestinationRule
from weft.model.rate_limit import RateLimit
from weft.model.resource import Key
from weft.names import outbound_cluster


def needs_peers(world: World) -> bool:
    """Whether anything in the mesh counts on knowing them."""
    zones = world.memo(_zone_aware, world.all(DestinationRule), world.settings)
    return zones or world.memo(shared, world.all(RateLimit))


def peers_of(world: World, own: Instance) -> str:
    """The cluster whose endpoints they are: that of its oldest Service; empty where it has none."""
    for service in world.memo(selecting, world.services, own):
        for port in service.ports:
            if port.protocol is not Protocol.UDP:
                return outbound_cluster(service.host, port.number)
    return ""


def _zone_aware(rules: Mapping[Key, DestinationRule], settings: Settings) -> bool:
    if settings.nearness is not None and settings.nearness.zone_aware:
        return True
    for rule in rules.values():
        policies = [rule.spec.traffic_policy, *(one.traffic_policy for one in rule.spec.subsets or ())]
        for policy in policies:
            if policy is None:
                continue
            levels = [policy.load_balancer, *(one.load_balancer for one in policy.port_level_settings or ())]
            if any(level is not None and level.zone_aware_lb_setting is not None for level in levels):
                return True
    return False
