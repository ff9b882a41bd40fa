"""The control plane asks the Envoys of a node over its session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.joined import instance, joined, session
from tests.support.plane import Plane

from weft.node.admin import Reply, ask
from weft.node.inquiry import PART_CHARACTERS


@asynccontextmanager
async def admin(socket: Path, body: str) -> AsyncIterator[list[str]]:
    """An admin interface that answers ``body``; yields the request lines."""
    asked: list[str] = []

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode())
        data = body.encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(data), data))
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(attend, str(socket))
    async with server:
        yield asked


class TestAdmin:
    async def test_the_control_plane_asks_an_envoy_by_its_node(self, control: Plane, tmp_path: Path) -> None:
        dump = "ü" * (2 * PART_CHARACTERS + 1)
        socket = tmp_path / "admin.sock"

        async def through(name: str, method: str, path: str) -> Reply:
            assert name == "shop/web-0"
            return await ask(socket, path, method=method)

        async with session(await joined(control, tmp_path), tmp_path) as node, admin(socket, dump) as asked:
            await node.register(instance())
            with pytest.raises(LookupError, match="runs no proxies"):
                await control.service.ask("shop/web-0", "GET", "/config_dump")
            node.on_admin(through)
            status, body = await control.service.ask("shop/web-0", "GET", "/config_dump?include_eds")
            assert (status, body.decode()) == (200, dump)
            assert "GET /config_dump?include_eds HTTP/1.1" in asked
            with pytest.raises(LookupError, match="no request"):
                await control.service.ask("shop/web-0", "GET", "/stats HTTP/1.1\r\n\r\nPOST /quitquitquit")
            with pytest.raises(LookupError, match="no node"):
                await control.service.ask("shop/other", "GET", "/stats")

    async def test_a_node_that_goes_away_leaves_nobody_waiting(self, control: Plane, tmp_path: Path) -> None:
        began, never = asyncio.Event(), asyncio.Event()

        async def silent(name: str, method: str, path: str) -> Reply:
            began.set()
            await never.wait()
            raise AssertionError

        async with session(await joined(control, tmp_path), tmp_path) as node:
            await node.register(instance())
            node.on_admin(silent)
            asking = asyncio.create_task(control.service.ask("shop/web-0", "GET", "/stats"))
            await began.wait()
        with pytest.raises(LookupError, match="went away"):
            await asking
