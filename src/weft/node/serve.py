"""The node's socket: what `weft run`, `weft up`, `weft ps` and `weft logs` speak to.

The words are in docs/reference/node-socket.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from weft.errors import InternalError, UsageError, WeftError
from weft.node import logfile
from weft.node.app import Node
from weft.node.capture.choose import Mode
from weft.node.claims import Caller, Claim, check_claim, check_ports
from weft.node.spec import WorkloadSpec
from weft.node.workload import Workload

log = logging.getLogger(__name__)

_LINE_MAX: Final = 1 << 20
_LOG_LINES: Final = 100
# Of each user but the node's own and root: anybody may knock, and nobody may use up what all need.
_CONNECTIONS_MAX: Final = 128
_FIRST_REQUEST_S: Final = 10.0


class Conversation:
    """One connection: a request, and the events that answer it."""

    def __init__(
        self, node: Node, claims: Sequence[Claim], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.node = node
        self.claims = claims
        self.reader = reader
        self.writer = writer
        self.caller = Caller.of(writer.get_extra_info("socket"))

    async def hold(self) -> None:
        """Read the request, answer it, close."""
        try:
            async with asyncio.timeout(None if self.caller.trusted else _FIRST_REQUEST_S):
                request = await self._read()
            if request is not None:
                await self._answer(request)
        except WeftError as error:
            await self._fail(error.message, error.hint, error.exit_code)
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            pass
        except Exception as error:
            log.exception("request failed")
            await self._fail(f"{type(error).__name__}: {error}", "", InternalError.exit_code)
        finally:
            self.writer.close()

    async def _answer(self, request: dict[str, Any]) -> None:
        node = self.node
        match request.get("op"):
            case "join":
                await self._join(request)
            case "attach":
                await self._attach(request)
            case "add":
                await self._add(request)
            case "remove":
                workload = node.find(self._text(request, "id"))
                self._check(workload)
                workload.stop_app("it was removed")
                await node.remove(workload.id)
                await self._say({"event": "left"})
            case "list":
                await self._say(self._list())
            case "watch":
                async for _ in self._until_closed():
                    await self._say(self._list())
            case "status":
                await self._say({"event": "status", **node.status()})
            case "names":
                self._check_trusted("names")
                await self._say(
                    {"event": "names", "hosts": node.hosts(request.get("namespace") or "default")}
                )
            case "logs":
                await self._logs(request)
            case "admin":
                await self._admin(request)
            case other:
                raise UsageError(
                    f"the node cannot {other!r}", hint="is it of the same version as this command?"
                )

    async def _join(self, request: dict[str, Any]) -> None:
        spec = WorkloadSpec.from_record(request)
        if spec.own_network or spec.kind != "sidecar":
            self._check_trusted("join with a network of its own")
        check_claim(self.claims, self.caller, spec.namespace, spec.service_account)
        known = self.node.workloads.get(spec.id)
        if request.get("resume") and known is not None:
            self._check(known)
            workload = known
            workload.stop_app = self._stop_app
        else:
            if not self.caller.trusted:
                check_ports(spec.ports.values())
            workload = await self.node.add(
                spec, pid=self.caller.pid, report=self._report, stop_app=self._stop_app
            )
            workload.write_record()
        await self._accompany(workload)

    async def _attach(self, request: dict[str, Any]) -> None:
        workload = self.node.find(self._text(request, "id"))
        secret = self.node.make_secret(workload.id)
        if not hmac.compare_digest(secret, str(request.get("secret") or "")):
            raise WeftError(f"{workload.id} was not prepared for this process")
        await self._accompany(workload, own=False)

    async def _add(self, request: dict[str, Any]) -> None:
        self._check_trusted("add")
        spec = WorkloadSpec.from_record(request)
        workload = await self.node.add(spec.running(request), report=self._report)
        await self._say(workload.ready_event())

    async def _accompany(self, workload: Workload, *, own: bool = True) -> None:
        """Stay with an application from its start to its end. ``own``: its end is the workload's end."""
        await self._say(workload.ready_event())
        names = asyncio.create_task(self._tell_names(workload))
        gone = False
        try:
            while (message := await self._read()) is not None:
                match message.get("op"):
                    case "started":
                        if own:
                            workload.started_by(int(message.get("pid") or 0) or None)
                    case "leave":
                        await workload.drain()
                        await self._say({"event": "drained"})
                    case "exited":
                        break
        finally:
            names.cancel()
            gone = own and not self.node.leaving
            if gone:
                await asyncio.shield(self.node.remove(workload.id, drain=False))
        await self._say({"event": "left"})

    async def _tell_names(self, workload: Workload) -> None:
        if workload.placement.mode is not Mode.SECCOMP:
            return
        told = ""
        async for _ in self.node.changes():
            hosts = self.node.hosts(workload.spec.namespace)
            if hosts != told:
                told = hosts
                await self._say({"event": "names", "hosts": hosts})

    async def _logs(self, request: dict[str, Any]) -> None:
        workload = self.node.find(self._text(request, "id"))
        self._check(workload)
        paths = workload.paths
        if request.get("source") == "proxy":
            path = paths.proxy_log
        elif workload.application is None:
            raise WeftError(
                f"the output of {workload.id} goes where 'weft run' was started, not through the node",
                hint="look there (journalctl -u UNIT), or at its sidecar: weft logs NAME --proxy",
            )
        else:
            path = paths.app_log
        lines = int(request.get("lines", _LOG_LINES))
        if not request.get("follow"):
            for line in await asyncio.to_thread(logfile.tail, path, lines):
                await self._say({"event": "log", "line": line})
            await self._say({"event": "end"})
            return
        closed = asyncio.create_task(self.reader.read())
        following = logfile.follow(path, lines)
        try:
            while not closed.done():
                following_line = asyncio.ensure_future(anext(following))
                await asyncio.wait({following_line, closed}, return_when=asyncio.FIRST_COMPLETED)
                if not following_line.done():
                    following_line.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await following_line
                    return
                await self._say({"event": "log", "line": following_line.result()})
        finally:
            closed.cancel()

    async def _admin(self, request: dict[str, Any]) -> None:
        workload = self.node.find(self._text(request, "id"))
        self._check(workload)
        method = str(request.get("method") or "GET").upper()
        reply = await self.node.ask(workload.id, method, self._text(request, "path"))
        body = reply.body.decode(errors="replace")
        await self._say({"event": "reply", "status": reply.status, "body": body})

    def _list(self) -> dict[str, Any]:
        rows = [
            workload.describe()
            for workload in self.node.workloads.values()
            if self.caller.trusted or self._may(workload)
        ]
        return {"event": "workloads", "workloads": sorted(rows, key=lambda row: str(row["id"]))}

    async def _until_closed(self) -> AsyncIterator[None]:
        closed = asyncio.create_task(self.reader.read())
        changes = self.node.changes()
        try:
            while True:
                change = asyncio.ensure_future(anext(changes))
                await asyncio.wait({change, closed}, return_when=asyncio.FIRST_COMPLETED)
                if not change.done():
                    change.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await change
                    return
                yield
        finally:
            closed.cancel()

    def _may(self, workload: Workload) -> bool:
        spec = workload.spec
        return any(claim.allows(self.caller, spec.namespace, spec.service_account) for claim in self.claims)

    def _check(self, workload: Workload) -> None:
        check_claim(self.claims, self.caller, workload.spec.namespace, workload.spec.service_account)

    def _check_trusted(self, what: str) -> None:
        if not self.caller.trusted:
            raise WeftError(f"uid {self.caller.uid} may not {what}", hint="run it as the node's user or root")

    @staticmethod
    def _text(request: dict[str, Any], key: str) -> str:
        value = request.get(key)
        if not isinstance(value, str) or not value:
            raise UsageError(f"the request lacks {key!r}")
        return value

    def _report(self, step: str, message: str) -> None:
        self._write({"event": "progress", "step": step, "message": message})

    def _stop_app(self, reason: str) -> None:
        self._write({"event": "stop", "reason": reason})

    def _write(self, event: dict[str, Any]) -> None:
        if not self.writer.is_closing():
            self.writer.write(json.dumps(event).encode() + b"\n")

    async def _say(self, event: dict[str, Any]) -> None:
        self._write(event)
        await self.writer.drain()

    async def _fail(self, message: str, hint: str, code: int) -> None:
        with contextlib.suppress(ConnectionError):
            await self._say({"event": "error", "message": message, "hint": hint, "exitCode": code})

    async def _read(self) -> dict[str, Any] | None:
        try:
            line = await self.reader.readline()
        except ValueError as error:
            raise UsageError("the request is longer than 1 MiB") from error
        if not line.endswith(b"\n"):
            return None
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"the request is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise UsageError("the request is no JSON object")
        return found


@contextlib.asynccontextmanager
async def serve(node: Node, claims: Sequence[Claim] = ()) -> AsyncIterator[None]:
    """Serve the node's socket while the context lasts."""
    path = node.layout.node_socket
    path.unlink(missing_ok=True)
    writers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
    strangers: Counter[int] = Counter()

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        conversation = Conversation(node, claims, reader, writer)
        caller = conversation.caller
        if not caller.trusted and strangers[caller.uid] >= _CONNECTIONS_MAX:
            writer.close()
            return
        writers[task] = writer
        strangers[caller.uid] += not caller.trusted
        try:
            await conversation.hold()
        finally:
            strangers[caller.uid] -= not caller.trusted
            del writers[task]

    server = await asyncio.start_unix_server(attend, str(path), limit=_LINE_MAX)
    # Anybody may knock when root serves: the kernel says who it is, and claims say what they may.
    path.chmod(0o666 if os.geteuid() == 0 else 0o600)
    try:
        yield
    finally:
        server.close()
        node.leaving = True
        for writer in list(writers.values()):
            writer.close()  # each conversation reads the end and closes
        await asyncio.gather(*writers, return_exceptions=True)
        path.unlink(missing_ok=True)
