"""Endpoints on their way: who shares a lane, and what becomes of a lane when places start to matter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from weft import ir
from weft.control import lanes
from weft.control.lanes import Lanes
from weft.emit.endpoints import pack
from weft.emit.packed import Packed
from weft.names import ProxyName
from weft.protos.wire import from_any, to_dict
from weft.xds.store import ConfigStore

NEAR, FAR = ir.Locality(region="eu"), ir.Locality(region="us")
CLUSTER = ir.Cluster(name="c", discovery=ir.Discovery.EDS, protocol=ir.UpstreamProtocol.HTTP1)
RANKED = replace(CLUSTER, placement=ir.Placement(tiers=ir.Tiers.LOCALITY))


def endpoints(name: str, *, more: bool = False) -> ir.EndpointSet:
    listed = [ir.Endpoint(address="10.0.0.1", port=80, locality=NEAR)]
    listed += [ir.Endpoint(address="10.0.0.2", port=80, locality=FAR)]
    listed += [ir.Endpoint(address="10.0.0.3", port=80, locality=NEAR)] if more else []
    return ir.EndpointSet(cluster=name, endpoints=tuple(listed))


def proxy(place: ir.Locality, *clusters: ir.Cluster, labels: tuple[tuple[str, str], ...] = ()) -> ir.Proxy:
    name = ProxyName("sidecar", "10.9.9.9", "x", "default")
    identity = ir.ProxyIdentity(name=name, locality=place, labels=labels)
    return ir.Proxy(identity=identity, listeners=(), routes=(), clusters=clusters)


class Shown:
    """Lanes over a store, with one set of endpoints for each name."""

    def __init__(self) -> None:
        self.config = ConfigStore()
        self.lanes = Lanes(self.config)
        self.sets = {"c": endpoints("c")}

    def require(self, name: str, of: ir.Proxy) -> Any:
        return self.lanes.require(name, of, self.sets.__getitem__)

    def ranks(self, place: Any) -> dict[str, int]:
        self.config.flush()
        made = to_dict(from_any(self.config.endpoints(place)["c"].body))
        return {
            host["endpoint"]["address"]["socket_address"]["address"]: group.get("priority", 0)
            for group in made["endpoints"]
            for host in group["lb_endpoints"]
        }


async def test_clients_share_a_lane_wherever_they_are_if_nothing_depends_on_it() -> None:
    shown = Shown()
    one = shown.require("a", proxy(NEAR, CLUSTER, labels=(("app", "a"),)))
    assert shown.require("b", proxy(FAR, CLUSTER)) == one
    assert shown.ranks(one) == {"10.0.0.1": 0, "10.0.0.2": 0}


async def test_each_place_has_its_own_ranks_where_they_matter() -> None:
    shown = Shown()
    near = shown.require("a", proxy(NEAR, RANKED))
    far = shown.require("b", proxy(FAR, RANKED))
    assert near != far
    assert shown.ranks(near) == {"10.0.0.1": 0, "10.0.0.2": 1}
    assert shown.ranks(far) == {"10.0.0.1": 1, "10.0.0.2": 0}
    assert shown.require("c", proxy(NEAR, RANKED, labels=(("app", "c"),))) == near


async def test_a_proxy_changes_lanes_when_a_rule_makes_places_matter() -> None:
    shown = Shown()
    before = shown.require("a", proxy(FAR, CLUSTER))
    after = shown.require("a", proxy(FAR, RANKED))
    assert before != after
    assert shown.ranks(after) == {"10.0.0.1": 1, "10.0.0.2": 0}


async def test_a_change_reaches_every_lane_and_unused_ones_are_dropped() -> None:
    shown = Shown()
    near = shown.require("a", proxy(NEAR, RANKED))
    far = shown.require("b", proxy(FAR, RANKED))
    shown.sets["c"] = endpoints("c", more=True)

    async def breathe() -> None:
        pass

    assert not await shown.lanes.refresh(shown.sets.__getitem__, breathe)
    assert shown.ranks(near) == {"10.0.0.1": 0, "10.0.0.3": 0, "10.0.0.2": 1}
    assert shown.ranks(far) == {"10.0.0.2": 0, "10.0.0.1": 1, "10.0.0.3": 1}
    shown.lanes.forget("b")
    shown.lanes.sweep()
    assert "c" not in shown.config.endpoints(far)
    assert shown.ranks(near)


async def test_endpoints_that_weft_fails_on_cost_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Shown()
    other = replace(CLUSTER, name="d")
    shown.sets["d"] = endpoints("d")
    place = shown.require("a", proxy(NEAR, CLUSTER, other))
    shown.sets = {"c": endpoints("c", more=True), "d": endpoints("d", more=True)}

    def broken(found: ir.EndpointSet, *more: Any) -> Packed:
        if found.cluster == "d":
            raise ValueError("no such thing")
        return pack(found, *more)

    async def breathe() -> None:
        pass

    monkeypatch.setattr(lanes, "pack", broken)
    await shown.lanes.refresh(shown.sets.__getitem__, breathe)
    assert len(shown.ranks(place)) == 3
    assert (
        len(to_dict(from_any(shown.config.endpoints(place)["d"].body))["endpoints"][0]["lb_endpoints"]) == 1
    )
