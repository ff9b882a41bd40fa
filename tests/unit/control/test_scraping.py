"""What Prometheus is told, and whom nodes let in, by a real control plane with a real session of a node."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.otlp_metrics import running_metric_collector
from tests.support.plane import eventually
from tests.support.ports import free_port

from weft.client import ApiClient, RefusedError, Server
from weft.control.app import control_plane
from weft.control.doors import Door
from weft.control.options import ControlOptions, Listening
from weft.names import CONTROL_PLANE_HOST
from weft.node.enrolment import Membership, join
from weft.node.keys import make_key, request_for
from weft.node.remote import trusting_context
from weft.node.session import Session

NODE = "http://127.0.0.1:15020"
INSTANCE = {
    "id": "shop/web-0", "name": "web-0", "namespace": "shop", "serviceAccount": "web", "address": "127.7.7.7",
    "labels": {"app": "web", "version": "v1", "else": "x"}, "ports": {"http": 8080}, "attachment": {},
}  # fmt: skip


@dataclass
class Mesh:
    listening: Listening
    member: Membership
    session: Session
    client: ApiClient

    async def get(self, path: str, token: str = "") -> tuple[int, str]:
        """From the monitoring port."""
        context = ssl.create_default_context(cadata=self.member.credential.bundle)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        url = f"{self.listening.monitoring}{path}"
        async with (
            aiohttp.ClientSession() as http,
            http.get(url, ssl=context, headers=headers, server_hostname=CONTROL_PLANE_HOST) as answer,
        ):
            return answer.status, await answer.text()

    async def user(self, name: str, *groups: str, **more: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await self.client.raw(
            "POST", "/weft/v1/users", {"name": name, "groups": list(groups), **more}
        )
        return answer


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Mesh]:
    options = ControlOptions(
        runtime=directory / "run", state=directory / "state", listen="127.0.0.1", api_port=free_port(),
        xds_port=free_port(), monitoring_port=0, telemetry_port=0,
    )  # fmt: skip
    directory.mkdir(exist_ok=True)
    stop = asyncio.Event()
    async with (
        control_plane(options, stop) as listening,
        ApiClient(Server(socket_path=listening.socket)) as client,
    ):
        token = (await client.raw("POST", "/weft/v1/tokens", {"node": "one"}))["token"]
        member = await join(listening.api, token, "one", ["127.0.0.1"], directory)
        session = Session(member, directory, metrics=NODE)
        holding = asyncio.create_task(session.run())
        try:
            assert await session.wait_connected(20)
            yield Mesh(listening, member, session, client)
        finally:
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)
            await session.close()
            stop.set()


async def test_discovery_and_admission(tmp_path: Path) -> None:
    async with running(tmp_path / "a") as mesh:
        await mesh.session.register(INSTANCE)
        token = (await mesh.user("prometheus", "system:monitoring", audiences=["monitoring"]))["token"]
        narrow = (await mesh.user("nobody"))["token"]
        elsewhere = (await mesh.user("prometheus", "system:monitoring", audiences=["api"]))["token"]
        assert (await mesh.get("/sd"))[0] == 401
        assert (await mesh.get("/sd", narrow))[0] == 403
        assert (await mesh.get("/sd?role=all", token))[0] == 400
        found = json.loads((await mesh.get("/sd", token))[1])
        node, control = found
        assert node["targets"] == ["127.0.0.1:15020"]
        assert node["labels"] == {
            "__scheme__": "http",
            "__metrics_path__": "/metrics",
            "__meta_weft_role": "node",
            "__meta_weft_node": "one",
            "node": "one",
        }
        assert f"https://{control['targets'][0]}" == mesh.listening.monitoring
        assert control["labels"]["app"] == "istiod"
        (workload,) = json.loads((await mesh.get("/sd?role=workload&role=gateway", token))[1])
        assert workload["labels"]["__param_workload"] == "shop/web-0"
        assert workload["labels"]["__meta_weft_version"] == "v1"

        # Whom a node may let in: by the session, as it asks itself.
        assert await mesh.session.may_scrape({"token": token})
        for refused in (narrow, elsewhere, "weftuser.abcdefghij." + "A" * 43, "x"):
            assert not await mesh.session.may_scrape({"token": refused})
        key = make_key()
        user = await mesh.user("prometheus", "system:monitoring", csr=request_for(key))
        assert await mesh.session.may_scrape({"certificate": user["certificate"]})
        assert not await mesh.session.may_scrape({"certificate": mesh.member.credential.certificate})
        await mesh.client.raw("DELETE", "/weft/v1/users/prometheus")
        assert not await mesh.session.may_scrape({"token": token})
        assert not await mesh.session.may_scrape({"certificate": user["certificate"]})
        # Nobody else asks, be it an administrator: the answer would tell whose token it is.
        with pytest.raises(RefusedError) as refusal:
            await mesh.client.raw("POST", "/weft/v1/scrapes", {"token": token})
        assert refusal.value.code == 403
        assert (await unseen(mesh))[0] == 404


async def test_what_nodes_show_of_themselves(tmp_path: Path) -> None:
    """It is pushed to collectors of metrics, with what the control plane itself shows."""

    async def show() -> str:
        return '# TYPE weft_node_names gauge\nweft_node_names{kind="all"} 3\n'

    with running_metric_collector() as collector:
        async with running(tmp_path / "a") as mesh:
            mesh.session.on_series(show)
            token = (await mesh.user("prometheus", "system:monitoring", audiences=["monitoring"]))["token"]
            for place, body in _pushing(collector.port):
                await mesh.client.raw("POST", f"/apis/{place}", body)
            wanted = {"pilot_services", "weft_node_names", "pilot_proxy_convergence_time"}
            await eventually(lambda: wanted <= collector.names(), 60, f"{wanted}")
            services = {one["service.name"]: one for one in collector.resources()}
            assert services.keys() == {"weft-control-plane", "weft-node"}
            assert services["weft-node"]["host.name"] == "one"
            assert collector.by("weft_node_names", "kind") == {"all": 3}

            async def told() -> bool:
                _, text = await mesh.get("/metrics", token)
                wanted = ('weft_metrics_push_up{provider="all"} 1.0', "weft_metrics_pushed_points_total{")
                return all(one in text for one in wanted)

            await eventually(told, 60, "the control plane's own series")
            assert not collector.torn


def _pushing(port: int) -> list[tuple[str, dict[str, Any]]]:
    """A ServiceEntry for a collector, and a MeshConfig that sends metrics there."""
    entry = {
        "hosts": ["collector.example"], "location": "MESH_EXTERNAL", "resolution": "STATIC",
        "endpoints": [{"address": "127.0.0.1"}],
        "ports": [{"number": 4317, "name": "grpc", "protocol": "GRPC", "targetPort": port}],
    }  # fmt: skip
    provider = {"name": "all", "opentelemetry": {"service": "collector.example", "port": 4317}}
    spec = {"extensionProviders": [provider], "defaultProviders": {"metrics": ["all"]}}
    root, made = "namespaces/istio-system", []
    for group, kind, plural, name, said in (
        ("networking.istio.io/v1", "ServiceEntry", "serviceentries", "collector", entry),
        ("weft.dev/v1alpha1", "MeshConfig", "meshconfigs", "default", spec),
    ):
        about = {"name": name, "namespace": "istio-system"}
        body = {"apiVersion": group, "kind": kind, "metadata": about, "spec": said}
        made.append((f"{group}/{root}/{plural}", body))
    return made


async def test_what_workloads_use(tmp_path: Path) -> None:
    """A node is asked through its session and believed of what it holds; who sees traffic sees this."""
    part = {"cpu": 0.25, "memory": 5_000_000, "processes": 2, "seconds": 2.0}
    said: list[dict[str, Any]] = [
        {"instance": "shop/web-0", "part": "application", **part},
        {"instance": "shop/web-0", "part": "proxy", **part, "cpu": None},
        {"instance": "shop/other-0", "part": "application", **part},
    ]
    asked = []

    async def look(namespace: str) -> list[dict[str, Any]]:
        asked.append(namespace)
        return said

    async with running(tmp_path / "a") as mesh:
        await mesh.session.register({**INSTANCE, "labels": {"weft.dev/workload": "web"}})

        async def usage(namespace: str) -> Any:
            return await mesh.client.raw("GET", "/weft/v1/usage", query={"namespace": namespace})

        nothing = {"application": None, "proxy": None, "wrapper": None}
        about = {"namespace": "shop", "name": "web-0", "workload": "web", "node": "one"}
        silent = {"usage": [], "failed": {"one": "this node measures nothing"}}
        assert await usage("shop") == silent
        mesh.session.on_usage(look)
        whole = {
            "usage": [{**about, **nothing, "application": part, "proxy": {**part, "cpu": None}}],
            "failed": {},
        }
        assert await usage("shop") == await usage("") == whole
        assert asked == ["shop", ""]
        assert await usage("nowhere") == {"usage": [], "failed": {}}
        for wrong in ({"cpu": -1}, {"cpu": 1e300}, {"memory": "much"}, {"part": "kernel"}):
            said[0] = {"instance": "shop/web-0", "part": "application", **part, **wrong}
            assert await usage("shop") == {"usage": [], "failed": {"one": "its answer cannot be read"}}
        user = (await mesh.user("nobody"))["token"]
        bare = mesh.listening.api
        async with ApiClient(
            Server(url=bare, token=user, ca_data=mesh.member.credential.bundle.encode())
        ) as client:
            with pytest.raises(RefusedError) as refusal:
                await client.raw("GET", "/weft/v1/usage", query={"namespace": "shop"})
        assert refusal.value.code == 403


async def unseen(mesh: Mesh) -> tuple[int, str]:
    """A node's path at the port for monitoring."""
    own = mesh.member.credential
    context = trusting_context(own.bundle, key=own.key, certificate=own.certificate)
    url = f"{mesh.listening.monitoring}/weft/v1/scrapes"
    async with (
        aiohttp.ClientSession() as http,
        http.post(url, ssl=context, json={}, server_hostname=CONTROL_PLANE_HOST) as answer,
    ):
        return answer.status, await answer.text()


async def test_the_control_planes_own_series(tmp_path: Path) -> None:
    service: Mapping[str, Any] = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    }  # fmt: skip
    async with running(tmp_path / "a") as mesh:
        token = (await mesh.user("prometheus", "system:monitoring"))["token"]

        async def series() -> dict[tuple[str, ...], float]:
            status, text = await mesh.get("/metrics", token)
            assert status == 200
            return {
                (one.name, *sorted(one.labels.values())): one.value
                for family in text_string_to_metric_families(text)
                for one in family.samples
            }

        before = await series()
        await mesh.client.raw("POST", "/api/v1/namespaces/shop/services", dict(service))
        broken = {**service, "metadata": {"name": "Broken!", "namespace": "shop"}}
        with pytest.raises(RefusedError):
            await mesh.client.raw("POST", "/api/v1/namespaces/shop/services", broken)
        found: dict[tuple[str, ...], float] = {}

        async def counted() -> bool:
            found.update(await series())
            return found["pilot_services",] == before["pilot_services",] + 1

        await eventually(counted)
        assert (
            found["galley_validation_passed",] == before["galley_validation_passed",] + 2
        )  # and its namespace
        assert found["galley_validation_failed",] == before["galley_validation_failed",] + 1 == 1
        assert found["pilot_k8s_reg_events", "Service", "add"] == 1
        assert found["weft_nodes_connected",] == 1
        assert found["citadel_server_success_cert_issuance_count",] == 1
        assert found["citadel_server_root_cert_expiry_timestamp",] > 1_800_000_000
        assert found["citadel_server_root_cert_expiry_seconds",] > 1_000_000
        assert found["process_resident_memory_bytes",] > 10_000_000
        assert [value for key, value in found.items() if key[0] == "istio_build"] == [1]
        assert found["pilot_push_triggers", "config"] >= 1
        uses = [key for key in found if key[0] == "container_memory_working_set_bytes"]
        assert {key[1] for key in uses} >= {"discovery"}


@pytest.mark.parametrize(
    ("url", "near", "address"),
    [
        ("https://192.0.2.1:15020", False, "192.0.2.1:15020"),
        ("https://[2001:db8::1]:15020", False, "[2001:db8::1]:15020"),
        ("http://127.0.0.1:15020", True, "127.0.0.1:15020"),
        # Prometheus would show its token there, to whoever listens on its own host or in between.
        ("http://127.0.0.1:15020", False, None),
        ("http://192.0.2.1:15020", True, None),
        ("https://127.0.0.1:15020", False, None),
        ("https://elsewhere.example:443", False, None),
        ("https://192.0.2.1", False, None),
        ("ftp://192.0.2.1:1", False, None),
        ("https://192.0.2.1:99999", False, None),
        ("https://[::", False, None),
        ("", False, None),
    ],
)
def test_what_is_believed_of_a_node(url: str, near: bool, address: str | None) -> None:
    door = Door.parse("one", url, near=near)
    assert (door.address if door else None) == address
