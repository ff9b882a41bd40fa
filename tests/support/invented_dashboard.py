"""The dashboard over a mesh that does not exist, served on a loopback port of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import uvicorn

from tests.support.invented_mesh import InventedMesh
from weft.app.mesh_readers import MeshReaders
from weft.client import ApiClient, RefusedError
from weft.dashboard.app import create_dashboard
from weft.dashboard.door import ENTRANCE

_TELEMETRY = "/weft/v1/telemetry/"


class InventedClient:
    """Answers the questions to telemetry; there is nothing else in that mesh."""

    def __init__(self, mesh: InventedMesh) -> None:
        self.mesh = mesh

    async def raw(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, str] | None = None,
        **_more: object,
    ) -> Any:
        """As the API's client: the decoded answer."""
        if method == "GET" and path.startswith(_TELEMETRY):
            return self.mesh.answer(path.removeprefix(_TELEMETRY), dict(query or {}))
        if path == "/weft/v1/proxies":
            return {"proxies": []}
        if path == "/weft/v1/usage":
            return {"usage": [], "failed": {}}
        raise RefusedError(404, {"message": "there is no such thing in an invented mesh"})

    async def resources(self) -> tuple[Any, ...]:
        """No kinds."""
        return ()


@contextmanager
def invented_dashboard(mesh: InventedMesh) -> Iterator[str]:
    """Serve it; gives the link that works once."""
    stop = asyncio.Event()
    readers = MeshReaders(cast(ApiClient, InventedClient(mesh))).readers()
    door = create_dashboard(readers, stop=stop)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        config = uvicorn.Config(
            cast(Any, door), lifespan="off", log_config=None, ws="none", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}{ENTRANCE}?token={door.token}"
        finally:
            server.should_exit = True
            thread.join(20)
