"""What a node is told of an instance as it starts: the probe of its group, the settings of its proxy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from weft.control.entry import GROUP_KIND
from weft.control.start import proxy_start
from weft.instance import Instance
from weft.model.resource import Key
from weft.names import WORKLOAD_LABEL
from weft.start import ProxyStart
from weft.store.interface import Put
from weft.store.sqlite import SqliteStore


def instance(group: str | None) -> Instance:
    return Instance.parse(
        {"id": "default/x", "name": "x", "namespace": "default", "address": "10.0.0.1", "group": group}
    )


async def _group(store: SqliteStore, name: str, probe: dict[str, Any] | None) -> None:
    body = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadGroup",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": {}, **({"probe": probe} if probe else {})},
    }
    await store.transact(
        [Put(key=Key(GROUP_KIND, "default", name), uid=name, body=json.dumps(body).encode())]
    )


async def _put(store: SqliteStore, kind: str, name: str, metadata: dict[str, Any], spec: Any) -> None:
    group, _, short = kind.partition("/")
    meta = {"name": name, "namespace": "default", **metadata}
    body = {"apiVersion": f"{group}/v1", "kind": short, "metadata": meta, "spec": spec}
    await store.transact([Put(key=Key(kind, "default", name), uid=name, body=json.dumps(body).encode())])


async def test_settings_of_the_proxy_by_an_annotation(tmp_path: Path) -> None:
    def says(text: str) -> dict[str, Any]:
        return {"annotations": {"proxy.istio.io/config": text}}

    async with SqliteStore.open(tmp_path / "store") as store:
        template = {"template": {}, "metadata": says("concurrency: 3")}
        await _put(store, GROUP_KIND, "own", says("concurrency: 2"), {"template": {}})
        await _put(store, GROUP_KIND, "both", says("concurrency: 2"), template)
        await _put(store, "weft.dev/Workload", "web", says("proxyMetadata: {A: b}"), {"command": ["x"]})
        found = [(await proxy_start(store, "istio-system", instance(name))) for name in ("own", "both", None)]
        assert [start.concurrency for start in found] == [2, 3, None]
        labelled = replace(instance(None), labels={WORKLOAD_LABEL: "web"})
        assert (await proxy_start(store, "istio-system", labelled)).environment == {"A": "b"}


async def test_the_probe_of_its_group_unless_it_runs_a_command(tmp_path: Path) -> None:
    probe = {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 5}
    async with SqliteStore.open(tmp_path / "store") as store:
        await _group(store, "asked", probe)
        await _group(store, "runs", {"exec": {"command": ["true"]}})
        await _group(store, "silent", None)

        async def told(group: str | None) -> dict[str, Any] | None:
            start = await proxy_start(store, "istio-system", instance(group))
            return ProxyStart.parse(start.to_dict()).probe

        assert await told("asked") == probe
        for group in ("runs", "silent", "gone", None):
            assert await told(group) is None


async def test_envoy_is_told_where_it_is(tmp_path: Path) -> None:
    def at(region: str, zone: str, subzone: str = "") -> tuple[dict[str, Any], ...]:
        return ({"node": {"locality": {"region": region, "zone": zone, "sub_zone": subzone}}},)

    cases: list[tuple[str, dict[str, str], tuple[dict[str, Any], ...]]] = [
        ("", {}, ()),
        ("eu/a/1", {}, at("eu", "a", "1")),
        ("eu/a", {"istio-locality": "us.b"}, at("us", "b")),
        ("eu/a", {"topology.kubernetes.io/region": "us"}, at("eu", "a")),
        ("", {"topology.kubernetes.io/region": "us", "topology.kubernetes.io/zone": "b"}, at("us", "b")),
    ]
    async with SqliteStore.open(tmp_path / "store") as store:
        for place, labels, wanted in cases:
            one = replace(instance(None), locality=place, labels=labels)
            assert (await proxy_start(store, "istio-system", one)).bootstrap == wanted


async def test_a_gateway_starts_as_its_infrastructure_says(tmp_path: Path) -> None:
    config = "terminationDrainDuration: 7s\nmeshId: shop"
    noted = {"team": "web", "proxy.istio.io/config": config}
    spec = {
        "gatewayClassName": "weft",
        "infrastructure": {"annotations": noted},
        "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
    }
    async with SqliteStore.open(tmp_path / "store") as store:
        await _put(store, "gateway.networking.k8s.io/Gateway", "edge", {}, spec)
        labels = {"gateway.networking.k8s.io/gateway-name": "edge"}
        router = replace(instance(None), labels=labels, kind="router")
        start = ProxyStart.parse((await proxy_start(store, "istio-system", router)).to_dict())
        assert start.drain_s == 7
        assert start.bootstrap == (
            {"node": {"metadata": {"MESH_ID": "shop"}}},
            {"node": {"metadata": {"ANNOTATIONS": noted}}},
        )
        sidecar = await proxy_start(store, "istio-system", replace(router, kind="sidecar"))
        assert sidecar == ProxyStart()
