"""``weft up``: control plane, node, gateways and workloads of one machine, in the foreground.

The parts are the commands that many hosts would run (docs/decisions/0002): this process starts them, keeps
the node at what the resources say, shows the state, and ends all of it in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import secrets
import shutil
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar

from weft.app import tree
from weft.app.doors import Doors
from weft.app.fleet import Fleet
from weft.app.gateways import EdgeProxy, edge_proxies
from weft.app.nodesocket import Event, NodeSocket
from weft.app.output import Output
from weft.app.part import Part
from weft.app.reachable import wait_reachable
from weft.app.replicas import Replica, replicas
from weft.app.view import Row, View, progress, row
from weft.client import ApiClient, RefusedError, Resource, Server
from weft.client.api import problems_of
from weft.errors import WeftError
from weft.model.catalog import GATEWAY_API, NETWORKING, WEFT
from weft.model.core import ConfigMap
from weft.model.gateway import Gateway
from weft.model.gateway_class import GatewayClass
from weft.model.istio_gateway import Gateway as IstioGateway
from weft.model.listener_set import ListenerSet
from weft.model.parse import parse_object
from weft.model.workload import Workload
from weft.names import API_PORT, MONITORING_PORT, NODE_METRICS_PORT, ROOT_NAMESPACE, TELEMETRY_PORT, XDS_PORT
from weft.node.layout import DEFAULT_MESH, Layout
from weft.node.place import host_address

_PORT_OPTIONS: Final = ("--xds-port", "--api-port", "--monitoring-port", "--telemetry-port")
_PRIVILEGED: Final = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
_NODE_STOP_S: Final = 60.0
_CONTROL_STOP_S: Final = 10.0
_NODE_READY_S: Final = 30.0
_AWAY_S: Final = 0.2

_T = TypeVar("_T")
_CHANGES_S: Final = 1.0

Objects = Sequence[Mapping[str, Any]]

STRICT: Final[Mapping[str, Any]] = {
    "apiVersion": "security.istio.io/v1",
    "kind": "PeerAuthentication",
    "metadata": {"name": "default", "namespace": ROOT_NAMESPACE},
    "spec": {"mtls": {"mode": "STRICT"}},
}
ACCESS_LOG: Final[Mapping[str, Any]] = {
    "apiVersion": f"{WEFT}/v1alpha1",
    "kind": "MeshConfig",
    "metadata": {"name": "default", "namespace": ROOT_NAMESPACE},
    "spec": {"accessLogFile": "/dev/stdout", "accessLogEncoding": "JSON"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """``port_map``: gateway port -> host port. ``capture``: ``auto`` or a mode. ``again`` yields the objects
    anew whenever the files changed (``--watch``).
    """

    mesh: str = "default"
    namespace: str = "default"
    port_map: Mapping[int, int] = field(default_factory=dict)
    capture: str = "auto"
    certificate_lifetime: str = "24h"
    again: Callable[[], AsyncIterator[Objects]] | None = None
    load: Callable[[str], Sequence[str]] | None = None
    logs: bool = False
    dashboard: bool = True


class Up:
    """One run. ``ready`` is set once everything that was asked for takes traffic."""

    def __init__(self, objects: Objects, options: UpOptions, view: View) -> None:
        self._objects = objects
        self._options = options
        self._view = view
        self.layout = Layout.of(options.mesh)
        self.node = NodeSocket(self.layout.node_socket)
        self.fleet = Fleet(self.node, view.say)
        self._output = Output(self.node, view.say)
        self.ready = asyncio.Event()
        self._started = asyncio.Event()
        self.urls: dict[tuple[str, int], str] = {}
        self._dashboard = ""
        self._change = ""
        self._revision = 0
        self._rows: list[Row] = []
        lowest = 0 if os.geteuid() == 0 else _lowest_port()
        self._doors = Doors(options.mesh, options.port_map, lowest=lowest, free=_free)

    async def run(self, stop: asyncio.Event) -> None:
        """Start everything, keep it so until ``stop``, end everything.

        Raises:
            WeftError: a part did not start.
        """
        async with AsyncExitStack() as stack:
            control, client = await stack.enter_async_context(self._control_plane())
            node = await stack.enter_async_context(self._node(client))
            stack.push_async_callback(self.fleet.close)
            stack.push_async_callback(self._output.close)
            await self._apply(client, self._objects, first=True)
            if self._options.dashboard:
                from weft.app.dashboard import serve_dashboard

                self._dashboard = await stack.enter_async_context(serve_dashboard(client))
            async with asyncio.TaskGroup() as tasks:
                parts = [
                    tasks.create_task(self._reconcile(client), name="reconcile"),
                    tasks.create_task(self._show(), name="view"),
                    tasks.create_task(self._announce(client), name="readiness"),
                    tasks.create_task(self._follow_changes(client), name="changes"),
                    tasks.create_task(control.keep(_nothing), name="control plane"),
                    tasks.create_task(node.keep(self._recount), name="node"),
                ]
                if self._options.again is not None:
                    parts.append(tasks.create_task(self._follow(client, self._options.again), name="files"))
                if self._options.load is not None:
                    parts.append(tasks.create_task(self._load(self._options.load), name="load"))
                await stop.wait()
                self._view.say("stopping: workloads drain, then everything is removed")
                for part in parts:
                    part.cancel()
        self._view.say("stopped")

    # The parts

    @asynccontextmanager
    async def _control_plane(self) -> AsyncIterator[tuple[Part, ApiClient]]:
        if (self.layout.runtime / "api.sock").exists() and _answers(self.layout.runtime / "api.sock"):
            raise WeftError(
                f"a mesh runs here already ({self.layout.runtime})",
                hint="use it (weft apply FILE…), stop it, or give this one another --mesh",
            )
        logs = self.layout.runtime
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = logs / "control-plane"
        # A mesh of `weft up` begins empty: the files say everything.
        shutil.rmtree(state, ignore_errors=True)
        address = host_address() if os.geteuid() == 0 else "127.0.0.1"
        argv = [
            *command_of("control-plane"), "--mesh", self._options.mesh, "--runtime-dir", str(logs),
            "--state-dir", str(state), "--listen", "0.0.0.0" if os.geteuid() == 0 else "127.0.0.1",
            "--advertise", address, "--certificate-lifetime", self._options.certificate_lifetime,
        ]  # fmt: skip
        try:
            part = await self._start_control_plane(argv, logs / "control-plane.log")
            try:
                async with ApiClient(Server(socket_path=logs / "api.sock")) as client:
                    yield part, client
            finally:
                await part.stop(_CONTROL_STOP_S)
        finally:
            shutil.rmtree(logs, ignore_errors=True)
            with contextlib.suppress(OSError):
                logs.parent.rmdir()

    async def _start_control_plane(self, argv: Sequence[str], log: Path) -> Part:
        """With ports that are free; with others when somebody took one of them meanwhile."""
        for more in (True, True, False):
            ports = [self._port(port) for port in (XDS_PORT, API_PORT, MONITORING_PORT, TELEMETRY_PORT)]
            options = zip(_PORT_OPTIONS, ports, strict=True)
            whole = [*argv, *chain.from_iterable(options)]
            part = Part("the control plane", whole, log=log, say=self._view.say)
            try:
                await part.start()
            except WeftError:
                if not more or all(_free(int(port)) for port in ports):
                    raise
            else:
                break
        return part

    @asynccontextmanager
    async def _node(self, client: ApiClient) -> AsyncIterator[Part]:
        name = f"{socket.gethostname().split('.')[0].lower()}-{secrets.token_hex(3)}"
        token = await client.raw("POST", "/weft/v1/tokens", {"node": name})
        kubeconfig = json.loads((self.layout.runtime / "kubeconfig").read_text())
        api = kubeconfig["clusters"][0]["cluster"]["server"]
        argv = [
            *command_of("node"), "--mesh", self._options.mesh, "--name", name, "--server", api,
            "--capture", self._options.capture, "--ephemeral",
            "--metrics", f"127.0.0.1:{self._port(NODE_METRICS_PORT)}",
        ]  # fmt: skip
        # The token goes by the environment: a command line is shown to everybody by ps.
        part = Part(
            "the node", argv, log=self.layout.runtime / "node.log", say=self._view.say,
            env={"WEFT_TOKEN": str(token["token"])}, again=("--adopt",), deadline=_NODE_READY_S,
        )  # fmt: skip
        try:
            await part.start()
            yield part
        finally:
            await part.stop(_NODE_STOP_S)

    def _port(self, wanted: int) -> str:
        """The well-known port for the mesh that most have, if it is free; the same for every start."""
        if self._options.mesh == DEFAULT_MESH and _free(wanted):
            return str(wanted)
        with socket.socket() as probe:
            probe.bind(("0.0.0.0", 0))
            return str(probe.getsockname()[1])

    async def _recount(self) -> None:
        """Start anew what a node that was started again could not take over."""
        answer = await self.node.ask({"op": "list"}, "workloads")
        self.fleet.found({str(one["id"]) for one in answer["workloads"]})

    # Resources

    async def _apply(self, client: ApiClient, objects: Objects, *, first: bool = False) -> None:
        wanted = list(objects)
        if first and not any(_is_mesh_default(one) for one in wanted):
            wanted.insert(0, STRICT)
            self._view.say(f"mutual TLS: STRICT (PeerAuthentication {ROOT_NAMESPACE}/default)")
        if first and not any(_is_mesh_config(one) for one in wanted):
            await log_access(client)
        try:
            answer = await client.apply(wanted, namespace=self._options.namespace, strict=True)
        except RefusedError as refusal:
            refusal.problems = tuple(problem for _, problem in problems_of(refusal))
            raise
        self._revision = int(answer.get("revision") or 0)
        self._change = f"revision {self._revision}, {len(wanted)} objects"

    async def _follow(self, client: ApiClient, again: Callable[[], AsyncIterator[Objects]]) -> None:
        async for objects in again():
            try:
                await _answered(partial(self._apply, client, objects))
            except RefusedError as refusal:
                self._view.say(f"the files were refused: {refusal.message}")

    async def _reconcile(self, client: ApiClient) -> None:
        """Bring the node in line with Workloads and Gateways, now and after each change of them."""
        known = {(one.group, one.kind): one for one in await client.resources()}
        kinds = [
            known[WEFT, "Workload"],
            known[NETWORKING, "Gateway"],
            *(known[GATEWAY_API, kind] for kind in ("Gateway", "GatewayClass", "ListenerSet")),
            known["", "ConfigMap"],
        ]
        changed = asyncio.Event()
        changed.set()
        async with asyncio.TaskGroup() as tasks:
            for kind in kinds:
                tasks.create_task(_watch(client, kind, changed), name=f"watch {kind.full_name}")
            while True:
                await changed.wait()
                changed.clear()
                lists = [(await _answered(partial(client.list, kind)))["items"] for kind in kinds]
                workloads = [_typed(Workload, one) for one in lists[0]]
                istio = [_typed(IstioGateway, one) for one in lists[1]]
                gateways = [_typed(Gateway, one) for one in lists[2]]
                borne = [one.metadata.labels or {} for one in workloads]
                classes = [_typed(GatewayClass, one) for one in lists[3]]
                added = [_typed(ListenerSet, one) for one in lists[4]]
                maps = [_typed(ConfigMap, one) for one in lists[5]]
                edges = edge_proxies(istio, gateways, borne, classes, added, maps)
                self.fleet.want({**replicas(workloads), **self._edges(edges)})

    def _edges(self, edges: Mapping[str, EdgeProxy]) -> dict[str, Replica]:
        """The gateways as replicas."""
        self._doors.keep(edges)
        self.urls = {key: url for key, url in self.urls.items() if key[0] in edges}
        return {edge.id: self._edge(edge) for edge in edges.values()}

    def _edge(self, edge: EdgeProxy) -> Replica:
        door = self._doors.give(edge)
        for port, to in door.ports.items():
            self.urls[edge.id, port] = edge.url(port, to, door.address or "localhost")
        for port, why in door.new.items():
            if why:
                self._view.say(f"gateway port {port} is open on {door.ports[port]} ({why})")
            self._view.say(f"gateway {edge.id}: {self.urls[edge.id, port]}")
        moved = {str(port): to for port, to in door.moved.items()}
        request = {
            "name": edge.name,
            "namespace": edge.namespace,
            "serviceAccount": edge.service_account,
            "labels": dict(edge.labels),
            "kind": "router",
            "capture": "none",
            "portMap": moved,
            "address": door.address,
            "sharedPorts": True,
        }
        # More ports are a matter of configuration; only another place or name needs another process.
        version = str((sorted(moved.items()), sorted(edge.labels.items()), door.address))
        return Replica(edge.id, request, version)

    # What people see

    async def _show(self) -> None:
        async with aclosing(self._events()) as events:
            async for event in events:
                now = datetime.datetime.now(datetime.UTC)
                rows = self._rows = [row(one, now) for one in event.get("workloads") or ()]
                self._view.show(rows, self._change)
                if self._options.logs:
                    self._output.follow(f"{r.namespace}/{r.name}" for r in rows if r.kind == "workload")
                if rows and self.fleet.settled and all(one.ready for one in rows):
                    self._started.set()

    async def _announce(self, client: ApiClient) -> None:
        """Say that everything is ready, once what the node started can be called from everywhere."""
        await self._started.wait()
        kinds = await _answered(client.resources)
        entries = next(one for one in kinds if (one.group, one.kind) == (NETWORKING, "WorkloadEntry"))
        ids = [f"{one.namespace}/{one.name}" for one in self._rows]
        late = await _answered(partial(wait_reachable, client, entries, ids))
        if late:
            self._view.say(f"not every proxy has confirmed its configuration: {', '.join(late)}")
        self.ready.set()
        self._view.say(f"everything is ready: {len(ids)} proxies. Ctrl-C ends it.")
        for url in self.urls.values():
            self._view.say(f"  open {url}")
        if self._dashboard:
            self._view.say(f"  dashboard, for one browser: {self._dashboard}")

    async def _events(self) -> AsyncGenerator[Event]:
        """What the node tells, from each node that runs in turn."""
        while True:
            with contextlib.suppress(WeftError):
                async with aclosing(self.node.events({"op": "watch"})) as events:
                    async for event in events:
                        yield event
            await asyncio.sleep(_AWAY_S)

    async def _follow_changes(self, client: ApiClient) -> None:
        """Say how far the newest revision got, whoever made it; from the first time that all is ready."""
        await self.ready.wait()
        while True:
            with contextlib.suppress(WeftError):  # a control plane that is gone is another's concern
                state = await client.raw("GET", f"/weft/v1/convergence/{self._revision}")
                if state["latest"] > self._revision:
                    self._revision = state["latest"]
                    state = await client.raw("GET", f"/weft/v1/convergence/{self._revision}")
                change = progress(state)
                if change != self._change:
                    self._change = change
                    self._view.show(self._rows, change)
            await asyncio.sleep(_CHANGES_S)

    async def _load(self, command: Callable[[str], Sequence[str]]) -> None:
        await self.ready.wait()
        if not self.urls:
            return
        url = next(iter(self.urls.values()))
        child = await tree.start("load", command(url), log=self.layout.runtime / "load.log")
        try:
            await child.process.wait()
        finally:
            await child.stop(2)


async def _watch(client: ApiClient, kind: Resource, changed: asyncio.Event) -> None:
    """Set ``changed`` at every change; a watch that ends is begun anew."""
    while True:
        try:
            async for _ in client.watch(kind):
                changed.set()
        except RefusedError:
            pass  # too old: what changed meanwhile is listed anew
        except WeftError:
            await asyncio.sleep(_AWAY_S)  # the control plane is being started again
        changed.set()


async def _answered(ask: Callable[[], Awaitable[_T]]) -> _T:
    """Ask until the control plane answers: it may be just starting again.

    Raises:
        RefusedError: that was its answer.
    """
    while True:
        try:
            return await ask()
        except RefusedError:
            raise
        except WeftError:
            await asyncio.sleep(_AWAY_S)


async def log_access(client: ApiClient) -> None:
    """Give a mesh without MeshConfig an access log.

    It is created, not applied: a MeshConfig that is applied later adds to it, and the access log stays.
    """
    known = {(one.group, one.kind): one for one in await client.resources()}
    path = known[WEFT, "MeshConfig"].path(ROOT_NAMESPACE)
    try:
        await client.raw("POST", path, ACCESS_LOG)
    except RefusedError as refusal:
        if refusal.code != 409:
            raise


async def _nothing() -> None:
    """Nothing is to be done."""


def _typed(model: type[Any], wire: Mapping[str, Any]) -> Any:
    resource, problems = parse_object(dict(wire))
    if not isinstance(resource, model):
        raise WeftError(f"the control plane gave a {model.__name__} that cannot be read", problems=problems)
    return resource


def _is_mesh_default(wire: Mapping[str, Any]) -> bool:
    metadata = wire.get("metadata") or {}
    return (
        wire.get("kind") == "PeerAuthentication"
        and metadata.get("namespace") == ROOT_NAMESPACE
        and not (wire.get("spec") or {}).get("selector")
    )


def _is_mesh_config(wire: Mapping[str, Any]) -> bool:
    metadata = wire.get("metadata") or {}
    return wire.get("kind") == "MeshConfig" or (
        wire.get("kind") == "ConfigMap"
        and (metadata.get("namespace"), metadata.get("name")) == (ROOT_NAMESPACE, "istio")
    )


def command_of(command: str) -> list[str]:
    """How one of weft's own commands is started from here; not by what else bears its name in this folder."""
    return [sys.executable, "-P", "-m", "weft", command]


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _free(port: int, address: str = "0.0.0.0") -> bool:
    """Whether a port, or with 0 any port, of an address of this host can be opened."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except PermissionError:
            return True  # nobody has it; whether we may is another question
        except OSError:
            return False
    return True


def _lowest_port() -> int:
    try:
        return int(_PRIVILEGED.read_text())
    except (OSError, ValueError):
        return 1024
