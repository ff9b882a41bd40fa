"""Where a proxy is: what it says of itself, else what its registration and its labels tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from weft import ir
from weft.compile.istio.service_entry import locality
from weft.compile.world import World
from weft.names import (
    LOCALITY_LABEL,
    NETWORK_LABEL,
    NODE_LABEL,
    REGION_LABEL,
    SUBZONE_LABEL,
    ZONE_LABEL,
)


def located(world: World, identity: ir.ProxyIdentity) -> ir.ProxyIdentity:
    """The identity with its place and its registered labels; the very same when nothing more is known."""
    name = identity.name
    known = world.instances.get(name.namespace, name.name)
    labels = {**(dict(known.labels) if known is not None else {}), **dict(identity.labels)}
    place, network = identity.locality, identity.network
    if place == ir.NOWHERE:
        place = known.locality if known is not None and known.locality != ir.NOWHERE else labelled(labels)
    if not network:
        network = (known.network if known is not None else "") or labels.get(NETWORK_LABEL, "")
        network = network or world.networks.of(name.address)
    if known is not None and known.node:
        labels.setdefault(NODE_LABEL, known.node)
    if place == identity.locality and network == identity.network and len(labels) == len(identity.labels):
        return identity
    return replace(identity, locality=place, network=network, labels=tuple(sorted(labels.items())))


def labelled(labels: Mapping[str, str]) -> ir.Locality:
    """A place by labels: Istio's own, ``region.zone.subzone``, goes before those of the topology."""
    if own := labels.get(LOCALITY_LABEL):
        return locality(own if "/" in own else own.replace(".", "/"))
    return ir.Locality(
        region=labels.get(REGION_LABEL, ""),
        zone=labels.get(ZONE_LABEL, ""),
        subzone=labels.get(SUBZONE_LABEL, ""),
    )
