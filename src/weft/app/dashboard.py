"""The dashboard on this machine: a loopback port, a link that works once, and what it reads."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import uvicorn

from weft.app.mesh_readers import MeshReaders
from weft.client import ApiClient
from weft.dashboard.app import create_dashboard
from weft.dashboard.door import ENTRANCE
from weft.errors import WeftError

PORT: Final = 15080
ADDRESS: Final = "127.0.0.1"
_GRACE_S: Final = 2


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the process."""
        yield


@asynccontextmanager
async def serve_dashboard(client: ApiClient, port: int | None = None) -> AsyncIterator[str]:
    """Serve inside the block; gives the address to open, which works once.

    ``port``: that one; None takes 15080 if it is free, else any.

    Raises:
        WeftError: the port is taken.
    """
    with _bind(port) as door:
        stop = asyncio.Event()
        at = door.getsockname()[1]
        app = create_dashboard(MeshReaders(client).readers(), stop=stop, cookie_name=f"weft-{at}")
        server = _Server(
            uvicorn.Config(
                cast(Any, app), lifespan="off", log_config=None, access_log=False, server_header=False,
                ws="none", timeout_graceful_shutdown=_GRACE_S,
            )
        )  # fmt: skip
        serving = asyncio.create_task(server.serve(sockets=[door]), name="dashboard")
        try:
            yield f"http://{ADDRESS}:{at}{ENTRANCE}?token={app.token}"
        finally:
            stop.set()
            server.should_exit = True
            await serving


def _bind(port: int | None) -> socket.socket:
    last: OSError | None = None
    for wanted in (PORT, 0) if port is None else (port,):
        bound = socket.socket()
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((ADDRESS, wanted))
            bound.listen()
            bound.setblocking(False)
        except OSError as error:
            bound.close()
            last = error
        else:
            return bound
    assert last is not None
    raise WeftError(
        f"the dashboard cannot listen on {ADDRESS}:{port}: {last.strerror}",
        hint="stop what uses that port, or choose another one: --port",
    ) from last
