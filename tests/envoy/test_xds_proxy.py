"""``weft proxy`` against a control plane with a real Envoy: the command, the API's routes, the tables."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.envoy.xds import (
    Authority,
    Control,
    Envoy,
    backend,
    bundle,
    cluster,
    endpoints,
    envoy,
    free_port,
    listener,
    routes,
)
from weft.client import ApiClient, RefusedError, Server
from weft.control.api.builtin import VIEWERS
from weft.control.api.permission import Access
from weft.control.api.roles import Roles
from weft.control.api.serve import serve_api
from weft.control.api.subject import MASTERS, Subject
from weft.control.proxies import Proxies
from weft.control.proxy_routes import ProxyRoutes
from weft.control.status import Status
from weft.xds.server import serve

PROXY = "sidecar~127.0.0.1~app.default~default.svc.cluster.local"
NAME = "outbound|80||one.default.svc.cluster.local"
DUMP: dict[str, Any] = {}


class As:
    """Says who calls, as the API's authentication does."""

    def __init__(self, app: ASGIApp, subject: Subject) -> None:
        self._app, self._subject = app, subject

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["access"] = Access(subject=self._subject, roles=Roles())
        await self._app(scope, receive, send)


@dataclass
class Mesh:
    control: Control
    status: Status
    socket: Path
    port: int
    proxy: Envoy

    async def weft(self, *words: str, code: int = 0) -> str:
        """Run a command in a process of its own."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "from weft.cli import main; main()", "proxy", *words,
            "--server", str(self.socket), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        assert process.returncode == code, err.decode()
        return (out if code != 2 else err).decode()

    async def settled(self, revision: int) -> None:
        self.status.published(revision, self.control.store.sequence)
        assert not (await self.status.wait_converged(revision, 20)).missing


@asynccontextmanager
async def mesh(directory: Path, group: str = MASTERS) -> AsyncIterator[Mesh]:
    control, socket, port = Control(Authority()), directory / "api.sock", free_port()
    status = Status(Proxies())
    from weft.control.proxies import authorizer

    async with serve(
        "127.0.0.1:0", lambda: control.certificates, control.store, status, authorizer(), grace=0.2
    ) as control.port, envoy(control, directory) as proxy:  # fmt: skip

        async def ask(workload: str, method: str, path: str) -> tuple[int, bytes]:
            assert workload == "default/app"
            return await proxy.get(path, method)

        app = Starlette(
            routes=ProxyRoutes(status, control.store, ask).routes(),
            middleware=[Middleware(As, subject=Subject(name="me", groups=(group,)))],
        )
        async with serve_api(app, socket_path=socket, stop=asyncio.Event()), backend("a") as a:
            control.store.publish_endpoints(None, {NAME: endpoints(NAME, a)})
            control.store.publish(
                PROXY, bundle(cluster(NAME), listener("in", port, "r"), routes("r", NAME)), 1
            )
            await proxy.ready()
            made = Mesh(control, status, socket, port, proxy)
            await made.settled(1)
            yield made


async def test_status_tells_each_type_of_each_proxy(tmp_path: Path) -> None:
    async with mesh(tmp_path) as running:
        head, line = (await running.weft("status")).splitlines()
        assert head.split() == ["NAME", "NAMESPACE", "CDS", "LDS", "EDS", "RDS", "SDS", "AGE", "VERSION"]
        assert line.split()[:8] == ["app", "default", *["SYNCED"] * 4, "NOT", "SENT"]
        assert line.split()[-1] == "1.40.0"
        row = json.loads(await running.weft("status", "app.default", "-o", "json"))
        assert (row["proxy"], row["revision"]) == (PROXY, 1)
        assert row["types"]["rds"]["sent"] == row["types"]["rds"]["acknowledged"] != ""
        bad = listener("in", running.port, "r", listener_filters=[{"name": "nothing"}])
        running.control.store.publish(PROXY, bundle(cluster(NAME), bad, routes("r", NAME)), 2)
        await running.settled(2)
        text = await running.weft("status", "app", code=1)
        assert "NACK" in text.splitlines()[1]
        assert text.splitlines()[2].startswith("app.default refuses lds in: ")
        assert await running.weft("status", "nobody", code=1) == ""


async def test_config_prints_what_envoy_runs(tmp_path: Path) -> None:
    async with mesh(tmp_path) as running:
        table = (
            await running.weft("config", "cluster", "app.default", "--direction", "outbound")
        ).splitlines()
        assert table[0].split() == [
            "SERVICE",
            "FQDN",
            "PORT",
            "SUBSET",
            "DIRECTION",
            "TYPE",
            "DESTINATION",
            "RULE",
        ]
        assert [line.split() for line in table[1:]] == [
            ["one.default.svc.cluster.local", "80", "-", "outbound", "EDS", "-"]
        ]
        table = (await running.weft("config", "listener", "app", "--port", str(running.port))).splitlines()
        assert table[1].split() == ["127.0.0.1", str(running.port), "ALL", "Route:", "r"]
        table = (await running.weft("config", "route", "default/app")).splitlines()
        assert table[1].split() == ["r", "all", "*", "/*", NAME, "-"]
        table = (await running.weft("config", "endpoint", PROXY, "--cluster", NAME)).splitlines()
        assert table[1].split()[1:] == ["HEALTHY", "OK", NAME]
        (one,) = json.loads(await running.weft("config", "cluster", "app", "--fqdn", "one", "-o", "json"))
        assert one["name"] == NAME
        (boot,) = json.loads(await running.weft("config", "bootstrap", "app"))
        assert boot["node"]["id"] == PROXY
        saved = tmp_path / "dump.json"
        saved.write_text(await running.weft("config", "all", "app", "-o", "json"))
        assert NAME in await running.weft("config", "endpoint", "-f", str(saved))
        everything = await running.weft("config", "all", "app")
        assert [word for word in everything.split() if word.isupper() and word.endswith(("CLUSTER", "ROUTE"))]
        assert "say which proxy" in await running.weft("config", "cluster", code=2)


async def test_the_control_plane_shows_what_it_made(tmp_path: Path) -> None:
    """But for what the proxy would only get if it asked."""
    async with mesh(tmp_path) as running, ApiClient(Server(socket_path=running.socket)) as client:
        both = bundle(cluster(NAME), cluster("later"), listener("in", running.port, "r"), routes("r", NAME))
        running.control.store.publish(PROXY, both, 2, lazy=frozenset({"later"}))
        await running.settled(2)
        dump = await client.raw("GET", "/debug/config_dump?proxyID=app.default")
        parts = {part["@type"].rpartition(".")[2]: part for part in dump["configs"]}
        (made,) = parts["ClustersConfigDump"]["dynamic_active_clusters"]
        assert made["cluster"]["name"] == NAME
        (made,) = parts["EndpointsConfigDump"]["dynamic_endpoint_configs"]
        assert made["endpoint_config"]["cluster_name"] == NAME
        for path, code in (("/debug/config_dump", 400), ("/debug/config_dump?proxyID=nobody", 404)):
            with pytest.raises(RefusedError) as refused:
                await client.raw("GET", path)
            assert refused.value.code == code


async def test_log_level_is_changed_in_envoy(tmp_path: Path) -> None:
    async with mesh(tmp_path) as running:
        assert "http: debug" in await running.weft("log", "app", "http:debug")
        assert "upstream: warning" in await running.weft("log", "app", "warning")
        assert "no log level" in await running.weft("log", "app", "loud", code=2)


async def test_readers_may_look_and_no_more_and_nobody_stops_an_envoy(tmp_path: Path) -> None:
    async with mesh(tmp_path, VIEWERS) as running:
        await running.weft("status")
        await running.weft("log", "app", "debug", code=1)
    (tmp_path / "again").mkdir()
    async with mesh(tmp_path / "again") as running:
        with pytest.raises(Exception, match="may not be asked of a proxy"):
            await post(running.socket, "/weft/v1/proxies/default/app/admin", "/quitquitquit")
        assert (await running.proxy.get("/ready"))[0] == 200


async def post(socket: Path, path: str, asked: str) -> Any:
    async with ApiClient(Server(socket_path=socket)) as client:
        return await client.raw("POST", path, {"method": "POST", "path": asked})


async def test_monitoring_shows_syncz_and_series(tmp_path: Path) -> None:
    async with mesh(tmp_path) as running, ApiClient(Server(socket_path=running.socket)) as client:
        (row,) = await client.raw("GET", "/debug/syncz")
        assert (row["proxy"], row["cds_status"]) == (PROXY, "SYNCED")
        report = await client.raw("GET", "/weft/v1/convergence/1?timeout=1s")
        assert (report["converged"], report["total"]) == (True, 1)
