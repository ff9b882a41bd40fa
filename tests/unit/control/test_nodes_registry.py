from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.support.plane import eventually

from weft.control.entry import owner_of
from weft.control.nametable import NamesUpdate, NameTable
from weft.control.registry import Registry
from weft.identity.ca import Authority
from weft.identity.nodes import Node, Nodes
from weft.identity.scope import EVERYTHING
from weft.identity.server import Issuer, Refused
from weft.identity.tokens import Tokens
from weft.instance import Instance
from weft.model.parse import parse_object
from weft.model.resource import Key
from weft.store.interface import Action, Put
from weft.store.sqlite import SqliteStore

ENTRY = "networking.istio.io/WorkloadEntry"
HOST1 = Node(name="host1", scope=EVERYTHING, keys=("k",), token="t", joined=datetime.now(UTC))
HOST2 = Node(name="host2", scope=EVERYTHING, keys=("k",), token="t", joined=datetime.now(UTC))


def utc() -> datetime:
    return datetime.now(UTC)


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore.open(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def issuer(store: SqliteStore) -> Issuer:
    authority = Authority.create(utc())
    tokens, nodes = Tokens(store.private("tokens"), utc), Nodes(store.private("nodes"))
    return Issuer(lambda: authority, tokens, nodes, utc, audit=lambda issued: None)


@pytest.fixture
def time() -> Time:
    return Time()


async def at_once(key: Key, revision: int) -> None:
    pass


@pytest.fixture
def registry(store: SqliteStore, issuer: Issuer, time: Time) -> Registry:
    return Registry(store, issuer, at_once, now=time)


def instance(name: str = "web-0", *, address: str = "192.0.2.7", ready: bool = False) -> Instance:
    return Instance(namespace="shop", name=name, address=address, ports={"http": 8080}, ready=ready)


async def entries(store: SqliteStore) -> list[str]:
    return [stored.key.name for stored in await store.list(ENTRY)]


async def test_a_lost_session_leaves_one_lease_from_when_it_was_heard(
    registry: Registry, store: SqliteStore, time: Time
) -> None:
    await registry.register(HOST1, instance())
    registry.detach("host1", time.now - 5)
    time.now += 9.9
    await registry.lapse()
    assert await entries(store) == ["web-0"]
    time.now += 0.2
    await registry.lapse()
    assert await entries(store) == []


async def test_after_a_restart_everybody_has_a_whole_lease(
    registry: Registry, store: SqliteStore, issuer: Issuer, time: Time
) -> None:
    await registry.register(HOST1, instance("web-0"))
    await registry.register(HOST2, instance("web-1"))
    before = store.revision
    again = Registry(store, issuer, at_once, now=time)
    await again.restore()
    time.now += 14.9
    await again.lapse()
    assert await again.replay(HOST1, [instance("web-0")])
    assert store.revision == before, "what has not changed is not written"
    time.now += 0.2
    await again.lapse()
    assert await entries(store) == ["web-0"], "host2 did not come back"


async def test_while_a_lease_runs_the_name_stays_taken(
    registry: Registry, store: SqliteStore, issuer: Issuer, time: Time
) -> None:
    await registry.register(HOST1, instance())
    registry.detach("host1", time.now)
    with pytest.raises(Refused, match="node 'host1' runs it"):
        await registry.register(HOST2, instance())
    time.now += 16
    await registry.lapse()
    await registry.register(HOST2, instance())


async def test_leases_lapse_by_themselves(store: SqliteStore, issuer: Issuer) -> None:
    registry = Registry(store, issuer, at_once, lease_s=0.2)
    keeping = asyncio.create_task(registry.keep())
    try:
        await registry.register(HOST1, instance())
        registry.detach("host1", asyncio.get_running_loop().time())
        await eventually(lambda: _empty(store))
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping


async def _empty(store: SqliteStore) -> bool:
    return await entries(store) == []


async def test_a_hello_says_what_runs_and_what_has_gone(registry: Registry, store: SqliteStore) -> None:
    await registry.replay(HOST1, [instance("a"), instance("b")])
    await registry.register(HOST2, instance("c"))
    outcome = await registry.replay(HOST1, [instance("b"), instance("c")], gone=["shop/a", "shop/c"])
    assert await entries(store) == ["b", "c"]
    assert isinstance(outcome["shop/c"], Refused)
    assert isinstance(outcome["shop/b"], Instance)


async def test_what_a_hello_does_not_name_has_a_lease(
    registry: Registry, store: SqliteStore, time: Time
) -> None:
    """A new agent says hello before it has adopted what runs."""
    await registry.replay(HOST1, [instance("a"), instance("b")])
    await registry.replay(HOST1, [])
    await registry.register(HOST1, instance("a"))
    time.now += 14.9
    await registry.lapse()
    assert await entries(store) == ["a", "b"]
    time.now += 0.2
    await registry.lapse()
    assert await entries(store) == ["a"]


async def test_a_node_comes_back_and_lapses_in_one_step(
    registry: Registry, store: SqliteStore, time: Time
) -> None:
    """In between its sidecars would be told that some of their neighbours are missing."""
    await registry.register(HOST1, instance("a"))
    before = store.revision
    await registry.replay(HOST1, [instance("a"), instance("b"), instance("c")])
    registry.detach("host1", time.now)
    time.now += 15.1
    await registry.lapse()
    assert await entries(store) == []
    steps: list[list[str]] = [[]]
    async for event in store.watch(before):
        steps[-1].append(f"{event.action} {event.stored.key.name}")
        if event.revision == store.revision:
            break
        if event.last:
            steps.append([])
    assert steps == [["created b", "created c"], ["deleted a", "deleted b", "deleted c"]]


async def test_leases_of_before_begin_when_the_ports_are_open(
    registry: Registry, store: SqliteStore, issuer: Issuer, time: Time
) -> None:
    await registry.register(HOST1, instance("a"))
    again = Registry(store, issuer, at_once, now=time)
    await again.restore()
    time.now += 14
    again.opened()
    time.now += 14
    await again.lapse()
    assert await entries(store) == ["a"]
    time.now += 2
    await again.lapse()
    assert await entries(store) == []


async def test_readiness_changes_nothing_but_the_condition(registry: Registry, store: SqliteStore) -> None:
    await registry.register(HOST1, instance())
    before = json.loads((await store.list(ENTRY))[0].body)
    await registry.update("host1", "shop/web-0", ready=True)
    after = json.loads((await store.list(ENTRY))[0].body)
    assert after["status"]["conditions"][0]["status"] == "True"
    assert {**before, "status": None} == {**after, "status": None}
    revision = store.revision
    await registry.update("host1", "shop/web-0", ready=True)
    assert store.revision == revision


async def test_a_new_address_is_a_new_generation(registry: Registry, store: SqliteStore) -> None:
    await registry.register(HOST1, instance())
    await registry.register(HOST1, instance(address="192.0.2.8"))
    body = json.loads((await store.list(ENTRY))[0].body)
    assert body["metadata"]["generation"] == 2
    assert body["spec"]["address"] == "192.0.2.8"


async def test_registrations_are_owned_and_no_history(registry: Registry, store: SqliteStore) -> None:
    await registry.register(HOST1, instance())
    assert (await store.list(ENTRY))[0].owner == owner_of("host1")
    await registry.deregister("host1", "shop/web-0")
    assert not await store.history(Key(ENTRY, "shop", "web-0"))


async def test_only_its_node_removes_it(registry: Registry, store: SqliteStore) -> None:
    await registry.register(HOST1, instance())
    await registry.deregister("host2", "shop/web-0")
    assert await entries(store) == ["web-0"]
    with pytest.raises(Refused):
        await registry.update("host2", "shop/web-0", ready=True)
    with pytest.raises(Refused):
        await registry.drain("host2", "shop/web-0")


async def test_a_draining_instance_stays_so(registry: Registry, store: SqliteStore) -> None:
    await registry.register(HOST1, instance(ready=True))
    assert await registry.drain("host1", "shop/web-0")
    await registry.update("host1", "shop/web-0", ready=True)
    conditions = json.loads((await store.list(ENTRY))[0].body)["status"]["conditions"]
    assert ("Draining", "True") in [(condition["type"], condition["status"]) for condition in conditions]


async def test_an_entry_that_somebody_deleted_comes_back(registry: Registry, store: SqliteStore) -> None:
    await registry.register(HOST1, instance())
    await store.delete(Key(ENTRY, "shop", "web-0"))
    await registry.deregister("host1", "shop/web-0")
    await registry.register(HOST1, instance())
    assert await entries(store) == ["web-0"]


async def test_an_existing_service_is_left_alone(registry: Registry, store: SqliteStore) -> None:
    key = Key("/Service", "shop", "web")
    mine = b'{"metadata":{"name":"web"},"spec":{"selector":{"app":"web"}}}'
    await store.create(Put(key=key, uid="u", body=mine))
    about = Instance(namespace="shop", name="web-0", address="192.0.2.7", ports={"http": 80}, service="web")
    await registry.register(HOST1, about)
    stored = await store.get(key)
    assert stored is not None
    assert stored.body == mine


async def test_the_namespace_of_an_instance_exists(registry: Registry, store: SqliteStore) -> None:
    await registry.register(HOST1, instance())
    await registry.register(HOST1, instance("web-1"))
    (stored,) = await store.list("/Namespace")
    resource, problems = parse_object(json.loads(stored.body))
    assert resource is not None
    assert not problems
    assert resource.metadata.name == "shop"
    assert resource.metadata.labels == {"kubernetes.io/metadata.name": "shop"}


async def test_a_service_has_the_applications_ports_where_the_sidecars_differ(
    registry: Registry, store: SqliteStore
) -> None:
    about = Instance(
        namespace="shop",
        name="web-0",
        address="192.0.2.7",
        ports={"http": 15408},
        service="web",
        attachment={"inboundPorts": {"8080": 15408}},
    )
    await registry.register(HOST1, about)
    stored = await store.get(Key("/Service", "shop", "web"))
    assert stored is not None
    assert json.loads(stored.body)["spec"]["ports"] == [{"name": "http", "port": 8080, "targetPort": "http"}]


async def test_watchers_see_one_event_for_each_change(registry: Registry, store: SqliteStore) -> None:
    await registry.register(HOST1, instance())
    await registry.register(HOST1, instance())
    await registry.update("host1", "shop/web-0", ready=True)
    await registry.deregister("host1", "shop/web-0")
    seen = []
    async with asyncio.timeout(10):
        async for event in store.watch(0):
            if event.stored.key.kind == ENTRY:
                seen.append(event.action)
            if event.action is Action.DELETED:
                break
    assert seen == [Action.CREATED, Action.UPDATED, Action.DELETED]


class TestNames:
    async def test_whole_then_by_steps(self) -> None:
        table = NameTable()
        table.set({"a": ("1",), "b": ("2",)})
        follow = table.follow()
        assert await anext(follow) == NamesUpdate(revision=1, full=True, put={"a": ("1",), "b": ("2",)})
        table.set({"a": ("1",), "c": ("3",)})
        assert await anext(follow) == NamesUpdate(revision=2, full=False, put={"c": ("3",)}, removed=("b",))

    async def test_the_same_again_is_no_change(self) -> None:
        table = NameTable()
        table.set({"a": ("1",)})
        follow = table.follow()
        await anext(follow)
        table.set({"a": ("1",)})
        table.set({})
        assert (await anext(follow)).revision == 2

    async def test_who_falls_behind_gets_the_whole_table(self) -> None:
        table = NameTable()
        table.set({"a": ("1",)})
        follow = table.follow()
        await anext(follow)
        table.set({"b": ("2",)})
        table.set({"c": ("3",)})
        assert await anext(follow) == NamesUpdate(revision=3, full=True, put={"c": ("3",)})

    async def test_an_empty_table_is_a_table(self) -> None:
        table = NameTable()
        table.set({})
        assert await anext(table.follow()) == NamesUpdate(revision=1, full=True)
