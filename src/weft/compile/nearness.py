"""Near and far endpoints: what rules, Services and the mesh say of places, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from weft import ir
from weft.names import HOSTNAME_LABEL, NETWORK_LABEL, REGION_LABEL, SUBZONE_LABEL, ZONE_LABEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearness:
    """One setting; the nearest to the user holds as a whole.

    ``enabled`` False: places do not matter. ``zone_aware``: Envoy itself keeps traffic in the zone.
    ``forced``: far endpoints are spared even if nothing tells that near ones fail. None: the field is absent.
    ``labels`` are names, or (name, value) with a value to compare with instead of the client's own.
    """

    enabled: bool = True
    zone_aware: bool = False
    forced: bool = False
    distribute: tuple[ir.LocalityWeight, ...] | None = None
    failover: tuple[tuple[str, str], ...] | None = None
    labels: tuple[tuple[str, str | None], ...] | None = None
    min_hosts: int | None = None


MESH_DEFAULT = Nearness()
"""Istio's ``MeshConfig.localityLbSetting``: on, so that outlier detection makes traffic fail over."""

SAME_ZONE = Nearness(forced=True, labels=((NETWORK_LABEL, None), (REGION_LABEL, None), (ZONE_LABEL, None)))
SAME_NODE = Nearness(
    forced=True,
    labels=(
        (NETWORK_LABEL, None),
        (REGION_LABEL, None),
        (ZONE_LABEL, None),
        (SUBZONE_LABEL, None),
        (HOSTNAME_LABEL, None),
    ),
)

DISTRIBUTION: Final = "networking.istio.io/traffic-distribution"
_DISTRIBUTIONS: Final = {
    "prefersamezone": SAME_ZONE,
    "preferclose": SAME_ZONE,
    "prefersamenode": SAME_NODE,
}


def distribution(field: str | None, annotations: Mapping[str, str] | None, space: str) -> Nearness | None:
    """``trafficDistribution``, else the annotation, else the namespace's (Istio: GetTrafficDistribution)."""
    said = _DISTRIBUTIONS.get((field or "").lower())
    if said is not None:
        return said
    return _DISTRIBUTIONS.get(((annotations or {}).get(DISTRIBUTION, "") or space).lower())


@dataclass(frozen=True, slots=True)
class Placed:
    """What a setting does to a cluster: how endpoints are ranked, and the balancer's part in it."""

    placement: ir.Placement = ir.ANYWHERE
    weighted: bool = False
    zone_aware: ir.ZoneAware | None = None


NOT_PLACED = Placed()


def placed(setting: Nearness, *, ejects: bool) -> Placed:
    """``ejects``: failing endpoints are noticed; without that nothing would ever fail over (Istio's rule)."""
    labels, failover = setting.labels or (), setting.failover or ()
    if setting.zone_aware:
        zones = ir.ZoneAware(enabled=setting.enabled, min_hosts=setting.min_hosts)
        if not setting.enabled:
            return Placed(zone_aware=zones)
        ranks = ir.Placement(tiers=ir.Tiers.REGION, labels=labels, failover=failover)
        return Placed(ranks, zone_aware=zones)
    if not setting.enabled:
        return NOT_PLACED
    if setting.distribute is not None:
        return Placed(ir.Placement(distribute=setting.distribute), weighted=True)
    if not (ejects or setting.forced):
        return NOT_PLACED
    tiers = ir.Tiers.LOCALITY if failover or not labels else ir.Tiers.NONE
    return Placed(
        ir.Placement(tiers=tiers, labels=labels, failover=failover),
        weighted=setting.failover is not None or setting.labels is not None,
    )
