"""The node agent: everything on one host that carries workloads, held together and taken apart in order."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from weft import __version__
from weft.errors import WeftError
from weft.node import logfile
from weft.node.admin import Reply, ask
from weft.node.adoption import sweep
from weft.node.capture import netns, nft
from weft.node.capture.choose import Choice, Host, Mode, choose
from weft.node.capture.command import CommandError, run
from weft.node.layout import Layout
from weft.node.link import Link
from weft.node.place import Places
from weft.node.process import Process
from weft.node.resolver import Listening, Resolver
from weft.node.sidecar import ProxyOptions, envoy_binary, proxy_uid
from weft.node.spec import Placement, WorkloadSpec
from weft.node.workload import Report, Workload
from weft.private import secure

log = logging.getLogger(__name__)

VIRTUAL_ADDRESSES: Final = "240.240.0.0/16"
_HOUSEKEEPING_S: Final = 5.0
_SHUTDOWN_S: Final = 60.0
_ADMIN_S: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """``keep_workloads``: at the end leave what runs to the next agent (a service that is restarted);
    ``adopt``: at the start take over what an earlier one left, else it is removed.

    ``advertise``: the address that peers reach this host by; None finds it.
    """

    name: str
    capture: str = "auto"
    advertise: str | None = None
    locality: str = ""
    network: str = ""
    keep_workloads: bool = False
    adopt: bool = False
    log_level: str = "warning"
    drain_s: float = 10.0
    ready_s: float = 30.0
    resolvers: tuple[str, ...] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


class Node:
    """One agent. Use it as a context: entering adopts or cleans up, leaving drains and removes.

    >>> async with Node(layout, link, NodeOptions(name="host-1")) as node:
    ...     await node.add(WorkloadSpec(name="web", ports={"http": 8080}, command=("./web",)))
    """

    def __init__(self, layout: Layout, link: Link, options: NodeOptions) -> None:
        self.layout = layout
        self.link = link
        self.options = options
        self.host = Host.look()
        self.workloads: dict[str, Workload] = {}
        self.secrets: dict[str, str] = {}
        uid = proxy_uid()
        self.places = Places(layout, advertise=options.advertise)
        self.resolver = Resolver(layout, owner=uid, resolvers=options.resolvers)
        self._proxy = ProxyOptions(
            binary=envoy_binary(),
            uid=uid,
            log_level=options.log_level,
            drain_s=options.drain_s,
            ready_s=options.ready_s,
        )
        self._names: dict[str, tuple[str, ...]] = {}
        self._rules = asyncio.Lock()
        self._starting = asyncio.Lock()
        self._adding: set[str] = set()
        self._changes = asyncio.Condition()
        self._revision = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lock: int | None = None
        self._resolving = False
        self._routed = False
        self.leaving = False

    async def __aenter__(self) -> Node:
        self.layout.prepare(proxy_uid=self._proxy.uid)
        secure(self.layout.state, also=frozenset({self._proxy.uid} if self._proxy.uid is not None else ()))
        self._take_lock()
        try:
            if self.options.adopt:
                # The names of before are better than none; what the control plane has said by now wins.
                self._names = self.resolver.read_names()
            self.link.on_names(self._hear_names)
            self.link.on_admin(self.ask)
            await sweep(self.layout, keep=self.options.adopt)
            if self.options.adopt:
                await self._adopt()
            self._spawn(self._keep_house(), "housekeeping")
        except BaseException:
            self._drop_lock()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(self.close())

    async def close(self) -> None:
        """Leave or remove everything, by ``keep_workloads``. Removing drains all workloads at once."""
        self.leaving = True
        try:
            if self.options.keep_workloads:
                for workload in self.workloads.values():
                    await workload.leave()
                self.resolver.leave()
                await self._cancel()
            else:
                await self._remove_all()
                await self.resolver.stop()
                await self._cancel()
                await self._unroute()
                await self.places.close()
                # By the records: whatever resisted above, or was half made, goes now.
                await sweep(self.layout, keep=False)
                self.layout.remove_runtime()
        finally:
            self._drop_lock()

    async def _remove_all(self) -> None:
        try:
            async with asyncio.timeout(_SHUTDOWN_S):
                outcomes = await asyncio.gather(
                    *(self.remove(name) for name in list(self.workloads)), return_exceptions=True
                )
        except TimeoutError:
            log.error("workloads did not end within %g s", _SHUTDOWN_S)
            return
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                log.error("a workload was not removed whole: %s", outcome)

    async def add(
        self,
        spec: WorkloadSpec,
        *,
        pid: int | None = None,
        report: Report = lambda step, message: None,
        stop_app: Callable[[str], None] = lambda reason: None,
    ) -> Workload:
        """Bring a workload into the mesh; with a ``command`` its application is started too.

        ``pid`` is the process that will become the application (``weft run``): it is moved into its cgroup.

        Raises:
            WeftError: refused, or a step failed; nothing of it is left then.
        """
        if self.leaving:
            raise WeftError("the node is stopping")
        if spec.id in self.workloads or spec.id in self._adding:
            raise WeftError(
                f"a workload {spec.id} runs on this node already",
                hint="give it another --name, or stop the other one",
            )
        spec = replace(
            spec,
            locality=spec.locality or self.options.locality,
            network=spec.network or self.options.network,
        )
        choice = self._choose(spec)
        self._adding.add(spec.id)
        try:
            placement = await self.places.take(spec, choice, pid=pid, proxy_uid=self._proxy.uid)
            workload = self._workload(spec, placement, stop_app)
            self.workloads[spec.id] = workload
        finally:
            self._adding.discard(spec.id)
        try:
            workload.wrapper = Process.of(pid) if pid else None
            await self._open_names(workload)
            await workload.prepare(report)
            await self._enforce()
            if pid is not None and placement.app_cgroup is not None:
                _enter(placement.app_cgroup, pid)
            if spec.command:
                workload.run(self.make_secret(spec.id))
        except BaseException as error:
            workload.message = str(error)
            await asyncio.shield(self._discard(workload))
            raise
        self._changed()
        return workload

    async def remove(self, workload_id: str, *, drain: bool = True) -> None:
        """Drain a workload, end it and remove all that was made for it. Unknown names are no error."""
        workload = self.workloads.get(workload_id)
        if workload is None:
            return
        if drain:
            await workload.drain()
        await self._discard(workload)

    def find(self, name: str) -> Workload:
        """By ``namespace/name``, ``name.namespace`` or a bare name that only one has.

        Raises:
            WeftError: none, or several.
        """
        if name in self.workloads:
            return self.workloads[name]
        found = [
            workload
            for workload in self.workloads.values()
            if name in {workload.spec.name, f"{workload.spec.name}.{workload.spec.namespace}"}
        ]
        if len(found) == 1:
            return found[0]
        known = ", ".join(sorted(self.workloads)) or "none"
        what = f"several workloads are named {name!r}" if found else f"no workload is named {name!r}"
        raise WeftError(what, hint=f"workloads of this node: {known}")

    async def ask(self, name: str, method: str, path: str) -> Reply:
        """What the admin interface of a workload's Envoy answers.

        Raises:
            WeftError: it does not run here, or its Envoy does not answer.
        """
        workload = self.find(name)
        return await ask(workload.paths.admin_socket, path, method=method, timeout=_ADMIN_S)

    @property
    def names(self) -> Mapping[str, tuple[str, ...]]:
        """The host names of the mesh with their addresses."""
        return self._names

    def status(self) -> dict[str, Any]:
        """The answer to ``status`` (docs/reference/node-socket.md)."""
        return {
            "node": self.options.name,
            "version": __version__,
            "pid": os.getpid(),
            "mesh": self.layout.mesh,
            "capture": self.options.capture,
            "controlPlane": {
                "connected": self.link.connected,
                "address": f"{self.link.xds.host}:{self.link.xds.port}",
            },
            "dns": {"pid": self.resolver.pid, "names": len(self._names)},
            "workloads": len(self.workloads),
        }

    async def changes(self) -> AsyncIterator[None]:
        """Yield now, and whenever anything about a workload changed; bursts come as one."""
        seen = -1
        while True:
            async with self._changes:
                await self._changes.wait_for(lambda: self._revision != seen)  # noqa: B023 - read at each wake
                seen = self._revision
            yield

    def hosts(self, namespace: str) -> str:
        """The table of names in the form of ``/etc/hosts``, as seen from a namespace."""
        suffix = f".svc.{self.link.domain}"
        lines = []
        for host, addresses in sorted(self._names.items()):
            if not addresses or host.startswith("*"):
                continue
            names = [host]
            if host.endswith(suffix):
                short = host.removesuffix(suffix)
                service, _, of = short.rpartition(".")
                names = [host, f"{short}.svc", short, *([service] if of == namespace else [])]
            lines += [f"{address} {' '.join(names)}" for address in addresses]
        return "".join(f"{line}\n" for line in lines)

    def make_secret(self, workload_id: str) -> str:
        """A word by which the application's wrapper shows that it is the one this node started."""
        return self.secrets.setdefault(workload_id, secrets.token_urlsafe(16))

    def _choose(self, spec: WorkloadSpec) -> Choice:
        if spec.kind == "router":
            return choose("none", self.host, own_network=False)
        wanted = spec.capture if spec.capture != "auto" else self.options.capture
        return choose(wanted, self.host, own_network=spec.own_network)

    def _workload(
        self, spec: WorkloadSpec, placement: Placement, stop_app: Callable[[str], None]
    ) -> Workload:
        return Workload(
            spec,
            placement,
            layout=self.layout,
            link=self.link,
            options=self._proxy,
            changed=self._changed,
            stop_app=stop_app,
        )

    async def _discard(self, workload: Workload) -> None:
        await workload.remove()
        self.workloads.pop(workload.id, None)
        self.secrets.pop(workload.id, None)
        await self._close_names(workload)
        with contextlib.suppress(WeftError):
            await self._enforce()
        await self.places.release(workload.spec, spare=workload.wrapper)
        self._changed()

    async def _adopt(self) -> None:
        """Take over what an earlier agent left running."""
        for _, record in list(self.layout.read_records("workload")):
            spec = WorkloadSpec.from_record(record["spec"]).running(record.get("told") or {})
            choice = choose(str(record["placement"]["mode"]), self.host, own_network=spec.own_network)
            placement = Placement.from_record(record["placement"], choice)
            self.places.adopt(spec, placement)
            workload = self._workload(spec, placement, lambda reason: None)
            workload.wrapper = Process.parse(record.get("wrapper"))
            self.workloads[spec.id] = workload
            try:
                await self._open_names(workload)
                if not await workload.adopt():
                    await workload.prepare()
                    if not spec.command:
                        workload.started_by(workload.wrapper.pid if workload.wrapper else None)
                if spec.command:
                    workload.run(adopted=Process.parse(record.get("application")))
            except WeftError as error:
                log.error("cannot adopt %s: %s", spec.id, error)
                workload.message = error.message
            if workload.wrapper is not None:
                self._spawn(self._outlive(workload), f"{spec.id} wrapper")
        if self.workloads:
            await self._enforce()

    async def _outlive(self, workload: Workload) -> None:
        """An adopted application whose wrapper ends is gone."""
        assert workload.wrapper is not None
        await workload.wrapper.wait()
        if self.workloads.get(workload.id) is workload:
            await self.remove(workload.id, drain=False)

    async def _enforce(self) -> None:
        """Bring the host's rules in line with the workloads that are captured on the host's network."""
        if not self.host.root or not self.host.nft:
            return
        specs = {name: workload.spec for name, workload in self.workloads.items()}
        async with self._rules:
            workloads = self.places.host_workloads(specs) if self.host.cgroup2 else []
            if not workloads and not self._routed:
                return
            if workloads and not self._routed:
                self.layout.write_record("rules", "host", {"mesh": self.layout.mesh})
                await run(*netns.route_virtual_addresses(VIRTUAL_ADDRESSES, add=True))
                self._routed = True
            await nft.apply(nft.host_rules(self.layout.mesh, workloads))

    async def _unroute(self) -> None:
        if self._routed:
            await nft.drop(self.layout.mesh)
            with contextlib.suppress(CommandError):
                await run(*netns.route_virtual_addresses(VIRTUAL_ADDRESSES, add=False))
            self.layout.drop_record("rules", "host")
            self._routed = False

    async def _open_names(self, workload: Workload) -> None:
        """Answer the workload's questions for names before it can ask any."""
        where, spec = workload.placement, workload.spec
        if where.mode is Mode.SECCOMP:
            self._write_hosts(workload)
        if where.dns_port is None:
            return
        async with self._starting:
            if not self._resolving:
                await self.resolver.start()
                await self.resolver.publish(self._names, domain=self.link.domain)
                self._spawn(self.resolver.keep(), "resolver")
                self._resolving = True
        await self.resolver.listen(
            Listening(name=spec.id, namespace=spec.namespace, port=where.dns_port, netns=where.netns)
        )
        if where.netns is not None:
            await self.resolver.listen(
                Listening(
                    name=f"{spec.id}/proxy",
                    namespace=spec.namespace,
                    port=nft.PROXY_DNS_PORT,
                    netns=where.netns,
                    mesh=False,
                )
            )

    async def _close_names(self, workload: Workload) -> None:
        for name in (workload.id, f"{workload.id}/proxy"):
            await self.resolver.close(name)

    def _hear_names(self, names: Mapping[str, tuple[str, ...]]) -> None:
        self._names = dict(names)
        if self.leaving:
            return
        if self._resolving:
            self._spawn(self.resolver.publish(self._names, domain=self.link.domain), "names")
        for workload in self.workloads.values():
            if workload.placement.mode is Mode.SECCOMP:
                self._write_hosts(workload)
        self._changed()

    def _write_hosts(self, workload: Workload) -> None:
        """Into the same inode: it is mounted over /etc/hosts in the application's sight."""
        try:
            own = Path("/etc/hosts").read_text()
        except OSError:
            own = "127.0.0.1 localhost\n"
        text = f"{own.rstrip()}\n{self.hosts(workload.spec.namespace)}".encode()
        path = workload.paths.hosts
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            file.write(text)
            file.truncate(len(text))

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING_S)
            for workload in list(self.workloads.values()):
                paths = workload.paths
                for file in (paths.proxy_log, paths.access_log, paths.app_log):
                    logfile.bound(file)
            logfile.bound(self.layout.dns / "dns.log")

    def _changed(self) -> None:
        self._revision += 1
        if not self.leaving:
            self._spawn(self._tell(), "tell")

    async def _tell(self) -> None:
        async with self._changes:
            self._changes.notify_all()

    def _spawn(self, work: Any, name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed: %s", task.get_name(), error, exc_info=error)

    async def _cancel(self) -> None:
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _take_lock(self) -> None:
        self._lock = os.open(self.layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            self._lock = None
            raise WeftError(
                f"a node runs already in {self.layout.runtime}",
                hint="stop it, or give this one another --mesh",
            ) from None

    def _drop_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _enter(group: Path, pid: int) -> None:
    try:
        (group / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        raise WeftError(f"cannot move process {pid} into {group}: {error.strerror}") from error
