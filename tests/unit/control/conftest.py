from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from weft.client import ApiClient, Server
from weft.control.api.app import create_app, same_user
from weft.control.api.objects import Objects
from weft.control.api.serve import serve_api
from weft.store.sqlite import SqliteStore


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[Objects]:
    async with SqliteStore.open(tmp_path / "store") as store:
        made = Objects(store)
        await made.start()
        yield made


@pytest.fixture
async def api(objects: Objects, tmp_path: Path) -> AsyncIterator[ApiClient]:
    stop = asyncio.Event()
    app = create_app(objects, authenticate=same_user(os.getuid()), stop=stop)
    path = tmp_path / "api.sock"
    async with serve_api(app, socket_path=path, stop=stop), ApiClient(Server(socket_path=path)) as client:
        yield client
