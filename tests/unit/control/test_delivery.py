"""Clusters on demand, from the store to the streams: who gets which, when, and what is learned of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.plane import eventually
from tests.support.streams import Mesh, Proxy, key
from tests.unit.control.test_pipeline import entry, service, virtual_service

from weft.compile.delivery import MANY
from weft.names import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE, outbound_cluster
from weft.protos.wire import from_any
from weft.store.interface import Delete
from weft.store.sqlite import SqliteStore
from weft.xds.messages import Request

WEB, NEWS = (outbound_cluster(f"{name}.shop.svc.cluster.local", 80) for name in ("web", "news"))


def mesh_config(delivery: str) -> dict[str, Any]:
    return {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "MeshConfig",
        "metadata": {"name": "default", "namespace": "istio-system"},
        "spec": {"clusterDelivery": delivery},
    }


ON_DEMAND = mesh_config("onDemand")


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with SqliteStore.open(tmp_path / "store") as store:
        yield Mesh(store)


def outbound(proxy: Proxy) -> set[str]:
    """Clusters of services that it holds."""
    return {name for name in proxy.held[CLUSTER_TYPE] if name.startswith("outbound|")}


def ask(proxy: Proxy, *names: str) -> None:
    """A request needs clusters."""
    proxy.stream.receive(Request(CLUSTER_TYPE, subscribe=names))
    proxy.wake()


def asks(proxy: Proxy) -> bool:
    """Whether its listeners ask for clusters, by the last ones that it was sent."""
    sent = [
        resource
        for response in proxy.log
        if response.type_url == LISTENER_TYPE
        for resource in response.resources
        if resource.name == "0.0.0.0_80"
    ]
    return "envoy.filters.http.on_demand" in str(from_any(sent[-1].body))


async def test_a_cluster_comes_with_its_endpoints_when_it_is_asked_for(mesh: Mesh) -> None:
    revision = await mesh.apply(ON_DEMAND, service(), service("news"), entry("web-0", "10.0.0.1"))
    async with mesh.running():
        proxy = mesh.connect("api")
        await mesh.converged(revision)
        assert asks(proxy)
        assert outbound(proxy) == set()
        assert {"PassthroughCluster", "BlackHoleCluster"} <= set(proxy.held[CLUSTER_TYPE])
        assert not any(name.startswith("outbound|") for name in proxy.held.get(ENDPOINT_TYPE, {}))
        ask(proxy, WEB)
        assert outbound(proxy) == {WEB}
        assert proxy.addresses(WEB) == ["10.0.0.1"]
        # Its endpoints follow; nobody hears of those of others.
        await mesh.converged(
            await mesh.apply(entry("web-1", "10.0.0.2"), entry("news-0", "10.0.0.3", "news"))
        )
        assert proxy.addresses(WEB) == ["10.0.0.1", "10.0.0.2"]
        assert proxy.addresses(NEWS) == []


async def test_a_cluster_that_goes_and_comes_back(mesh: Mesh) -> None:
    await mesh.apply(ON_DEMAND, service(), service("news"), entry("web-0", "10.0.0.1"))
    async with mesh.running():
        proxy = mesh.connect("api")
        await mesh.converged(await mesh.apply(virtual_service("1s")))
        ask(proxy, WEB)
        first = proxy.held[CLUSTER_TYPE][WEB]
        revision = await mesh.store.transact(
            [Delete(key=key(service())), Delete(key=key(virtual_service("1s")))]
        )
        await mesh.converged(revision)
        assert WEB in proxy.held[CLUSTER_TYPE], "it stays in name, so that requests fail at once"
        assert proxy.held[CLUSTER_TYPE][WEB] != first
        await mesh.converged(await mesh.apply(service()))
        assert proxy.held[CLUSTER_TYPE][WEB] == first
        assert proxy.addresses(WEB) == ["10.0.0.1"]


async def test_a_change_concerns_those_who_have_the_cluster(mesh: Mesh) -> None:
    rule: dict[str, Any] = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"host": "web", "trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}}},
    }
    await mesh.apply(ON_DEMAND, service(), service("news"))
    async with mesh.running():
        user, other = mesh.connect("api"), mesh.connect("other")
        await mesh.converged(mesh.pipeline.revision)
        ask(user, WEB)
        user.log.clear()
        other.log.clear()
        await mesh.converged(await mesh.apply(rule))
        assert [r.name for one in user.log for r in one.resources if one.type_url == CLUSTER_TYPE] == [WEB]
        assert other.log == []


async def test_what_one_workload_used_is_there_for_the_next_of_its_account(
    mesh: Mesh, tmp_path: Path
) -> None:
    revision = await mesh.apply(ON_DEMAND, service(), service("news"))
    async with mesh.running():
        proxy = mesh.connect("api-0")
        await mesh.converged(revision)
        ask(proxy, WEB, "outbound|80||gone.shop.svc.cluster.local")
        second = mesh.connect("api-1")
        await mesh.converged(revision)
        assert outbound(second) == {WEB}, "what does not exist is not learned"
        table = mesh.store.private("learned-clusters")
        await eventually(lambda: _read(table, "shop/default"))
    # Another control plane, another day.
    again = Mesh(mesh.store)
    async with again.running():
        third = again.connect("api-2")
        await again.converged(revision)
        assert outbound(third) == {WEB}


async def _read(table: Any, name: str) -> bool:
    return await table.get(name) is not None


async def test_accounts_learn_a_bounded_number(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weft.control.delivery._LEARNED", 1)
    revision = await mesh.apply(ON_DEMAND, service(), service("news"))
    async with mesh.running():
        proxy = mesh.connect("api-0")
        await mesh.converged(revision)
        ask(proxy, NEWS)
        ask(proxy, WEB)
        second = mesh.connect("api-1")
        await mesh.converged(revision)
        assert outbound(second) == {WEB}, "the last one"


async def test_few_clusters_all_come_and_many_on_demand(mesh: Mesh) -> None:
    few = [service(f"s{number}") for number in range(MANY)]
    await mesh.apply(*few)
    async with mesh.running():
        old = mesh.connect("old")
        await mesh.converged(mesh.pipeline.revision)
        assert len(outbound(old)) == MANY
        assert not asks(old)
        await mesh.converged(await mesh.apply(service("one-more")))
        new = mesh.connect("new")
        await mesh.converged(mesh.pipeline.revision)
        assert outbound(new) == set()
        assert asks(new)
        # What runs goes on as it began.
        assert len(outbound(old)) == MANY + 1
        assert not asks(old)
        assert not any(response.removed for response in old.log)


async def test_eager_holds_at_once_and_takes_nothing_away(mesh: Mesh) -> None:
    await mesh.apply(ON_DEMAND, service(), service("news"))
    async with mesh.running():
        proxy = mesh.connect("api")
        await mesh.converged(mesh.pipeline.revision)
        ask(proxy, WEB)
        proxy.log.clear()
        await mesh.converged(await mesh.apply(mesh_config("eager")))
        assert outbound(proxy) == {WEB, NEWS}
        assert not asks(proxy)
        order = [one.type_url for one in proxy.log if one.type_url in {CLUSTER_TYPE, LISTENER_TYPE}]
        assert order == [CLUSTER_TYPE, LISTENER_TYPE]
        proxy.log.clear()
        await mesh.converged(await mesh.apply(ON_DEMAND))
        assert proxy.log == [], "a proxy that has them keeps them"


def reconnect(mesh: Mesh, old: Proxy, *asked: str) -> Proxy:
    """The proxy comes back with what it held, to a control plane that knows nothing of it."""
    proxy = Proxy(old.peer.identity.name.name, mesh)
    proxy.held = {url: dict(held) for url, held in old.held.items()}
    mesh.config.attach(proxy)
    for url in (CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE):
        held = proxy.held.get(url, {})
        names = ("*", *asked) if url == CLUSTER_TYPE else tuple(held) if url != LISTENER_TYPE else ()
        proxy.stream.receive(Request(url, subscribe=names, initial_versions=held))
    mesh.status.connected(proxy)
    return proxy


async def test_a_proxy_that_comes_back_is_sent_nothing_that_it_has(mesh: Mesh) -> None:
    services = [service(f"s{number}") for number in range(4)]
    revision = await mesh.apply(ON_DEMAND, *services, service(), entry("web-0", "10.0.0.1"))
    async with mesh.running():
        proxy = mesh.connect("api")
        await mesh.converged(revision)
        ask(proxy, WEB)
    again = Mesh(mesh.store)
    async with again.running():
        back = reconnect(again, proxy, WEB)
        await again.converged(revision)
        assert [one for one in back.log if one.resources or one.removed] == []
        # And it goes on: what it has not got it gets when it asks.
        name = outbound_cluster("s0.shop.svc.cluster.local", 80)
        ask(back, name)
        assert outbound(back) == {WEB, name}


async def test_what_was_sent_ahead_stays_when_a_proxy_comes_back(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it is not learned any more: somebody may use it."""
    services = [service(f"s{number}") for number in range(4)]
    revision = await mesh.apply(ON_DEMAND, *services, service())
    async with mesh.running():
        first = mesh.connect("api-0")
        await mesh.converged(revision)
        ask(first, WEB)
        second = mesh.connect("api-1")
        await mesh.converged(revision)
        table = mesh.store.private("learned-clusters")
        await eventually(lambda: _read(table, "shop/default"))
        await table.delete("shop/default")
    again = Mesh(mesh.store)
    async with again.running():
        back = reconnect(again, second)
        await again.converged(revision)
        assert outbound(back) == {WEB}
        assert [one for one in back.log if one.resources or one.removed] == []


async def test_a_proxy_that_has_everything_keeps_it_when_it_comes_back(mesh: Mesh) -> None:
    await mesh.apply(service(), service("news"))
    async with mesh.running():
        proxy = mesh.connect("api")
        await mesh.converged(mesh.pipeline.revision)
    revision = await mesh.apply(ON_DEMAND)
    again = Mesh(mesh.store)
    async with again.running():
        back = reconnect(again, proxy)
        await again.converged(revision)
        assert [one for one in back.log if one.resources or one.removed] == []
