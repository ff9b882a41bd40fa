"""Resources are serialised once and shared."""

from __future__ import annotations

import gc
from dataclasses import replace

from weft import ir
from weft.emit.bundle import emit, emit_cluster, emit_listener
from weft.emit.packed import Packed, pack, packed_once
from weft.names import CLUSTER_TYPE, ProxyName
from weft.protos import cluster_v3


def _cluster(name: str = "outbound|80||a.default.svc.cluster.local") -> ir.Cluster:
    return ir.Cluster(name=name, discovery=ir.Discovery.EDS, protocol=ir.UpstreamProtocol.HTTP1)


def test_equal_clusters_are_the_very_same_packed() -> None:
    one, other = _cluster(), _cluster()
    assert one is not other
    assert emit_cluster(one) is emit_cluster(other)


def test_the_version_follows_the_content() -> None:
    one = emit_cluster(_cluster())
    other = emit_cluster(replace(_cluster(), subset="v1"))
    assert one.name == other.name
    assert one.version != other.version
    assert one.version == emit_cluster(_cluster()).version


def test_a_unit_is_built_once_while_somebody_holds_it() -> None:
    built = []

    def build(unit: ir.Cluster) -> cluster_v3.Cluster:
        built.append(unit)
        return cluster_v3.Cluster(name=unit.name)

    unit = _cluster("counted")
    first = packed_once(unit, unit.name, build)
    assert packed_once(unit, unit.name, build) is first
    assert len(built) == 1
    del first
    gc.collect()
    packed_once(unit, unit.name, build)
    assert len(built) == 2


def test_what_else_a_builder_reads_is_part_of_the_key() -> None:
    listener = ir.Listener(
        name="l",
        direction=ir.Direction.OUTBOUND,
        address="127.0.0.1",
        port=1,
        receive=ir.Receive.BOUND,
        chains=(),
    )
    told = ir.Reports(logs=(ir.AccessLog(to=ir.FileLog(path="access.log")),))
    quiet = emit_listener(listener, ir.Telemetry(client=told))
    loud = emit_listener(listener, ir.Telemetry())
    assert quiet.version != loud.version
    assert emit_listener(listener, ir.Telemetry()) is loud


def test_nothing_is_kept_that_nobody_holds() -> None:
    unit = _cluster("short-lived")
    packed = emit_cluster(unit)
    version = packed.version
    del packed
    gc.collect()
    fresh = pack("short-lived", cluster_v3.Cluster(name="short-lived"))
    assert isinstance(fresh, Packed)
    assert fresh.version != version


def test_proxies_share_resources() -> None:
    def proxy(name: str, cluster: ir.Cluster) -> ir.Proxy:
        identity = ir.ProxyIdentity(name=ProxyName("sidecar", "10.0.0.1", name, "default"))
        return ir.Proxy(identity=identity, listeners=(), routes=(), clusters=(cluster,))

    shared = _cluster()
    one, other = emit(proxy("a", shared)), emit(proxy("b", shared))
    assert one.resources[CLUSTER_TYPE][shared.name] is other.resources[CLUSTER_TYPE][shared.name]
    assert one == other
