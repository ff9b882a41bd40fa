"""The agent's hold on its DNS process: start or adopt it, give it sockets and names, end it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from weft.errors import WeftError
from weft.names import CLUSTER_DOMAIN
from weft.node.capture.netns import bound
from weft.node.dns import SOCKET_NAME, TABLE_NAME
from weft.node.layout import Layout, read_json, write_atomic
from weft.node.process import Plan, Process, launch
from weft.node.resolve import read_resolvers

log = logging.getLogger(__name__)

_START_S: Final = 10.0
_POLL_S: Final = 0.01
_REPLY_MAX: Final = 256 * 1024
_RESOLV_CONF: Final = Path("/etc/resolv.conf")


class ResolverError(WeftError):
    """The DNS process did not start or refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where the names are answered for one workload. ``mesh`` False: only forwarding, for its sidecar."""

    name: str
    namespace: str
    port: int
    address: str = "127.0.0.1"
    netns: Path | None = None
    mesh: bool = True


class Resolver:
    """One per node. ``listen`` opens ports, ``publish`` replaces the table, ``keep`` restarts the process."""

    def __init__(self, layout: Layout, *, owner: int | None = None, resolvers: tuple[str, ...] | None = None):
        self._layout = layout
        self._owner = owner
        self._resolvers = resolvers
        self._process: Process | None = None
        self._client: socket.socket | None = None
        self._listening: dict[str, Listening] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self._domain = CLUSTER_DOMAIN
        self._revision = 0
        self._held: set[str] = set()
        self._turn = asyncio.Lock()
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """Of the DNS process; None before the first ``listen``."""
        return self._process.pid if self._process else None

    @property
    def names(self) -> Mapping[str, tuple[str, ...]]:
        """The table as it was published last."""
        return self._names

    def read_names(self) -> dict[str, tuple[str, ...]]:
        """The table that an earlier agent published last; empty when there was none."""
        found = read_json(self._layout.dns / TABLE_NAME, owner=self._owner) or {}
        return {str(name): tuple(addresses) for name, addresses in dict(found.get("names", {})).items()}

    async def start(self) -> None:
        """Adopt the process of an earlier agent, with its sockets and names, or start one.

        Raises:
            ResolverError: it does not start.
        """
        record = self._layout.read_record("dns", "process") or {}
        process = Process.parse(record)
        if process is not None and process.alive():
            self._process = process
            with contextlib.suppress(ResolverError, OSError):
                self._connect()
                status = await self._say({"op": "status"})
                self._revision = int(status["revision"])
                self._held = set(status["listeners"])
                return
            await process.end(patience=1)
        await self._execute()

    async def keep(self) -> None:
        """Start the process anew whenever it ends, with all its listeners. Run it as a task."""
        while not self._stopping:
            if self._process is not None:
                await self._process.wait()
                if self._ending():
                    return
                log.warning("the DNS process ended; starting it again")
            try:
                await self._execute()
                for listening in list(self._listening.values()):
                    await self._open(listening)
            except WeftError as error:
                log.error("DNS: %s", error)
                await asyncio.sleep(1)

    def _ending(self) -> bool:
        return self._stopping

    async def listen(self, listening: Listening) -> None:
        """Answer on one more address; replaces the listener of the same name.

        Raises:
            ResolverError: the port is taken, or the process refused.
        """
        self._listening[listening.name] = listening
        if listening.name in self._held:
            return  # an adopted process answers there already, and the port is its own
        await self._open(listening)

    async def close(self, name: str) -> None:
        """Stop answering there."""
        self._held.discard(name)
        if self._listening.pop(name, None) is not None and self._process is not None:
            with contextlib.suppress(ResolverError, OSError):
                await self._say({"op": "close", "name": name})

    async def publish(self, names: Mapping[str, tuple[str, ...]], *, domain: str = CLUSTER_DOMAIN) -> None:
        """Replace the whole table.

        Raises:
            ResolverError: the process refused; it keeps the old one.
        """
        self._names, self._domain = dict(names), domain
        self._write()
        if self._process is not None:
            await self._say({"op": "reload"})

    async def stop(self) -> None:
        """End the process and forget it."""
        self._stopping = True
        if self._client is not None:
            self._client.close()
        if self._process is not None:
            await self._process.end(patience=2)
        self._process = None
        self._layout.drop_record("dns", "process")

    def leave(self) -> None:
        """Let it go on: the next agent adopts it."""
        self._stopping = True
        if self._client is not None:
            self._client.close()

    def _write(self) -> None:
        self._revision += 1
        resolvers = self._resolvers
        if resolvers is None:
            try:
                resolvers = read_resolvers(_RESOLV_CONF.read_text())
            except OSError:
                resolvers = ()
        table: dict[str, Any] = {
            "revision": self._revision,
            "domain": self._domain,
            "resolvers": resolvers,
            "names": self._names,
        }
        write_atomic(self._layout.dns / TABLE_NAME, json.dumps(table).encode(), owner=self._owner)

    async def _execute(self) -> None:
        self._held.clear()
        self._names = self._names or self.read_names()
        self._write()
        (self._layout.dns / SOCKET_NAME).unlink(missing_ok=True)
        env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
        if "PYTHONPATH" in os.environ:
            env["PYTHONPATH"] = os.environ["PYTHONPATH"]
        launched = await launch(
            Plan(
                argv=(sys.executable, "-P", "-m", "weft.node.dns", str(self._layout.dns)),
                env=env,
                cwd="/",
                log=self._layout.dns / "dns.log",
            )
        )
        self._process = launched.process
        self._layout.write_record("dns", "process", self._process.to_record())
        deadline = time.monotonic() + _START_S
        while True:
            try:
                self._connect()
                return
            except OSError:
                if time.monotonic() > deadline or not self._process.alive():
                    raise ResolverError(
                        "the DNS process did not start", hint=f"see {self._layout.dns / 'dns.log'}"
                    ) from None
            await asyncio.sleep(_POLL_S)

    def _connect(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._client.connect(str(self._layout.dns / SOCKET_NAME))
        self._client.setblocking(False)

    async def _open(self, listening: Listening) -> None:
        try:
            made = await asyncio.to_thread(
                lambda: [
                    bound(listening.address, listening.port, kind, netns=listening.netns)
                    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
                ]
            )
        except OSError as error:
            raise ResolverError(
                f"cannot answer names on {listening.address}:{listening.port}: {error.strerror}"
            ) from error
        try:
            await self._say(
                {
                    "op": "listen",
                    "name": listening.name,
                    "namespace": listening.namespace,
                    "mesh": listening.mesh,
                },
                [one.fileno() for one in made],
            )
        finally:
            for one in made:
                one.close()

    async def _say(self, message: dict[str, Any], descriptors: list[int] | None = None) -> dict[str, Any]:
        client = self._client
        if client is None:
            raise ResolverError("the DNS process does not run")
        loop = asyncio.get_running_loop()
        async with self._turn:
            try:
                socket.send_fds(client, [json.dumps(message).encode()], descriptors or [])
                async with asyncio.timeout(_START_S):
                    said = await loop.sock_recv(client, _REPLY_MAX)
            except (OSError, TimeoutError) as error:
                raise ResolverError(f"the DNS process does not answer: {error}") from error
        reply = json.loads(said) if said else {"error": "it ended"}
        if "error" in reply:
            raise ResolverError(f"the DNS process refused: {reply['error']}")
        return dict(reply)
