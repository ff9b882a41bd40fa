"""Which endpoints of a cluster a client prefers, by where it is: priorities and weights of places."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from weft.ir.endpoint import NOWHERE, Locality
from weft.names import HOSTNAME_LABEL, REGION_LABEL, SUBZONE_LABEL, ZONE_LABEL


class Tiers(StrEnum):
    """How places are ranked. ``LOCALITY``: the same subzone, zone, region, then all others.

    ``REGION``: the own region, the regions to fail over to, all others; zones are left to Envoy.
    """

    NONE = "none"
    LOCALITY = "locality"
    REGION = "region"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalityWeight:
    """Share of the traffic of clients at ``origin`` per locality ``region/zone/subzone``, in percent.

    ``*`` stands for any region, zone or subzone; parts that are left out count as ``*``.
    """

    origin: str
    to: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """How the endpoints of a cluster are ranked for a client.

    ``labels`` go first: endpoints that share all of them with the client are best, then all but the last,
    and so on; a value given here stands in for the client's. ``failover``: (from, to) regions.
    ``select``: endpoints without all these labels are left out; ``owner``: so are those of other owners.
    ``distribute``, where one fits the client, fixes shares and ranks nothing. ``same_node``: endpoints on
    other nodes are left out. ``healthy_only``: so are those that are known not to be ready.
    """

    distribute: tuple[LocalityWeight, ...] = ()
    tiers: Tiers = Tiers.NONE
    failover: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str | None], ...] = ()
    select: tuple[tuple[str, str], ...] = ()
    owner: str = ""
    same_node: bool = False
    healthy_only: bool = False


ANYWHERE = Placement()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standpoint:
    """A client, as far as its choice of endpoints may depend on it."""

    locality: Locality = NOWHERE
    network: str = ""
    node: str = ""
    labels: tuple[tuple[str, str], ...] = ()


UNPLACED = Standpoint()


def seen(placement: Placement, client: Standpoint) -> Standpoint:
    """The client without what cannot matter: clients that are alike get the same bytes."""
    ranked = placement.tiers is not Tiers.NONE or bool(placement.distribute)
    wanted = {name for name, value in placement.labels if value is None}
    return Standpoint(
        locality=client.locality if ranked or wanted & {REGION_LABEL, ZONE_LABEL, SUBZONE_LABEL} else NOWHERE,
        network=client.network,
        node=client.node if placement.same_node or HOSTNAME_LABEL in wanted else "",
        labels=tuple((name, value) for name, value in client.labels if name in wanted),
    )
