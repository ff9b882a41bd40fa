"""From the store to the streams: real store, models, compiler and protocol; proxies acknowledge at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.plane import eventually
from tests.support.streams import CLUSTER, Mesh, key

from weft import ir
from weft.compile.proxy import compile_proxy
from weft.compile.world import World
from weft.control import pipeline as module
from weft.names import CLUSTER_TYPE, ENDPOINT_TYPE, SECRET_TYPE, ProxyName, local_endpoints
from weft.store.interface import Delete, Event, GoneError
from weft.store.sqlite import SqliteStore
from weft.xds.messages import Request


def service(name: str = "web", **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "selector": labels or {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    }


def entry(name: str, address: str, app: str = "web", account: str = "web") -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": app}},
        "spec": {"address": address, "serviceAccount": account, "labels": {"app": app}},
    }


def virtual_service(timeout: str) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "hosts": ["web"],
            "http": [{"timeout": timeout, "route": [{"destination": {"host": "web"}}]}],
        },
    }


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with SqliteStore.open(tmp_path / "store") as store:
        yield Mesh(store)


async def test_what_is_stored_reaches_a_proxy_that_connects(mesh: Mesh) -> None:
    revision = await mesh.apply(service(), entry("web-0", "10.0.0.1"))
    async with mesh.running():
        proxy = mesh.connect("api")
        await mesh.converged(revision)
        assert CLUSTER in proxy.held[CLUSTER_TYPE]
        assert proxy.addresses() == ["10.0.0.1"]
        assert mesh.pipeline.revision == revision


async def test_an_endpoint_that_comes_or_goes_moves_nothing_but_endpoints(mesh: Mesh) -> None:
    await mesh.apply(service(), entry("web-0", "10.0.0.1"))
    async with mesh.running():
        proxy = mesh.connect("api")
        await mesh.converged(await mesh.apply(entry("web-1", "10.0.0.2")))
        proxy.log.clear()
        await mesh.converged(await mesh.apply(entry("web-2", "10.0.0.3")))
        assert proxy.addresses() == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
        revision = await mesh.store.transact([Delete(key=key(entry("web-1", "")))])
        await mesh.converged(revision)
        assert proxy.addresses() == ["10.0.0.1", "10.0.0.3"]
        assert {response.type_url for response in proxy.log} == {ENDPOINT_TYPE}
        assert await mesh.pipeline.endpoints_acknowledged(revision, 5) == ()


async def test_a_proxy_knows_its_own_replicas_where_that_matters(mesh: Mesh) -> None:
    own = local_endpoints("shop", "web")
    await mesh.apply(service(), entry("web-0", "10.0.0.1"))
    async with mesh.running():
        proxy = mesh.connect("web")
        proxy.stream.receive(Request(ENDPOINT_TYPE, subscribe=(own,)))
        await mesh.converged(await mesh.apply(service("other")))
        assert own in proxy.held[ENDPOINT_TYPE]  # it waits for an answer from its start
        assert proxy.addresses(own) == []
        zones = {"loadBalancer": {"zoneAwareLbSetting": {"enabled": True}}}
        rule = {
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"host": "web", "trafficPolicy": zones},
        }  # fmt: skip
        await mesh.converged(await mesh.apply(rule))
        assert proxy.addresses(own) == ["10.0.0.1"]
        await mesh.converged(await mesh.apply(entry("web-1", "10.0.0.2")))
        assert proxy.addresses(own) == ["10.0.0.1", "10.0.0.2"]


async def test_a_new_identity_is_told_before_the_endpoint_that_bears_it(mesh: Mesh) -> None:
    await mesh.apply(service(), entry("web-0", "10.0.0.1"))
    async with mesh.running():
        proxy = mesh.connect("api")
        await mesh.converged(mesh.store.revision)
        proxy.log.clear()
        await mesh.converged(await mesh.apply(entry("web-1", "10.0.0.2", account="other")))
        assert proxy.addresses() == ["10.0.0.1", "10.0.0.2"]
        told = [response.type_url for response in proxy.log]
        with_new = next(
            number for number, response in enumerate(proxy.log)
            if response.type_url == ENDPOINT_TYPE and b"10.0.0.2" in response.payload
        )  # fmt: skip
        assert CLUSTER_TYPE in told[:with_new]


async def test_a_burst_is_compiled_once_and_every_revision_converges(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    await mesh.apply(service(), entry("web-0", "10.0.0.1"))

    def counting(*args: Any) -> Any:
        compiled.append("once")
        return compile_proxy(*args)

    async with mesh.running():
        proxy = mesh.connect("api")
        await mesh.converged(mesh.store.revision)
        monkeypatch.setattr(module, "compile_proxy", counting)
        revisions = [await mesh.apply(virtual_service(f"{seconds}s")) for seconds in range(1, 21)]
        for revision in revisions:
            await mesh.converged(revision)
        assert len(compiled) < len(revisions)
        assert proxy.stream.revision == revisions[-1]


async def test_one_proxy_that_cannot_be_compiled_stops_no_other(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    await mesh.apply(service(), entry("web-0", "10.0.0.1"))

    def failing(world: Any, identity: ir.ProxyIdentity) -> Any:
        if identity.name.name == "broken":
            raise RuntimeError("a fault of ours")
        return compile_proxy(world, identity)

    monkeypatch.setattr(module, "compile_proxy", failing)
    async with mesh.running():
        broken, whole = mesh.connect("broken"), mesh.connect("whole")
        revision = await mesh.apply(service("other"))
        report = await mesh.status.wait_converged(revision, 1)
        assert report.missing == (broken.proxy,)
        assert "outbound|80||other.shop.svc.cluster.local" in whole.held[CLUSTER_TYPE]
        assert "a fault of ours" in mesh.pipeline.problems[broken.proxy][0].message
        assert mesh.status.metrics.errors.value() >= 1


async def test_a_proxy_that_comes_back_is_sent_what_holds_then(mesh: Mesh) -> None:
    await mesh.apply(service(), entry("web-0", "10.0.0.1"))
    async with mesh.running():
        proxy = mesh.connect("api")
        await mesh.converged(mesh.store.revision)
        mesh.disconnect(proxy)
        revision = await mesh.apply(service("other"), entry("web-0", "10.0.0.7"))
        await mesh.converged(revision)
        again = mesh.connect("api")
        await mesh.converged(revision)
        assert again.addresses() == ["10.0.0.7"]
        assert "outbound|80||other.shop.svc.cluster.local" in again.held[CLUSTER_TYPE]


async def test_a_removed_service_leaves_no_cluster_and_no_route(mesh: Mesh) -> None:
    await mesh.apply(service(), service("other"), entry("web-0", "10.0.0.1"))
    async with mesh.running():
        proxy = mesh.connect("api")
        await mesh.converged(mesh.store.revision)
        assert CLUSTER in proxy.held[CLUSTER_TYPE]
        await mesh.converged(await mesh.store.transact([Delete(key=key(service()))]))
        assert CLUSTER not in proxy.held[CLUSTER_TYPE]
        assert "outbound|80||other.shop.svc.cluster.local" in proxy.held[CLUSTER_TYPE]


@pytest.mark.parametrize("changed", ["subset", "port"])
async def test_a_cluster_on_its_way_out_keeps_its_endpoints(mesh: Mesh, changed: str) -> None:
    def resources(new: bool) -> list[dict[str, Any]]:
        rule = {
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"host": "web.example.com", "subsets": [{"name": "b" if new else "a", "labels": {}}]},
        }  # fmt: skip
        outside: dict[str, Any] = {
            "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "hosts": ["web.example.com"], "resolution": "STATIC", "endpoints": [{"address": "10.0.0.1"}],
                "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
            },
        }  # fmt: skip
        if new and changed == "port":
            outside["spec"]["ports"][0]["number"] = 81
        return [outside, rule] if changed == "subset" else [outside]

    cluster = f"outbound|80|{'a' if changed == 'subset' else ''}|web.example.com"
    await mesh.apply(*resources(new=False))
    async with mesh.running():
        proxy = mesh.connect("api")
        await mesh.converged(mesh.store.revision)
        assert proxy.addresses(cluster) == ["10.0.0.1"]
        proxy.log.clear()
        await mesh.converged(await mesh.apply(*resources(new=True)))
        told = [one for one in proxy.log if one.type_url == ENDPOINT_TYPE]
        assert cluster not in {resource.name for one in told for resource in one.resources}
        assert cluster not in proxy.held[CLUSTER_TYPE]


async def test_virtual_addresses_survive_a_restart(mesh: Mesh) -> None:
    await mesh.apply(service(), service("other"))
    async with mesh.running():
        first = dict(mesh.pipeline.world.vips)
    assert first
    again = Mesh(mesh.store)
    # The order in which services appear must not matter, nor that one is gone.
    await mesh.store.transact([Delete(key=key(service()))])
    async with again.running():
        now = again.pipeline.world.vips
        assert now["shop", "other"] == first["shop", "other"]
        await again.apply(service())
        again.connect("api")
        await again.converged(mesh.store.revision)
        assert again.pipeline.world.vips["shop", "web"] == first["shop", "web"]


async def test_an_object_that_cannot_be_read_is_left_out_and_named(mesh: Mesh) -> None:
    bad = service("bad")
    bad["spec"]["ports"] = "eighty"
    revision = await mesh.apply(service(), bad)
    async with mesh.running():
        proxy = mesh.connect("api")
        await mesh.converged(revision)
        assert CLUSTER in proxy.held[CLUSTER_TYPE]
        assert list(mesh.pipeline.invalid) == [key(bad)]
        await mesh.converged(await mesh.apply(service("bad")))
        assert mesh.pipeline.invalid == {}


async def test_an_object_that_weft_fails_on_costs_nobody_else(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = World.replace

    def failing(world: World, put: Any = (), *others: Any) -> World:
        put = list(put)
        if any(resource.key == key(service("poison")) for resource in put):
            raise RuntimeError("a fault of ours")
        return whole(world, put, *others)

    monkeypatch.setattr(World, "replace", failing)
    await mesh.apply(service(), service("poison"), service("other"))
    async with mesh.running():
        proxy = mesh.connect("api")
        await mesh.converged(mesh.store.revision)
        assert CLUSTER in proxy.held[CLUSTER_TYPE]
        assert "outbound|80||other.shop.svc.cluster.local" in proxy.held[CLUSTER_TYPE]
        assert "a fault of ours" in mesh.pipeline.invalid[key(service("poison"))][0].message


async def test_a_fault_of_ours_costs_one_turn_and_no_change(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    await mesh.apply(service())
    async with mesh.running():
        proxy = mesh.connect("api")
        await mesh.converged(mesh.store.revision)
        failed = asyncio.Event()

        async def fail(*_: object) -> None:
            failed.set()
            raise RuntimeError("a fault of ours")

        with monkeypatch.context() as patched:
            patched.setattr(mesh.pipeline, "_publish", fail)
            await mesh.apply(service("first"))
            async with asyncio.timeout(20):
                await failed.wait()
        await mesh.converged(await mesh.apply(service("second")))
        for name in ("first", "second"):
            assert f"outbound|80||{name}.shop.svc.cluster.local" in proxy.held[CLUSTER_TYPE]


async def test_a_newcomer_does_not_wait_for_the_others(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    await mesh.apply(service(), entry("web-0", "10.0.0.1"))
    order: list[str] = []

    def noting(world: Any, identity: ir.ProxyIdentity) -> Any:
        order.append(identity.name.name)
        if len(order) == 1:
            mesh.connect("newcomer")
        return compile_proxy(world, identity)

    async with mesh.running():
        for number in range(9):
            mesh.connect(f"api-{number}")
        await mesh.converged(mesh.store.revision)
        monkeypatch.setattr(module, "_SLICE_SECONDS", 0.0)
        monkeypatch.setattr(module, "compile_proxy", noting)
        await mesh.converged(await mesh.apply(virtual_service("3s")))
        assert order == ["api-0", "newcomer", *(f"api-{number}" for number in range(1, 9))]


async def test_who_fell_behind_the_store_reads_it_again(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    await mesh.apply(service(), service("gone"), entry("web-0", "10.0.0.1"))
    watch, behind = mesh.store.watch, asyncio.Event()

    async def late(since: int) -> AsyncIterator[Event]:
        monkeypatch.setattr(mesh.store, "watch", watch)
        await behind.wait()
        if behind.is_set():
            raise GoneError(since, since + 1)
        yield  # type: ignore[misc] # makes it an iterator, as the real one is

    monkeypatch.setattr(mesh.store, "watch", late)
    async with mesh.running():
        proxy = mesh.connect("api")
        await mesh.converged(mesh.store.revision)
        await mesh.store.transact([Delete(key=key(service("gone")))])
        revision = await mesh.apply(entry("web-0", "10.0.1.9"))
        assert proxy.addresses() == ["10.0.0.1"]
        behind.set()
        await mesh.converged(revision)
        assert proxy.addresses() == ["10.0.1.9"]
        assert "outbound|80||gone.shop.svc.cluster.local" not in proxy.held[CLUSTER_TYPE]
        await mesh.converged(await mesh.apply(service("late")))
        assert "outbound|80||late.shop.svc.cluster.local" in proxy.held[CLUSTER_TYPE]


async def test_a_secret_that_changes_reaches_the_gateway_that_asked_for_it(mesh: Mesh) -> None:
    def secret(key: str) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "edge", "namespace": "shop"},
            "stringData": {"tls.crt": "certificate", "tls.key": key},
        }

    gateway = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "edge", "namespace": "shop"},
        "spec": {
            "selector": {"app": "edge"},
            "servers": [
                {
                    "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
                    "hosts": ["*"],
                    "tls": {"mode": "SIMPLE", "credentialName": "edge"},
                }
            ],
        },
    }
    name = "kubernetes-gateway://shop/edge"
    await mesh.apply(gateway, secret("one"))
    async with mesh.running():
        edge, other = mesh.connect("edge", "router"), mesh.connect("other", "router")
        for proxy in (edge, other):
            proxy.stream.receive(Request(SECRET_TYPE, subscribe=(name,)))
            proxy.wake()
        await mesh.converged(mesh.store.revision)
        first = edge.held[SECRET_TYPE][name]
        edge.log.clear()
        await mesh.converged(await mesh.apply(secret("two")))
        assert edge.held[SECRET_TYPE][name] != first
        assert {response.type_url for response in edge.log} == {SECRET_TYPE}
        assert SECRET_TYPE not in other.held


async def test_peers_are_expected_in_the_trust_domain_that_the_authority_signs_in(tmp_path: Path) -> None:
    config = {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "MeshConfig",
        "metadata": {"name": "default", "namespace": "istio-system"},
        "spec": {"trustDomain": "elsewhere.example", "accessLogFile": "/dev/stdout"},
    }
    async with SqliteStore.open(tmp_path / "store") as store:
        mesh = Mesh(store, trust_domain="corp.example")
        await mesh.apply(service(), entry("web-0", "10.0.0.1"))
        async with mesh.running():
            mesh.connect("web")
            await mesh.converged(await mesh.apply(config))
            settings = mesh.pipeline.world.settings
            assert settings.accepted_trust_domains == ("corp.example",)
            made, problems = compile_proxy(
                mesh.pipeline.world,
                ir.ProxyIdentity(name=ProxyName.parse("sidecar~10.0.0.9~web.shop~shop.svc.cluster.local")),
            )
            tls = next(cluster for cluster in made.clusters if cluster.name == CLUSTER).tls
            assert tls is not None
            assert [name.value for name in tls.peer_names] == ["spiffe://corp.example/ns/shop/sa/web"]
            assert "spec.trustDomain" in [problem.path for problem in problems]


async def test_a_proxy_whose_registration_is_gone_is_sent_away_with_what_it_has(mesh: Mesh) -> None:
    await mesh.apply(service(), entry("web-0", "10.0.0.1"), entry("web-1", "10.0.0.2"))
    async with mesh.running():
        lost, other = mesh.connect("web-0"), mesh.connect("web-1")
        await mesh.converged(mesh.store.revision)
        lost.log.clear()
        await mesh.store.transact([Delete(key=key(entry("web-0", "")))])
        await eventually(lambda: other.addresses() == ["10.0.0.2"])
        assert lost.ended == "denied"
        assert lost.log == []
        assert other.ended == ""
