"""One workload on this node: certificate, registration, sidecar, application, drain, in this order."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from weft.emit.bootstrap import Place, Settings, bootstrap, environment
from weft.errors import UsageError, WeftError
from weft.names import CLUSTER_ID, HEALTH_PORT, PROMETHEUS_PORT, SPIFFE_SOCKET_VARIABLE, ProxyName
from weft.node import place
from weft.node.admin import ask
from weft.node.application import Application
from weft.node.capture import proxy_env
from weft.node.capture.choose import Mode
from weft.node.layout import Layout, WorkloadPaths
from weft.node.link import Instance, Link
from weft.node.probe import Probe, Target, accepts, watch
from weft.node.process import Process
from weft.node.run import launcher
from weft.node.sidecar import ProxyOptions, Sidecar
from weft.node.spec import Placement, WorkloadSpec, attachment_fields
from weft.node.taps import PUT_BACK
from weft.start import META, ProxyStart, merged

log = logging.getLogger(__name__)

_INTERCEPTION: Final = {
    Mode.NETNS: "REDIRECT",
    Mode.NFT: "REDIRECT",
    Mode.SECCOMP: "SECCOMP",
    Mode.ENV: "PROXY_ENV",
    Mode.NONE: "NONE",
}
_LISTEN_WAIT_S: Final = 10.0
_LISTEN_POLL_S: Final = 0.05
_DRAINED_PATIENCE_S: Final = 5.0
_REJOIN_FIRST_S: Final = 0.5
_REJOIN_MAX_S: Final = 10.0

# Of Istio's agent: what it sets in a proxy's environment to have it in the metadata.
# Variables that make a program run what somebody else wrote: nobody sets them from afar.
_DANGEROUS: Final = ("LD_", "GLIBC_", "GCONV_", "PATH", "MALLOC_")

Report = Callable[[str, str], None]


class Workload:
    """Its life: ``prepare``, ``run`` or ``started_by``, ``drain``, ``remove``; ``changed`` hears of each."""

    def __init__(
        self,
        spec: WorkloadSpec,
        placement: Placement,
        *,
        layout: Layout,
        link: Link,
        options: ProxyOptions,
        changed: Callable[[], None] = lambda: None,
        stop_app: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.spec = spec
        self.placement = placement
        self.paths: WorkloadPaths = layout.make_workload(spec.namespace, spec.name, owner=options.uid)
        self.state = "starting"
        self.ready = False
        self.message = ""
        self.started = datetime.now(UTC)
        self.wrapper: Process | None = None
        self.app_pid: int | None = None
        self.stop_app = stop_app
        self._layout = layout
        self._link = link
        self._changed = changed
        self._uid = options.uid
        self.sidecar = Sidecar(self.paths, self._options(options), changed=self._proxy_changed)
        self.application: Application | None = None
        self._app_ready = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._prepared = False

    @property
    def id(self) -> str:
        """``namespace/name``."""
        return self.spec.id

    async def prepare(self, report: Report = lambda step, message: None) -> None:
        """Everything that must stand before the application starts.

        Raises:
            WeftError: one of the steps failed; call ``remove`` then.
        """
        spec = self.spec
        self.write_record()
        # First, so that the certificate says what was registered.
        report("register", f"registering {self.id} at {self.placement.address}")
        start = await self._link.register(self.instance())
        report("certificate", f"asking for the certificate of {spec.namespace}/{spec.service_account}")
        await self._certify()
        report("proxy", "starting the proxy")
        await self.sidecar.start(self._bootstrap(start))
        report("ready", "the proxy is ready")
        self._prepared = True
        self._spawn(self.sidecar.keep(), "sidecar")
        self.state = "running"
        if spec.kind == "router":
            self._app_ready = True
        self._say()

    async def adopt(self) -> bool:
        """Take over from an earlier agent. False when its Envoy is gone: ``prepare`` makes a new one."""
        if not await self.sidecar.adopt():
            return False
        with contextlib.suppress(WeftError):
            # Somebody may have been watching it when the earlier agent died.
            await ask(self.paths.admin_socket, PUT_BACK, method="POST")
        self._prepared = True
        self.state = "running"
        self._app_ready = True
        self._spawn(self.sidecar.keep(), "sidecar")
        self._spawn(self._rejoin(), "rejoin")
        self._say()
        return True

    async def _rejoin(self) -> None:
        """Traffic goes on without the control plane, so its absence must not end an adoption."""
        pause = _REJOIN_FIRST_S
        while True:
            try:
                await self._certify()
                self._obey(await self._link.register(self.instance()))
                break
            except WeftError as error:
                self.message = error.message
                await asyncio.sleep(pause)
                pause = min(pause * 2, _REJOIN_MAX_S)
        self.message = ""
        await self._update()

    async def _certify(self) -> None:
        spec = self.spec
        await self._link.certify(
            spec.namespace, spec.service_account, self.paths.directory, self._uid, spec.name
        )

    def run(self, secret: str = "", *, adopted: Process | None = None) -> None:
        """Start the workload's command, for a workload that the node runs itself.

        ``secret`` is what its wrapper, if there is one, shows to ``attach``; ``adopted`` is the process that
        an earlier agent started.
        """
        spec = self.spec
        env = {**os.environ, "HOSTNAME": spec.name, **self.app_env(), **spec.env}
        for name in self.unset():
            env.pop(name, None)
        argv = spec.command
        if self.placement.mode is Mode.SECCOMP:
            # The wrapper supervises the application's system calls, and finds its workload by these.
            argv = (*launcher(), "--attach", self.id, "--", *argv)
            env["WEFT_NODE_SOCKET"] = str(self._layout.node_socket)
            env["WEFT_ATTACH_SECRET"] = secret
        self.application = Application(
            argv,
            env=env,
            cwd=spec.working_dir,
            log_file=self.paths.app_log,
            cgroup=self.placement.app_cgroup,
            netns=self.placement.netns,
            changed=self._changed,
            started=self.write_record,
            adopted=adopted,
            outlives=self.placement.mode is not Mode.SECCOMP,
        )
        self._spawn(self._run(self.application), "application")
        self.watch_health()

    def started_by(self, pid: int | None) -> None:
        """Somebody else started the application."""
        self.app_pid = pid
        self.watch_health()

    def watch_health(self) -> None:
        """Begin the probes; without a readiness probe it is ready when its ports accept connections."""
        self._spawn(self._watch_readiness(), "readiness")
        if self.spec.liveness is not None:
            self._spawn(self._watch_liveness(), "liveness")

    async def drain(self) -> None:
        """Take it out of its peers' endpoints, wait for them, then for the requests in flight."""
        if self.state == "draining" or not self._prepared:
            return
        self.state, self._app_ready = "draining", False
        self._say()
        await self._link.deregister(self.id, patience_s=_DRAINED_PATIENCE_S)
        await self.sidecar.drain()

    async def remove(self) -> None:
        """End the application and its sidecar, drop all files. The place is released by the node."""
        self.state = "stopped"
        if self.application is not None:
            await self.application.stop(self.spec.grace_s)
        await self.sidecar.stop()
        await self._cancel()
        with contextlib.suppress(WeftError):
            await self._link.deregister(self.id, patience_s=0)
        await self._link.forget(self.paths.directory)
        self._layout.drop_record("workload", self.id.replace("/", "."))
        _remove_files(self.paths)
        self._changed()

    async def leave(self) -> None:
        """The agent ends, the workload does not."""
        self.sidecar.leave()
        await self._cancel()

    def app_env(self) -> dict[str, str]:
        """What the application's environment gets."""
        attachment = self.placement.attachment
        proxy, app = attachment.http_proxy_port, attachment.app_address
        found = {SPIFFE_SOCKET_VARIABLE: f"unix://{self._layout.workload_socket}"}
        if proxy:
            found |= proxy_env.variables(proxy, address=attachment.outbound_address, own=app)
        if self.spec.own_network and app and self.placement.mode is not Mode.SECCOMP:
            found |= proxy_env.listen(app, self.spec.ports.values())
        return found

    def processes(self) -> tuple[Process, ...]:
        """The first ones of its application, as far as is known: its wrapper, and what the node started."""
        started = self.application.process if self.application else None
        return tuple(process for process in (self.wrapper, started) if process is not None)

    @property
    def wrapped(self) -> bool:
        """Whether the first of its processes is our wrapper, and the application is below it."""
        return self.wrapper is not None or self.placement.mode is Mode.SECCOMP

    @property
    def expires(self) -> datetime | None:
        """When its certificate does, as far as is known."""
        return self._link.expiry(self.paths.directory)

    def unset(self) -> tuple[str, ...]:
        """What its environment loses."""
        return proxy_env.unset() if self.placement.attachment.http_proxy_port else ()

    def ready_event(self) -> dict[str, Any]:
        """What the wrapper is told when it may start the application (docs/reference/node-socket.md)."""
        spec, where = self.spec, self.placement
        return {
            "event": "ready",
            "id": self.id,
            "name": spec.name,
            "namespace": spec.namespace,
            "address": where.address,
            "capture": str(where.mode),
            "covers": where.choice.covers,
            "limits": list(where.choice.limits),
            "because": where.choice.because,
            "env": self.app_env(),
            "unset": list(self.unset()),
            "workingDir": None,
            "netns": str(where.netns) if where.netns else None,
            "cgroup": str(where.app_cgroup) if where.app_cgroup else None,
            "hosts": str(self.paths.hosts) if where.mode is Mode.SECCOMP else None,
            "attachment": attachment_fields(where.attachment),
        }

    def describe(self) -> dict[str, Any]:
        """One row of ``list``."""
        expiry = self.expires
        application = self.application
        return {
            "id": self.id,
            "name": self.spec.name,
            "namespace": self.spec.namespace,
            "serviceAccount": self.spec.service_account,
            "service": self.spec.service,
            "kind": self.spec.kind,
            "state": self.state,
            "ready": self.ready,
            "message": self.message or self.sidecar.message or (application.message if application else ""),
            "pid": application.pid if application else self.app_pid,
            "proxyPid": self.sidecar.pid,
            "capture": str(self.placement.mode),
            "address": self.placement.address,
            "ports": dict(self.spec.ports),
            "labels": dict(self.spec.labels),
            "certificate": {"notAfter": expiry.isoformat().replace("+00:00", "Z") if expiry else None},
            "restarts": application.restarts if application else 0,
            "proxyRestarts": self.sidecar.restarts,
            "started": self.started.isoformat().replace("+00:00", "Z"),
        }

    def instance(self) -> Instance:
        """The registration: what becomes its WorkloadEntry."""
        spec, where = self.spec, self.placement
        moved = dict(where.attachment.inbound_ports)
        return {
            "id": self.id,
            "name": spec.name,
            "namespace": spec.namespace,
            "serviceAccount": spec.service_account,
            "service": spec.service,
            "group": spec.group,
            "labels": dict(spec.labels),
            "address": where.address,
            "ports": {name: moved.get(port, port) for name, port in spec.ports.items()},
            "capture": str(where.attachment.capture),
            "network": spec.network,
            "locality": spec.locality,
            "kind": spec.kind,
            "attachment": {
                **attachment_fields(where.attachment),
                "portMap": {str(port): to for port, to in spec.port_map.items()},
            },
        }

    def write_record(self) -> None:
        """Note what an adopting agent, or ``weft clean``, must know."""
        running = self.application.process if self.application else None
        self._layout.write_record(
            "workload",
            self.id.replace("/", "."),
            {
                "spec": self.spec.to_record(),
                "placement": self.placement.to_record(),
                "wrapper": self.wrapper.to_record() if self.wrapper else None,
                "ownRun": bool(self.spec.command),
                "told": dict(self.spec.told),
                "application": running.to_record() if running else None,
                "directory": str(self.paths.directory),
            },
        )

    def target(self) -> Target:
        """Where probes find the application."""
        where = self.placement
        address = where.attachment.app_address or "127.0.0.1"
        prefix: tuple[str, ...] = ()
        if where.netns is not None:
            address = where.address
            prefix = ("nsenter", f"--net={where.netns}")
        env = {**os.environ, **self.spec.env}
        return Target(
            address=address,
            ports=self.spec.ports,
            netns=where.netns,
            prefix=prefix,
            env=env,
            cwd=self.spec.working_dir,
        )

    def _options(self, options: ProxyOptions) -> ProxyOptions:
        where = self.placement
        settings = self._settings()
        return ProxyOptions(
            binary=options.binary,
            uid=options.uid,
            cgroup=where.proxy_cgroup,
            netns=where.netns,
            concurrency=self.spec.concurrency,
            log_level=options.log_level,
            bind_service=any(port < 1024 for port in self._bound_ports()) and os.geteuid() == 0,
            drain_s=options.drain_s,
            inbound_only=self.spec.kind != "router",
            address=where.address,
            ready_s=options.ready_s,
            env=environment(settings),
        )

    def _bound_ports(self) -> list[int]:
        return [*self.spec.port_map.values(), *(to for _, to in self.placement.attachment.inbound_ports)] + (
            [80, 443] if self.spec.kind == "router" else []
        )

    def _settings(self) -> Settings:
        spec, where = self.spec, self.placement
        metadata: dict[str, Any] = {
            "SERVICE_ACCOUNT": spec.service_account,
            "LABELS": dict(spec.labels),
            "INSTANCE_IPS": where.address,
            "CLUSTER_ID": CLUSTER_ID,
            "MESH_ID": self._link.domain,
            "INTERCEPTION_MODE": _INTERCEPTION[where.mode] if spec.kind != "router" else "NONE",
            "WEFT": {
                **attachment_fields(where.attachment),
                "portMap": {str(port): to for port, to in spec.port_map.items()},
            },
        }
        kind = "router" if spec.kind == "router" else "sidecar"
        region, _, rest = spec.locality.partition("/")
        zone, _, subzone = rest.partition("/")
        xds = self._link.xds
        health, prometheus = self._windows()
        return Settings(
            name=ProxyName(kind, where.address, spec.name, spec.namespace, self._link.domain),
            metadata=metadata,
            admin_socket=str(self.paths.admin_socket),
            xds_host=where.gateway if where.gateway and _is_loopback(xds.host) else xds.host,
            xds_port=xds.port,
            telemetry_port=xds.telemetry_port,
            control_plane=xds.names,
            health=health,
            prometheus=prometheus,
            locality=(region, zone, subzone),
        )

    def _windows(self) -> tuple[Place | None, Place | None]:
        """Where health and statistics are shown: Istio's ports where the workload has its own address."""
        where = self.placement
        if where.netns is not None:
            return Place(address="0.0.0.0", port=HEALTH_PORT), Place(address="0.0.0.0", port=PROMETHEUS_PORT)
        if where.block is not None:
            return (
                Place(address="127.0.0.1", port=where.block + place.HEALTH),
                Place(address="127.0.0.1", port=where.block + place.PROMETHEUS),
            )
        if own := where.attachment.app_address:
            return Place(address=own, port=HEALTH_PORT), Place(address=own, port=PROMETHEUS_PORT)
        return None, None

    def _bootstrap(self, start: ProxyStart) -> str:
        """For a proxy that begins now, which obeys ``start`` from now on."""
        self._obey(start)
        settings = self._settings()
        said = start.environment.items()
        metadata = {key.removeprefix(META): text for key, text in said if key.startswith(META)}
        made = bootstrap(replace(settings, metadata={**metadata, **settings.metadata}))
        return json.dumps(functools.reduce(merged, start.bootstrap, made))

    def _obey(self, start: ProxyStart) -> None:
        """Let the next Envoy be as ``start`` says; the one that runs stays as it is."""
        options = self.sidecar.options
        said = start.concurrency
        threads = self.spec.concurrency if said is None else said or os.cpu_count() or 1
        environ = {
            **{key: text for key, text in start.environment.items() if not key.startswith(_DANGEROUS)},
            **environment(self._settings()),
        }
        self.sidecar.options = replace(
            options,
            concurrency=threads,
            env=environ,
            drain_s=options.drain_s if start.drain_s is None else start.drain_s,
            listener_drain_s=start.listener_drain_s or options.listener_drain_s,
            log_flush_ms=start.log_flush_ms or options.log_flush_ms,
            log_buffer_kb=start.log_buffer_kb,
        )
        if start.probe is not None and self.spec.readiness is None:
            self._ask_as(start.probe)

    def _ask_as(self, said: Mapping[str, Any]) -> None:
        """Readiness is what the probe of its group tells from now on."""
        try:
            self.spec = replace(self.spec, readiness=Probe.parse(said))
        except UsageError as error:
            log.warning("%s: the probe of its group is left out: %s", self.id, error)
            return
        if self._prepared:  # an adopted workload, of which only its ports were known
            self._spawn(self._watch_readiness(), "readiness")

    async def _run(self, application: Application) -> None:
        try:
            await application.keep()
        except WeftError as error:
            self.state, self._app_ready = "failed", False
            self.message = error.message
            self._say()

    async def _watch_readiness(self) -> None:
        target = self.target()
        if self.spec.readiness is not None:
            async for healthy, why in watch(self.spec.readiness, target, eager=True):
                self._app_ready, self.message = healthy, "" if healthy else f"not ready: {why}"
                self._say()
            return
        deadline = time.monotonic() + _LISTEN_WAIT_S
        ports = sorted(set(self.spec.ports.values()))
        while time.monotonic() < deadline:
            if all([await accepts(target, port) for port in ports]):
                break
            await asyncio.sleep(_LISTEN_POLL_S)
        if self.spec.readiness is None:
            self._app_ready = True
            self._say()

    async def _watch_liveness(self) -> None:
        assert self.spec.liveness is not None
        async for healthy, why in watch(self.spec.liveness, self.target()):
            if healthy:
                continue
            reason = f"the liveness probe failed: {why}"
            if self.application is not None:
                await self.application.restart(reason, self.spec.grace_s)
            else:
                self.stop_app(reason)

    def _proxy_changed(self) -> None:
        if self._prepared:
            self._say()

    def _say(self) -> None:
        ready = self._app_ready and self.sidecar.ready and self.state == "running"
        if ready != self.ready and self._prepared:
            self.ready = ready
            self._spawn(self._update(), "update")
        self._changed()

    async def _update(self) -> None:
        await self._link.update(self.id, ready=self.ready, message=self.message)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=f"{self.id} {name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.message = f"{task.get_name()}: {error}"
            log.error("%s failed", task.get_name(), exc_info=error)

    async def _cancel(self) -> None:
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host.startswith("127.") or host == "::1"


def _remove_files(paths: WorkloadPaths) -> None:
    shutil.rmtree(paths.directory, ignore_errors=True)
    paths.admin_socket.unlink(missing_ok=True)
