"""A control plane without sockets: real store, models, compiler and protocol; proxies acknowledge at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from weft import ir
from weft.compile.world import World
from weft.control.pipeline import Pipeline
from weft.control.proxies import Proxies
from weft.control.status import Status
from weft.model.resource import Key
from weft.names import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ProxyName
from weft.protos.wire import from_any
from weft.store.interface import Put
from weft.store.sqlite import SqliteStore
from weft.xds.connection import Connection, Node, Peer
from weft.xds.messages import Acknowledged, Refused, Request
from weft.xds.shared import Response, Shared
from weft.xds.store import ConfigStore

CLUSTER = "outbound|80||web.shop.svc.cluster.local"


class Proxy(Connection):
    """A proxy that acknowledges whatever it is sent, as soon as it is woken, but for one type if it
    ``refuses`` that, or takes nothing while it is ``asleep``. ``ended`` holds the reason when it was sent
    away."""

    __slots__ = ("asleep", "ended", "held", "log", "refuses", "status")

    def __init__(
        self, name: str, mesh: Mesh, kind: str = "sidecar", labels: tuple[tuple[str, str], ...] = ()
    ) -> None:
        node_id = f"{kind}~10.0.0.9~{name}.shop~shop.svc.cluster.local"
        identity = ir.ProxyIdentity(name=ProxyName.parse(node_id), labels=labels or (("app", name),))
        super().__init__(
            _NoTransport(), Peer(node_id, Node(node_id), identity), mesh.shared, mesh.config, mesh.status
        )
        self.status = mesh.status
        self.refuses = self.ended = ""
        self.asleep = False
        self.held: dict[str, dict[str, str]] = {}
        self.log: list[Response] = []

    def end(self, reason: str, message: str) -> None:
        self.ended = reason

    def wake(self) -> None:
        if self.asleep:
            return
        while not self.ended and (response := self.stream.send()) is not None:
            self.log.append(response)
            self.status.sent(self, response)
            if response.type_url == self.refuses:
                event = self.stream.receive(Request(self.refuses, nonce=response.nonce, error="no such port"))
                assert isinstance(event, Refused)
                self.status.refused(self, event)
                continue
            held = self.held.setdefault(response.type_url, {})
            held.update({resource.name: resource.version for resource in response.resources})
            for name in response.removed:
                held.pop(name, None)
            if response.type_url == CLUSTER_TYPE:
                self.stream.receive(
                    Request(ENDPOINT_TYPE, subscribe=tuple(r.name for r in response.resources))
                )
            event = self.stream.receive(Request(response.type_url, nonce=response.nonce))
            assert isinstance(event, Acknowledged)
            self.status.acknowledged(self, event)
        self.status.progressed(self)

    def addresses(self, cluster: str = CLUSTER) -> list[str]:
        """The endpoints that it was sent last."""
        for response in reversed(self.log):
            for resource in response.resources:
                if response.type_url == ENDPOINT_TYPE and resource.name == cluster:
                    message: Any = from_any(resource.body)
                    return [
                        host.endpoint.address.socket_address.address
                        for place in message.endpoints
                        for host in place.lb_endpoints
                    ]
        return []


class _NoTransport:
    async def read(self) -> bytes | None:
        raise AssertionError("nobody reads")

    async def write(self, message: bytes) -> None:
        raise AssertionError("nobody writes")


@dataclass
class Mesh:
    """A store, the pipeline behind it, and the streams of proxies."""

    store: SqliteStore
    config: ConfigStore = field(default_factory=ConfigStore)
    proxies: Proxies = field(default_factory=Proxies)
    trust_domain: str = ""
    shared: Shared = field(default_factory=Shared)

    def __post_init__(self) -> None:
        self.status = Status(self.proxies)
        self.heard: list[Callable[[World, int], None]] = []
        self.pipeline = Pipeline(
            self.store,
            self.config,
            self.proxies,
            self.status,
            trust_domain=self.trust_domain,
            on_world=self._tell,
            quiet=0.005,
        )

    def _tell(self, world: World, revision: int) -> None:
        for hear in self.heard:
            hear(world, revision)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        ready = asyncio.Event()
        task = asyncio.create_task(self.pipeline.run(ready.set))
        try:
            async with asyncio.timeout(20):
                await ready.wait()
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def connect(self, name: str, kind: str = "sidecar", labels: tuple[tuple[str, str], ...] = ()) -> Proxy:
        proxy = Proxy(name, self, kind, labels)
        self.config.attach(proxy)
        for url in (CLUSTER_TYPE, LISTENER_TYPE):
            proxy.stream.receive(Request(url))
        self.status.connected(proxy)
        return proxy

    def disconnect(self, proxy: Proxy) -> None:
        self.config.detach(proxy)
        self.status.disconnected(proxy)

    async def apply(self, *objects: dict[str, Any]) -> int:
        return await self.store.transact([put(one) for one in objects])

    async def converged(self, revision: int) -> None:
        report = await self.status.wait_converged(revision, 20)
        assert report.done, report


def key(data: dict[str, Any]) -> Key:
    group = data["apiVersion"].rpartition("/")[0]
    return Key(f"{group}/{data['kind']}", data["metadata"]["namespace"], data["metadata"]["name"])


def put(data: dict[str, Any]) -> Put:
    return Put(key=key(data), uid="u-" + data["metadata"]["name"], body=json.dumps(data).encode())
