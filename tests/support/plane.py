"""A control plane's side of nodes for tests: real store, API and TLS; it may be stopped and started again."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.support.ports import free_port
from weft.control.access import authenticator
from weft.control.api.app import create_app
from weft.control.api.objects import Objects
from weft.control.api.serve import serve_api
from weft.control.credentials import Credentials
from weft.control.nametable import NameTable
from weft.control.nodes import OPEN_PATHS, NodeService
from weft.control.nodesession import Addresses
from weft.control.registry import Registry
from weft.identity.ca import Authority
from weft.identity.custody import Custody
from weft.identity.jwt_issuer import IssuedJwt, JwtIssuer
from weft.identity.ledger import Issued
from weft.identity.nodes import Nodes
from weft.identity.scope import EVERYTHING, Scope
from weft.identity.server import Issuer
from weft.identity.tokens import Tokens
from weft.model.resource import Key
from weft.store.sqlite import SqliteStore


class Clock:
    """UTC, which a test may move."""

    def __init__(self) -> None:
        self.offset = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.offset


@dataclass
class Plane:
    """What a control plane offers nodes, at ``url``."""

    directory: Path
    clock: Clock = field(default_factory=Clock)
    lease_s: float = 15.0
    lifetime: timedelta = timedelta(hours=24)
    node_lifetime: timedelta = timedelta(days=30)
    port: int = field(default_factory=free_port)
    audit: list[Issued] = field(default_factory=list)
    jwt_audit: list[IssuedJwt] = field(default_factory=list)
    loaded: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    acknowledged: Callable[[Key, int], Awaitable[None]] | None = None

    store: SqliteStore = field(init=False)
    authority: Authority = field(init=False)
    issuer: Issuer = field(init=False)
    registry: Registry = field(init=False)
    service: NodeService = field(init=False)
    names: NameTable = field(init=False)
    credentials: Credentials = field(init=False)
    tls: ssl.SSLContext = field(init=False)
    _stack: AsyncExitStack | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def socket(self) -> Path:
        return self.directory / "api.sock"

    async def start(self) -> None:
        stack = self._stack = AsyncExitStack()
        self.store = await stack.enter_async_context(SqliteStore.open(self.directory / "store"))
        self.authority = (await Custody(self.store.private("authority"), self.clock).open()).authority
        self.issuer = Issuer(
            lambda: self.authority,
            Tokens(self.store.private("tokens"), self.clock),
            Nodes(self.store.private("nodes")),
            self.clock,
            audit=self.audit.append,
            lifetime=self.lifetime,
            node_lifetime=self.node_lifetime,
        )
        self.registry = Registry(self.store, self.issuer, self._acknowledge, lease_s=self.lease_s)
        await self.registry.restore()
        self.names = NameTable()
        addresses = Addresses(xds="127.0.0.1:15012", api=self.url)
        self.service = NodeService(
            self.issuer,
            self.registry,
            self.names,
            lambda connection: addresses,
            JwtIssuer(self.issuer, self.store.private("jwt"), audit=self.jwt_audit.append),
            loaded=lambda node, message: self.loaded.append((node, message)),
        )
        self.credentials = Credentials(lambda: self.authority, (), now=self.clock)
        self.tls = self.credentials.context()
        stop = asyncio.Event()
        app = create_app(
            Objects(self.store),
            authenticate=authenticator(lambda: self.authority.trust_domain),
            stop=stop,
            routes=self.service.routes(),
            open_paths=OPEN_PATHS,
        )
        keeping = asyncio.create_task(self.registry.keep())
        stack.push_async_callback(_cancel, keeping)
        await stack.enter_async_context(
            serve_api(
                app,
                host="127.0.0.1",
                port=self.port,
                ssl_context_factory=lambda: self.tls,
                socket_path=self.socket,
                stop=stop,
            )
        )

    async def stop(self) -> None:
        if self._stack is not None:
            await self._stack.aclose()
            self._stack = None

    async def _acknowledge(self, key: Key, revision: int) -> None:
        if self.acknowledged is not None:
            await self.acknowledged(key, revision)

    async def token(self, *, scope: Scope = EVERYTHING, **options: Any) -> str:
        text, _ = await self.issuer.tokens.create(self.authority.pin, scope=scope, **options)
        return str(text)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@asynccontextmanager
async def plane(directory: Path, **options: Any) -> AsyncIterator[Plane]:
    """A running one, stopped at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    made = Plane(directory, **options)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


async def eventually(
    condition: Callable[[], Any], seconds: float = 10.0, what: str = "the condition"
) -> None:
    """Wait for a condition (a function, or one that gives an awaitable).

    Raises:
        TimeoutError: when it does not hold in time.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        await asyncio.sleep(0.01)
