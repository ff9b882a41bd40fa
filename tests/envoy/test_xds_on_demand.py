"""Clusters and virtual hosts on demand, with a real Envoy: what is missing answers at once, and heals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.envoy.xds import (
    ADS,
    Authority,
    Bundle,
    Control,
    backend,
    cluster,
    endpoints,
    envoy,
    free_port,
)
from weft.emit.packed import Packed, pack
from weft.names import CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE, VIRTUAL_HOST_TYPE
from weft.protos.wire import from_dict
from weft.xds.framing import Answer

PROXY = "sidecar~127.0.0.1~app.default~default.svc.cluster.local"
PREFIX = "type.googleapis.com/"
ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": PREFIX + "envoy.extensions.filters.http.router.v3.Router"},
}


@pytest.fixture
async def control() -> AsyncIterator[Control]:
    control = Control(Authority())
    async with control.running():
        yield control


def listener(port: int, on_demand: dict[str, Any]) -> Packed:
    manager = {
        "@type": PREFIX + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "strip_any_host_port": True,
        "rds": {"route_config_name": "r", "config_source": ADS},
        "http_filters": [
            {
                "name": "envoy.filters.http.on_demand",
                "typed_config": {
                    "@type": PREFIX + "envoy.extensions.filters.http.on_demand.v3.OnDemand",
                    **on_demand,
                },
            },
            ROUTER,
        ],
    }
    data = {
        "name": "in",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
    }
    return pack("in", from_dict(data, LISTENER_TYPE.removeprefix(PREFIX)))


def table(**more: Any) -> Packed:
    return pack("r", from_dict({"name": "r", **more}, ROUTE_TYPE.removeprefix(PREFIX)))


def host(domain: str, to: str) -> Answer:
    """A virtual host that answers to the name under which Envoy asks for it."""
    name = f"r/{domain}"
    rule = {"match": {"prefix": "/"}, "route": {"cluster": to}}
    data = {"name": name, "domains": [domain], "routes": [rule]}
    made = pack(name, from_dict(data, VIRTUAL_HOST_TYPE.removeprefix(PREFIX)))
    return Answer(name, made.version, made.body, (name,))


async def ask(port: int, authority: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(5):
            writer.write(f"GET / HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    return int(head.split(b" ", 2)[1]), body.decode()


async def test_clusters_on_demand(control: Control, tmp_path: Path) -> None:
    """An unknown cluster fails at once and not after a timeout; when it comes, traffic flows."""
    port = free_port()
    routes = table(
        virtual_hosts=[
            {
                "name": "all",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster_header": ":authority"}}],
            }
        ]
    )
    async with backend("a") as a, envoy(control, tmp_path) as proxy:

        def publish(revision: int, *names: str) -> None:
            control.store.publish_endpoints(None, {name: endpoints(name, a) for name in names})
            resources = {
                CLUSTER_TYPE: {name: cluster(name)[1] for name in names},
                LISTENER_TYPE: {"in": listener(port, {"odcds": {"source": ADS, "timeout": "60s"}})},
                ROUTE_TYPE: {"r": routes},
            }
            control.store.publish(PROXY, Bundle(resources), revision, lazy=frozenset(names))

        publish(1, "one.mesh")
        await proxy.ready()
        await control.settled(1)
        assert await proxy.dump("dynamic_active_clusters") == []
        assert await ask(port, "one.mesh") == (200, "a")
        assert (await ask(port, "two.mesh"))[0] == 503
        publish(2, "one.mesh", "two.mesh")
        await control.settled(2)
        assert await ask(port, "two.mesh") == (200, "a")
        publish(3, "two.mesh")
        await control.settled(3)
        assert (await ask(port, "one.mesh"))[0] == 503
        assert await ask(port, "two.mesh") == (200, "a")
    assert control.record.refusals() == []


async def test_virtual_hosts_on_demand(control: Control, tmp_path: Path) -> None:
    """An unknown host answers 404 at once, and is served once it exists."""
    port = free_port()
    async with backend("a") as a, envoy(control, tmp_path) as proxy:

        def publish(revision: int, *domains: str) -> None:
            control.store.publish_endpoints(None, {"one": endpoints("one", a)})
            hosts = {f"r/{domain}": host(domain, "one") for domain in ("dummy.invalid", *domains)}
            resources: dict[str, dict[str, Any]] = {
                CLUSTER_TYPE: {"one": cluster("one")[1]},
                LISTENER_TYPE: {"in": listener(port, {})},
                ROUTE_TYPE: {"r": table(vhds={"config_source": ADS})},
                VIRTUAL_HOST_TYPE: hosts,
            }
            lazy = frozenset(f"r/{domain}" for domain in domains)
            control.store.publish(PROXY, Bundle(resources), revision, lazy=lazy)

        publish(1, "shop.mesh")
        await proxy.ready()
        await control.settled(1)
        assert await ask(port, "shop.mesh") == (200, "a")
        assert (await ask(port, "late.mesh"))[0] == 404
        publish(2, "shop.mesh", "late.mesh")
        await control.settled(2)
        assert await ask(port, "late.mesh:8080") == (200, "a")
        assert await ask(port, "late.mesh") == (200, "a")
    assert control.record.refusals() == []
