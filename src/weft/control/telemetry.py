"""The telemetry process, as its parent sees it: started, fed with certificates, started again, asked.

Nothing of the control plane waits for it. While it is down, proxies lose what they would have told, and the
API answers 503 for ``/weft/v1/telemetry/…``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from weft.control.api.permission import Access
from weft.control.api.resources import reply
from weft.control.api.rules import Ask
from weft.control.api.status import ApiError
from weft.control.metrics import Metrics
from weft.grpc_tls import Certificates
from weft.model.catalog import WEFT
from weft.telemetry.answers import OF_NAMESPACE
from weft.telemetry.inquiry import TelemetryError, ask, ask_raw
from weft.telemetry.limits import USUAL, Room
from weft.telemetry.push.plan import NOTHING, Page, Plan

_log = logging.getLogger(__name__)

SOCKET: Final = "telemetry.sock"
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 10.0
_STEADY_S: Final = 30.0
_STEP_S: Final = 1.0
_STOP_S: Final = 5.0
_START_S: Final = 30.0


class TelemetryProcess:
    """``address``: where it listens; ``port`` 0 takes a free one, which it keeps over restarts.

    ``revoked``: serial numbers (hexadecimal) of certificates whose bearers may tell nothing. ``plan``: who is
    told of metrics; ``pages``: and what of the control plane and of nodes. ``room``: how much it may keep.
    """

    def __init__(
        self,
        *,
        address: str,
        port: int,
        socket: Path,
        database: Path,
        certificates: Callable[[], Certificates],
        trust_domain: Callable[[], str],
        metrics: Metrics,
        revoked: Callable[[], Iterable[str]] = tuple,
        plan: Callable[[], Plan] = lambda: NOTHING,
        pages: Callable[[], Awaitable[Mapping[str, Page]]] | None = None,
        room: Room = USUAL,
    ) -> None:
        self.port = port
        self._room = room
        self._address = address
        self._socket = socket
        self._database = database
        self._certificates = certificates
        self._trust_domain = trust_domain
        self._metrics = metrics
        self._revoked = revoked
        self._plan = plan
        self._pages = pages
        self._plan_failed = False
        self._told: dict[str, int] = {}
        self._pushed: set[str] = set()
        self._listening = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._process.pid if self._process is not None else None

    def routes(self) -> list[Route]:
        """For the API's application: ``GET /weft/v1/telemetry/QUESTION?…`` (telemetry/answers.py)."""
        return [Route("/weft/v1/telemetry/{question}", self._question, methods=["GET"])]

    async def placed(self) -> None:
        """Wait until the port is known, and no longer than a start may take."""
        if not self.port:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_START_S):
                    await self._listening.wait()

    async def run(self) -> None:
        """Have it run, for ever; it ends when this is cancelled."""
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE_S
        while True:
            began = loop.time()
            try:
                code = await self._once()
                _log.warning("the telemetry process ended (%s) and is started again; traffic goes on", code)
            except OSError as error:
                _log.warning("the telemetry process cannot be started: %s", error)
            self._metrics.telemetry_restarts.add()
            if loop.time() - began > _STEADY_S:
                pause = _FIRST_PAUSE_S
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def _once(self) -> int:
        """One life of it: its exit code."""
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "weft.telemetry", "--address", f"{self._address}:{self.port}",
            "--socket", str(self._socket), "--database", str(self._database),
            "--disk", str(self._room.disk), "--memory", str(self._room.memory),
            "--age", str(self._room.age.total_seconds()),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        feeding = asyncio.create_task(self._feed(process))
        hearing = asyncio.create_task(self._hear(process))
        showing = asyncio.create_task(self._show(process))
        try:
            return await process.wait()
        finally:
            for task in (feeding, hearing, showing):
                task.cancel()
            await asyncio.gather(feeding, hearing, showing, return_exceptions=True)
            await asyncio.shield(_end(process))
            self._process = None
            self._told = {}

    async def _feed(self, process: asyncio.subprocess.Process) -> None:
        """Tell it the newest certificate, key and bundle, and count what it counts."""
        assert process.stdin is not None
        shown: tuple[Certificates, tuple[str, ...]] | None = None
        planned = NOTHING
        while True:
            current, revoked = self._certificates(), tuple(self._revoked())
            if (current, revoked) != shown:
                shown = current, revoked
                said = {
                    "chain": current.chain.decode(),
                    "key": current.key.decode(),
                    "roots": current.roots.decode(),
                    "trustDomain": self._trust_domain(),
                    "revoked": revoked,
                }
                await _write(process.stdin, json.dumps(said).encode())
            if (plan := self._planned()) != planned:
                planned = plan
                await _write(process.stdin, msgspec.json.encode({"plan": plan}))
            await asyncio.sleep(_STEP_S)
            if self._listening.is_set():
                await self._count()

    def _planned(self) -> Plan:
        """Whatever is wrong with it must not keep the process from its certificates."""
        try:
            made = self._plan()
        except Exception:
            if not self._plan_failed:
                _log.exception("metrics are pushed nowhere")
            self._plan_failed = True
            return NOTHING
        self._plan_failed = False
        return made

    async def _show(self, process: asyncio.subprocess.Process) -> None:
        """Hand over what others than proxies count, as often as it is pushed; nothing while it is not."""
        assert process.stdin is not None
        while self._pages is not None:
            plan = self._planned()
            if plan.collectors and self._listening.is_set():
                try:
                    pages = await self._pages()
                except Exception:
                    _log.exception("collectors are not told of the control plane and nodes")
                else:
                    await _write(process.stdin, msgspec.json.encode({"pages": pages}))
            await asyncio.sleep(plan.interval_s if plan.collectors else _STEP_S)

    async def _hear(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        line = await process.stdout.readline()
        with contextlib.suppress(ValueError, KeyError):
            self.port = int(json.loads(line)["port"])
            self._listening.set()

    async def _count(self) -> None:
        """Take over its counters, which begin anew with each life."""
        try:
            said = await ask(self._socket, "health", {})
        except TelemetryError:
            return
        metrics = self._metrics
        for name, count in said["lost"].items():
            metrics.telemetry_lost.add(name, count=self._grown(name, count))
        metrics.spans.add(count=self._grown("spans", said["received"]["spans"]))
        metrics.records.add(count=self._grown("records", said["received"]["records"]))
        metrics.points.add(count=self._grown("points", said["received"]["points"]))
        metrics.telemetry_series.set(said["series"])
        metrics.telemetry_disk.set(said["diskBytes"])
        self._count_pushes(said["collectors"])

    def _count_pushes(self, standings: list[dict[str, Any]]) -> None:
        metrics = self._metrics
        for name in self._pushed - {one["provider"] for one in standings}:
            metrics.push_up.remove(name)
        self._pushed = {one["provider"] for one in standings}
        for one in standings:
            name = one["provider"]
            metrics.push_up.labels(name).set(one["up"])
            metrics.pushed_points.add(name, count=self._grown(f"sent to {name}", one["sent"]))
            metrics.push_failures.add(name, count=self._grown(f"failures of {name}", one["failures"]))

    def _grown(self, name: str, count: int) -> int:
        before, self._told[name] = self._told.get(name, 0), count
        return max(0, count - before)

    async def _question(self, request: Request) -> Response:
        access: Access = request.state.access
        question, parameters = request.path_params["question"], dict(request.query_params.items())
        namespace = parameters.get("namespace", "") if question in OF_NAMESPACE else ""
        try:
            await access.require(Ask(verb="get", group=WEFT, resource="telemetry", namespace=namespace))
        except ApiError as refusal:
            return reply(refusal.body(), refusal.code)
        try:
            answer = await ask_raw(self._socket, question, parameters)
        except TelemetryError as error:
            return _status(error.status, error.message, error.hint)
        return Response(answer, media_type="application/json")


async def _write(pipe: asyncio.StreamWriter, line: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        pipe.write(line + b"\n")
        await pipe.drain()


async def _end(process: asyncio.subprocess.Process) -> None:
    """It ends by itself when its standard input does; in the end by force."""
    if process.returncode is not None:
        return
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(_STOP_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _status(code: int, message: str, hint: str = "") -> Response:
    """A refusal in the form of the rest of the API."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "hint": hint,
        "code": code,
    }
    return JSONResponse(body, status_code=code)
