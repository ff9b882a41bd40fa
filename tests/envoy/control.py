"""A control plane in a thread of this process (store, pipeline, xDS) and sidecars as nodes start them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from tests.support.certificates import TestAuthority
from tests.support.envoy import Envoy, running_envoy, short_directory
from tests.support.ports import free_port
from tests.support.streams import key, put
from weft.card import Card
from weft.control.pipeline import Pipeline
from weft.control.proxies import Proxies, authorizer
from weft.control.status import Status
from weft.emit.bootstrap import Settings, bootstrap, environment
from weft.ir import ProxyIdentity
from weft.names import TELEMETRY_PORT, ProxyName
from weft.store.interface import Delete
from weft.store.sqlite import SqliteStore
from weft.xds.server import Certificates, serve
from weft.xds.store import ConfigStore

T = TypeVar("T")
_SERVER = "control.test"
_SECONDS = 60.0


class ControlPlane:
    """Runs inside ``with``; ``stop`` and ``start`` are a restart: the store stays, all else goes."""

    def __init__(self, directory: Path, authority: TestAuthority) -> None:
        self.authority = authority
        self.port = free_port()
        self.pipeline: Pipeline
        self.status: Status
        self._directory = directory
        pair = authority.issue(_SERVER)
        self._certificates = Certificates(
            pair.certificate.encode(), pair.key.encode(), authority.pem.encode()
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Serve what the store holds."""
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(_SECONDS), "the control plane does not start"
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """End all streams."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_SECONDS)
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # whoever waits in another thread must hear of it
            self._failure = error
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self) -> None:
        async with SqliteStore.open(self._directory) as self._store:
            config, proxies = ConfigStore(), Proxies()
            self.status = Status(proxies)
            self.pipeline = Pipeline(self._store, config, proxies, self.status)
            loaded = asyncio.Event()
            running = asyncio.create_task(self.pipeline.run(loaded.set))
            await loaded.wait()
            async with serve(
                f"127.0.0.1:{self.port}",
                lambda: self._certificates,
                config,
                self.status,
                authorizer(),
                grace=0.2,
            ):
                self._ready.set()
                await self._stop.wait()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    @property
    def store(self) -> SqliteStore:
        """Whose coroutines run in the control plane's own loop."""
        return self._store

    def identities(self) -> list[ProxyIdentity]:
        """Of the proxies that are connected."""
        return [one.peer.identity for one in self.status.proxies.connections()]

    def ask(self, question: Coroutine[Any, Any, T]) -> T:
        """What a coroutine gives in the control plane's own loop."""
        return asyncio.run_coroutine_threadsafe(question, self._loop).result(_SECONDS)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Store objects; returns when every proxy runs with them."""
        self.ask(self._change([put(one) for one in objects]))

    def delete(self, *objects: dict[str, Any]) -> None:
        """Remove objects; returns when every proxy runs without them."""
        self.ask(self._change([Delete(key=key(one)) for one in objects]))

    async def _change(self, operations: list[Any]) -> None:
        revision = await self._store.transact(operations)
        report = await self.status.wait_converged(revision, _SECONDS / 2)
        assert report.done, report

    async def _all_connected(self, count: int) -> None:
        async with asyncio.timeout(_SECONDS / 2):
            while True:
                report = self.status.convergence(self.pipeline.revision)
                if report.done and report.total == count:
                    return
                await asyncio.sleep(0.01)

    def settle(self, count: int) -> None:
        """Until so many proxies are connected and have everything."""
        self.ask(self._all_connected(count))

    def address(self, name: str, namespace: str = "default") -> str:
        """The virtual address of a service."""
        return self.pipeline.world.vips[namespace, name]

    @contextmanager
    def sidecar(
        self,
        name: str,
        address: str,
        weft: dict[str, Any],
        mode: str = "SECCOMP",
        account: str = "default",
        telemetry_port: int = TELEMETRY_PORT,
        flush: str = "5s",
        drain_s: int = 600,
        labels: Mapping[str, str] | None = None,
    ) -> Iterator[Envoy]:
        """A sidecar in ``default``, ready. ``weft``: its attachment, as a node tells it.

        ``flush``: how often it tells its metrics. ``drain_s``: for how long a listener that goes drains.
        Its certificate tells of the labels.
        """
        labels = {"app": name} if labels is None else labels
        settings = Settings(
            name=ProxyName("sidecar", address, name, "default"),
            metadata={
                "SERVICE_ACCOUNT": account,
                "LABELS": dict(labels),
                "INTERCEPTION_MODE": mode,
                "WEFT": weft,
            },
            xds_port=self.port,
            telemetry_port=telemetry_port,
            control_plane=(_SERVER,),
        )
        with short_directory(f"weft-{name}-") as directory:
            card = str(Card.of(name, labels))
            self.authority.write_identity(directory, f"spiffe://cluster.local/ns/default/sa/{account}", card)
            made = {**bootstrap(settings), "stats_flush_interval": flush}
            with running_envoy(directory, made, environment(settings), _SECONDS, drain_s) as envoy:
                yield envoy
