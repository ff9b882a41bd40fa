"""The control plane's own certificate, over real TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.x509 import load_pem_x509_certificate
from tests.support.plane import Clock, eventually

from weft.control.credentials import Credentials
from weft.identity.ca import Authority
from weft.names import CONTROL_PLANE_HOST


class Held:
    """An authority that a test may replace."""

    def __init__(self) -> None:
        self.now = Authority.create(datetime.now(UTC))

    def __call__(self) -> Authority:
        return self.now


@asynccontextmanager
async def serving(credentials: Credentials) -> AsyncIterator[int]:
    """A port that answers each connection with ``in``."""

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(b"in\n")
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(attend, "127.0.0.1", 0, ssl=credentials.context())
    async with server:
        yield server.sockets[0].getsockname()[1]


async def let_in(port: int, roots: Authority, admin: tuple[str, str], directory: Path) -> bool:
    """Whether a client that trusts ``roots`` and shows ``admin``'s certificate is served."""
    context = ssl.create_default_context(cadata=roots.bundle)
    pair = directory / "admin.pem"
    pair.write_text("".join(admin))
    context.load_cert_chain(pair)
    try:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=CONTROL_PLANE_HOST
        )
        answer = await reader.read()
        writer.close()
    except (ssl.SSLError, ConnectionError):
        return False
    return answer == b"in\n"


async def test_a_root_that_is_removed_is_trusted_no_more(tmp_path: Path) -> None:
    held = Held()
    credentials = Credentials(held, ("localhost",))
    old, old_admin = held.now, credentials.admin("old")
    async with serving(credentials) as port:
        assert await let_in(port, old, old_admin, tmp_path)
        held.now = Authority.create(datetime.now(UTC))
        credentials.renew()
        assert await let_in(port, held.now, credentials.admin("new"), tmp_path)
        assert not await let_in(port, held.now, old_admin, tmp_path)


async def test_it_is_renewed_by_the_clock_and_not_by_time_slept() -> None:
    held, clock = Held(), Clock()
    credentials = Credentials(held, (), lifetime=timedelta(seconds=20), now=clock)
    first = load_pem_x509_certificate(credentials.current().chain)
    keeping = asyncio.create_task(credentials.keep())
    try:
        clock.offset = timedelta(seconds=15)  # as after a suspension
        await eventually(
            lambda: load_pem_x509_certificate(credentials.current().chain) != first, 8, "the renewal"
        )
        held.now = held.now.trust(*Authority.create(clock()).roots)
        await eventually(lambda: credentials.current().roots == held.now.bundle.encode(), 20, "the roots")
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
