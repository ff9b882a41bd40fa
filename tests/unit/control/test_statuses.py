"""Status in the store: real store, API objects, pipeline and streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support.plane import eventually
from tests.support.streams import Mesh, Proxy

from weft.control.api.objects import Objects
from weft.control.api.writes import Options
from weft.control.statuses import Statuses
from weft.model.catalog import by_kind
from weft.model.parse import parse_object
from weft.model.resource import Key
from weft.names import GATEWAY_CONTROLLER, GATEWAY_NAME_LABEL, LISTENER_TYPE
from weft.store.interface import ConflictError, Put, Stored
from weft.store.sqlite import SqliteStore

GATEWAY = Key("gateway.networking.k8s.io/Gateway", "shop", "edge")
SET = Key("gateway.networking.k8s.io/ListenerSet", "shop", "more")
POLICY = Key("gateway.networking.k8s.io/BackendTLSPolicy", "shop", "tls")
ROUTE = Key("gateway.networking.k8s.io/HTTPRoute", "shop", "web")
CLASS = Key("gateway.networking.k8s.io/GatewayClass", "", "weft")
WORKLOAD = Key("weft.dev/Workload", "shop", "web")


class Clock:
    """Moves by a minute whenever somebody looks."""

    minute = 0

    def __call__(self) -> datetime:
        self.minute += 1
        return datetime(2026, 1, 1, 0, self.minute % 60, tzinfo=UTC)


class World:
    """A store with its API, a pipeline and what writes status."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.objects = Objects(store)
        self.mesh = Mesh(store)
        self.statuses = Statuses(store, self.mesh.status, clock=Clock(), quiet=0.005)
        self.mesh.heard.append(self.statuses.heard)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.mesh.running():
            task = asyncio.create_task(self.statuses.run())
            try:
                yield
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def apply(self, body: dict[str, Any], owner: str | None = None) -> Stored:
        row = by_kind(body["apiVersion"], body["kind"])
        assert row is not None
        metadata = body["metadata"]
        options = Options(owner=owner, actor="test")
        if await self.store.get(Key(row.id, "shop", metadata["name"])) is None:
            return (await self.objects.create(row, "shop", body, options)).stored
        return (await self.objects.replace(row, "shop", metadata["name"], body, options)).stored

    async def wire(self, key: Key) -> dict[str, Any]:
        stored = await self.store.get(key)
        assert stored is not None
        wire: dict[str, Any] = json.loads(stored.body)
        return wire

    async def status(self, key: Key) -> dict[str, Any]:
        status: dict[str, Any] = (await self.wire(key)).get("status") or {}
        return status

    async def condition(self, key: Key, name: str) -> dict[str, Any]:
        return by_type((await self.status(key)).get("conditions") or []).get(name, {})

    async def settled(self) -> int:
        """The revision once the pipeline has seen all writes and nothing writes any more."""
        while True:
            revision = self.store.revision
            await self._reached(revision)
            await self.statuses.write()
            if self.store.revision == revision:
                return revision

    async def _reached(self, revision: int) -> None:
        await eventually(lambda: self.mesh.pipeline.revision >= revision)

    def connect(self, labels: tuple[tuple[str, str], ...] = ((GATEWAY_NAME_LABEL, "edge"),)) -> Proxy:
        return self.mesh.connect("edge-weft", "router", labels)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with SqliteStore.open(tmp_path / "store") as store:
        made = World(store)
        await made.objects.start()
        yield made


def by_type(conditions: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["type"]: one for one in conditions}


def gateway(port: int = 80, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "edge", "namespace": "shop"},
        "spec": {
            "gatewayClassName": "weft",
            "listeners": [{"name": "http", "port": port, "protocol": "HTTP"}],
            **spec,
        },
    }


def listener_set() -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "ListenerSet",
        "metadata": {"name": "more", "namespace": "shop"},
        "spec": {
            "parentRef": {"name": "edge"},
            "listeners": [{"name": "more", "port": 8080, "protocol": "HTTP"}],
        },
    }


def policy() -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "BackendTLSPolicy",
        "metadata": {"name": "tls", "namespace": "shop"},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "web"}],
            "validation": {"hostname": "web.example.com", "wellKnownCACertificates": "System"},
        },
    }


def route(parent: str = "edge", section: str = "http") -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "parentRefs": [{"name": parent, "sectionName": section}],
            "rules": [{"backendRefs": [{"name": "web", "port": 80}]}],
        },
    }


def service() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]},
    }


def workload(replicas: int) -> dict[str, Any]:
    return {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "Workload",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"command": ["/bin/true"], "replicas": replicas},
    }


async def register(
    world: World, name: str, *, labels: dict[str, str], ready: bool = True, router: bool = False
) -> None:
    entry = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "labels": labels,
            **({"annotations": {"weft.dev/proxy": "router"}} if router else {}),
        },
        "spec": {"address": "192.0.2.7"},
        "status": {"conditions": [{"type": "Healthy", "status": str(ready)}]},
    }
    key = Key("networking.istio.io/WorkloadEntry", "shop", name)
    body = json.dumps(entry).encode()
    await world.store.transact([Put(key=key, uid=name, body=body, record=False)])


async def register_gateway(world: World) -> None:
    await register(world, "edge-weft", labels={GATEWAY_NAME_LABEL: "edge"}, router=True)


async def test_the_built_in_classes_are_there_and_accepted(world: World) -> None:
    async with world.running():
        await world.settled()
        for name in ("weft", "istio"):
            key = Key(CLASS.kind, "", name)
            assert (await world.wire(key))["spec"]["controllerName"] == GATEWAY_CONTROLLER
            accepted = await world.condition(key, "Accepted")
            assert (accepted["status"], accepted["observedGeneration"]) == ("True", 1)


async def test_a_gateway_is_programmed_once_its_proxy_acknowledged(world: World) -> None:
    async with world.running():
        await world.apply(gateway())
        await world.settled()
        programmed = await world.condition(GATEWAY, "Programmed")
        assert (programmed["status"], programmed["reason"]) == ("False", "AddressNotAssigned")
        assert "addresses" not in await world.status(GATEWAY)

        await register_gateway(world)
        await world.settled()
        programmed = await world.condition(GATEWAY, "Programmed")
        assert (programmed["status"], programmed["reason"]) == ("False", "Pending")
        assert (await world.status(GATEWAY))["addresses"] == [{"type": "IPAddress", "value": "192.0.2.7"}]

        world.connect(((GATEWAY_NAME_LABEL, "another"),))
        await world.settled()
        assert (await world.condition(GATEWAY, "Programmed"))["status"] == "False"

        proxy = world.connect()
        await eventually(lambda: proxy.stream.revision >= 0)
        await world.settled()
        assert (await world.condition(GATEWAY, "Programmed"))["status"] == "True"
        listener = (await world.status(GATEWAY))["listeners"][0]
        assert by_type(listener["conditions"])["Programmed"]["status"] == "True"


async def test_a_gateway_stays_programmed_while_its_proxy_is_away(world: World) -> None:
    async with world.running():
        await world.apply(gateway())
        await register_gateway(world)
        proxy = world.connect()
        await eventually(lambda: proxy.stream.revision >= 0)
        await world.settled()
        world.mesh.disconnect(proxy)
        await world.settled()
        assert (await world.condition(GATEWAY, "Programmed"))["status"] == "True"
        await world.apply(gateway(8080))  # a new generation, which the proxy does not have
        await world.settled()
        programmed = await world.condition(GATEWAY, "Programmed")
        assert (programmed["status"], programmed["observedGeneration"]) == ("False", 2)


async def test_a_change_that_was_taken_stays_programmed_while_the_proxy_is_away(world: World) -> None:
    async with world.running():
        await world.apply(gateway())
        await register_gateway(world)
        proxy = world.connect()
        await eventually(lambda: proxy.stream.revision >= 0)
        await world.settled()
        await world.apply(gateway(8080))
        revision = await world.settled()
        await eventually(lambda: proxy.stream.revision >= revision)
        await world.settled()
        assert (await world.condition(GATEWAY, "Programmed"))["status"] == "True"
        world.mesh.disconnect(proxy)
        await world.settled()
        programmed = await world.condition(GATEWAY, "Programmed")
        assert (programmed["status"], programmed["observedGeneration"]) == ("True", 2)


async def test_a_listener_set_is_programmed_once_the_gateways_proxy_has_it(world: World) -> None:
    async with world.running():
        await world.apply(gateway(allowedListeners={"namespaces": {"from": "Same"}}))
        await register_gateway(world)
        proxy = world.connect()
        await eventually(lambda: proxy.stream.revision >= 0)
        await world.settled()
        proxy.asleep = True
        await world.apply(listener_set())
        await world.settled()
        programmed = await world.condition(SET, "Programmed")
        assert (programmed["status"], programmed["reason"]) == ("False", "Pending")
        assert (await world.condition(SET, "Accepted"))["status"] == "True"
        assert (await world.condition(GATEWAY, "Programmed"))["status"] == "True"
        assert (await world.status(GATEWAY))["attachedListenerSets"] == 1
        proxy.asleep = False
        proxy.wake()
        revision = world.mesh.pipeline.revision
        await eventually(lambda: proxy.stream.revision >= revision)
        await world.settled()
        assert (await world.condition(SET, "Programmed"))["status"] == "True"


async def test_every_kind_of_route_is_told(world: World) -> None:
    ports = {"HTTP": 80, "TCP": 90, "UDP": 90}
    tls = {"name": "tls", "port": 443, "protocol": "TLS", "tls": {"mode": "Passthrough"}}
    listeners = [{"name": name.lower(), "port": port, "protocol": name} for name, port in ports.items()]
    async with world.running():
        await world.apply(gateway(listeners=[*listeners, tls]))
        kinds = {"GRPCRoute": "http", "TLSRoute": "tls", "TCPRoute": "tcp", "UDPRoute": "udp"}
        for kind, section in kinds.items():
            made = {**route(section=section), "kind": kind}
            if kind == "TLSRoute":
                made["spec"]["hostnames"] = ["web.example.com"]
            await world.apply(made)
        await world.settled()
        for kind in kinds:
            key = Key(f"gateway.networking.k8s.io/{kind}", "shop", "web")
            (parent,) = (await world.status(key))["parents"]
            said = {one["type"]: (one["status"], one["reason"]) for one in parent["conditions"]}
            assert said == {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("False", "BackendNotFound")}
            assert not parse_object(await world.wire(key))[1]
        counts = {one["name"]: one["attachedRoutes"] for one in (await world.status(GATEWAY))["listeners"]}
        assert counts == dict.fromkeys(("http", "tcp", "udp", "tls"), 1)


async def test_a_policy_gets_an_ancestor_for_each_gateway_and_loses_it(world: World) -> None:
    async with world.running():
        await world.apply(gateway())
        await world.apply(service())
        await world.apply(route())
        await world.apply(policy())
        await world.settled()
        kinds = [one["ancestorRef"]["kind"] for one in (await world.status(POLICY))["ancestors"]]
        assert kinds == ["Gateway", "Service"]
        await world.apply(route(section="nope"))
        await world.settled()
        kinds = [one["ancestorRef"]["kind"] for one in (await world.status(POLICY))["ancestors"]]
        assert kinds == ["Service"]
        assert not parse_object(await world.wire(POLICY))[1]


async def test_a_listener_that_the_proxy_refuses_is_told_of(world: World) -> None:
    async with world.running():
        await register_gateway(world)
        proxy = world.connect()
        await eventually(lambda: proxy.stream.revision >= 0)
        proxy.refuses = LISTENER_TYPE
        await world.apply(gateway())
        await eventually(lambda: list(proxy.stream.rejected()))
        await world.settled()
        programmed = await world.condition(GATEWAY, "Programmed")
        assert (programmed["status"], programmed["reason"]) == ("False", "Invalid")
        assert "no such port" in programmed["message"]


async def test_a_write_of_status_is_no_change_and_no_history(world: World) -> None:
    async with world.running():
        await world.apply(gateway())
        await world.apply(route())
        before = world.mesh.pipeline.world
        revision = await world.settled()
        assert (await world.status(GATEWAY))["listeners"][0]["attachedRoutes"] == 1
        after = world.mesh.pipeline.world
        assert after.gateway_facts.gateways[GATEWAY].status is None
        await eventually(lambda: world.mesh.pipeline.revision == revision)
        await world.settled()
        assert world.mesh.pipeline.world is after
        assert before is not None
        assert len(await world.store.history(GATEWAY)) == 1
        for key in (GATEWAY, ROUTE, CLASS):
            resource, problems = parse_object(await world.wire(key))
            assert resource is not None
            assert not problems


async def test_a_condition_keeps_its_time_until_it_changes(world: World) -> None:
    async with world.running():
        await world.apply(gateway())
        await world.settled()
        accepted = await world.condition(GATEWAY, "Accepted")
        programmed = await world.condition(GATEWAY, "Programmed")
        await register_gateway(world)
        proxy = world.connect()
        await eventually(lambda: proxy.stream.revision >= 0)
        await world.settled()
        assert await world.condition(GATEWAY, "Accepted") == accepted
        later = await world.condition(GATEWAY, "Programmed")
        assert later["status"] != programmed["status"]
        assert later["lastTransitionTime"] > programmed["lastTransitionTime"]


async def test_what_other_controllers_say_of_a_route_stays(world: World) -> None:
    theirs = {
        "parentRef": {"name": "edge"},
        "controllerName": "example.com/other",
        "conditions": [
            {
                "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
                "lastTransitionTime": "2020-01-01T00:00:00Z",
            }
        ],
    }  # fmt: skip
    async with world.running():
        await world.apply(gateway())
        stored = await world.apply(route())
        body = json.dumps({**json.loads(stored.body), "status": {"parents": [theirs]}}).encode()
        await world.store.update(Put(key=ROUTE, uid=stored.uid, body=body, record=False))
        await world.settled()
        await world.apply(service())
        await world.settled()
        parents = (await world.status(ROUTE))["parents"]
        assert [one["controllerName"] for one in parents] == ["example.com/other", GATEWAY_CONTROLLER]
        assert parents[0] == theirs
        assert by_type(parents[1]["conditions"])["ResolvedRefs"]["status"] == "True"
        await world.apply(route("elsewhere"))
        await world.settled()
        assert (await world.status(ROUTE))["parents"] == [theirs]


async def test_an_object_of_a_directory_gets_status_and_stays_its_owners(world: World) -> None:
    async with world.running():
        await world.apply(gateway(), owner="files:/etc/mesh")
        await world.settled()
        stored = await world.store.get(GATEWAY)
        assert stored is not None
        assert stored.owner == "files:/etc/mesh"
        assert (await world.condition(GATEWAY, "Accepted"))["status"] == "True"
        unchanged = await world.apply(gateway(), owner="files:/etc/mesh")
        assert unchanged.revision == stored.revision


async def test_a_quicker_writer_is_not_overwritten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    update = SqliteStore.update
    raced: list[int] = []

    async def race(store: SqliteStore, put: Put, *, actor: str = "") -> Stored:
        if put.key == GATEWAY and not raced:
            wire = json.loads(put.body)
            wire["metadata"]["labels"] = {"by": "somebody"}
            del wire["status"]
            quick = await update(store, Put(key=put.key, uid=put.uid, body=json.dumps(wire).encode()))
            raced.append(quick.revision)
            with pytest.raises(ConflictError):
                await update(store, put, actor=actor)
            raise ConflictError(put.key, put.expect or 0, quick.revision)
        return await update(store, put, actor=actor)

    monkeypatch.setattr(SqliteStore, "update", race)
    async with world.running():
        await world.apply(gateway())
        await world.settled()
    assert raced
    wire = await world.wire(GATEWAY)
    assert wire["metadata"]["labels"] == {"by": "somebody"}
    assert wire["status"]["conditions"]


async def test_a_service_entry_gets_the_address_that_its_name_resolves_to(world: World) -> None:
    spec = {
        "hosts": ["api.example.com"],
        "ports": [{"name": "https", "number": 443, "protocol": "TLS"}],
        "resolution": "DNS",
    }
    entry = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": "api", "namespace": "shop"},
        "spec": spec,
    }
    key = Key("networking.istio.io/ServiceEntry", "shop", "api")
    async with world.running():
        stored = await world.apply(entry)
        told = {"conditions": [{"type": "example.com/Theirs", "status": "True"}]}
        body = json.dumps({**json.loads(stored.body), "status": told}).encode()
        await world.store.update(Put(key=key, uid=stored.uid, body=body, record=False))
        await world.settled()
        status = await world.status(key)
        (address,) = status["addresses"]
        assert address["host"] == "api.example.com"
        assert address["value"].startswith("240.240.")
        assert status["conditions"] == told["conditions"]
        await world.apply({**entry, "spec": {**spec, "addresses": ["192.0.2.9"]}})
        await world.settled()
        assert await world.status(key) == told
        assert not parse_object(await world.wire(key))[1]


async def test_a_workload_counts_its_instances(world: World) -> None:
    async with world.running():
        await world.apply(workload(2))
        await register(world, "web-0", labels={"weft.dev/workload": "web"})
        await register(world, "web-1", labels={"weft.dev/workload": "web"}, ready=False)
        await world.settled()
        status = await world.status(WORKLOAD)
        assert (status["replicas"], status["readyReplicas"], status["observedGeneration"]) == (2, 1, 1)
        assert (await world.condition(WORKLOAD, "Ready"))["status"] == "False"
        await register(world, "web-1", labels={"weft.dev/workload": "web"})
        await world.settled()
        assert (await world.status(WORKLOAD))["readyReplicas"] == 2
        ready = await world.condition(WORKLOAD, "Ready")
        assert (ready["status"], ready["message"]) == ("True", "2 of 2 replicas are ready")
        assert not parse_object(await world.wire(WORKLOAD))[1]
