"""What a node is told of an instance as it starts: here the probe of its group."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from weft.control.entry import GROUP_KIND
from weft.control.start import proxy_start
from weft.instance import Instance
from weft.model.resource import Key
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
