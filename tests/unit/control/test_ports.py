"""Doors under attack, on real sockets: what is slow, large or many is cut off, and others do not notice."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from weft.control.access import authenticator, monitoring_only
from weft.control.api import serve as serving
from weft.control.api.app import create_app
from weft.control.api.doorway import DEFAULT, Limits, share_of
from weft.control.api.objects import Objects
from weft.control.api.serve import serve_api
from weft.control.api.shares import Shares
from weft.control.api.status import ApiError
from weft.control.credentials import Credentials
from weft.identity.ca import Authority
from weft.identity.users import Audience, Users

HOST, OTHER = "127.0.0.1", "127.0.0.2"
# The deadline of whatever has to happen sooner or later.
SECONDS = 30


class Door:
    def __init__(self, port: int, context: ssl.SSLContext, users: Users) -> None:
        self.port, self.context, self.users = port, context, users

    async def connect(
        self, source: str = HOST, *, tls: bool = True
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            HOST, self.port, local_addr=(source, 0), ssl=self.context if tls else None
        )

    async def served(self, source: str = HOST, path: str = "/version", token: str = "") -> int:
        """The status that a well-mannered client of an address gets, on a new connection."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        connector = aiohttp.TCPConnector(ssl=self.context, local_addr=(source, 0))
        async with (
            asyncio.timeout(SECONDS),
            aiohttp.ClientSession(connector=connector) as client,
            client.get(f"https://{HOST}:{self.port}{path}", headers=headers) as answer,
        ):
            await answer.read()
            return answer.status


@asynccontextmanager
async def door(
    objects: Objects,
    limits: Limits = DEFAULT,
    *,
    monitoring: bool = False,
) -> AsyncIterator[Door]:
    authority = Authority.create(datetime.now(UTC))
    credentials = Credentials(lambda: authority, (HOST,))
    users = Users(objects.store.private("users"), lambda: datetime.now(UTC))
    stop = asyncio.Event()
    app = create_app(objects, authenticate=authenticator(lambda: authority.trust_domain, users), stop=stop)
    context = ssl.create_default_context(cadata=authority.bundle)
    async with serve_api(
        monitoring_only(app) if monitoring else app, host=HOST, port=0, stop=stop, limits=limits,
        ssl_context_factory=credentials.context,
    ) as served:  # fmt: skip
        yield Door(served.port or 0, context, users)


async def gone(reader: asyncio.StreamReader) -> bytes:
    """What comes until the other end closes."""
    seen = b""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                part = await reader.read(65536)
            except (ConnectionError, ssl.SSLError):
                return seen
            if not part:
                return seen
            seen += part


FAST = Limits(handshake=0.3, head=0.3, body=0.3)


async def test_who_says_nothing_is_cut_off(objects: Objects) -> None:
    """Before the handshake, after it, and in the middle of it."""
    async with door(objects, FAST) as there:
        silent, _ = await there.connect(tls=False)
        shaken, _ = await there.connect()
        half, writer = await there.connect(tls=False)
        writer.write(b"\x16\x03\x01\x02\x00\x01\x00")
        for reader in (silent, shaken, half):
            await gone(reader)
        assert await there.served() == 200


@pytest.mark.parametrize(
    "start",
    [
        b"GET /version HTTP/1.1\r\nhost: a\r\n",
        b"POST /weft/v1/apply HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n",
    ],
)
async def test_a_byte_now_and_then_does_not_keep_a_request_open(objects: Objects, start: bytes) -> None:
    async with door(objects, FAST) as there:
        reader, writer = await there.connect()

        async def drip() -> None:
            writer.write(start)
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        await gone(reader)
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        assert await there.served() == 200


async def test_heads_have_an_end(objects: Objects) -> None:
    async with door(objects) as there:
        reader, writer = await there.connect()
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * (1 << 20) + b"\r\n\r\n")
        assert (await gone(reader)).startswith((b"HTTP/1.1 400", b"HTTP/1.1 431")) or reader.at_eof()
        assert await there.served() == 200


async def test_one_address_takes_no_more_than_its_share(objects: Objects) -> None:
    limits = Limits(per_address=4, connections=6)
    async with door(objects, limits) as there:
        held = [await there.connect() for _ in range(4)]
        with pytest.raises((OSError, ssl.SSLError)):
            await there.connect()
        reader, _ = await there.connect(tls=False)
        assert await gone(reader) == b""
        assert await there.served(OTHER) == 200
        # Who leaves makes room.
        held[0][1].close()
        await gone(held[0][0])
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    assert await there.served() == 200
                    break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.02)
        for _, writer in held:
            writer.close()


async def test_handshakes_of_one_address_hold_up_no_other(objects: Objects) -> None:
    async with door(objects, Limits(shaking_per_address=3, shaking=6)) as there:
        open_ = [await there.connect(tls=False) for _ in range(3)]
        extra, _ = await there.connect(tls=False)
        assert await gone(extra) == b""
        assert await there.served(OTHER) == 200
        for _, writer in open_:
            writer.close()


async def test_a_session_counts_until_it_ends(tmp_path: Path) -> None:
    """Also once the connection has become a WebSocket."""

    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        await socket.receive_text()
        await socket.close()

    path = tmp_path / "s"
    limits = Limits(connections=2)
    app = Starlette(routes=[WebSocketRoute("/", echo)])
    async with (
        serve_api(app, socket_path=path, stop=asyncio.Event(), limits=limits),
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as client,
    ):
        for _ in range(2):
            first = await client.ws_connect("http://weft/")
            second = await client.ws_connect("http://weft/")
            with pytest.raises(aiohttp.ClientError):
                await client.ws_connect("http://weft/")
            for session in (first, second):
                await session.send_str("go")
                async with asyncio.timeout(SECONDS):
                    await session.receive()
                await session.close()
            async with asyncio.timeout(SECONDS):
                while True:  # until the other end has noticed
                    with contextlib.suppress(aiohttp.ClientError):
                        third = await client.ws_connect("http://weft/")
                        await third.close()
                        break
                    await asyncio.sleep(0.02)


async def test_requests_of_one_caller_wait_for_that_caller_s_only() -> None:
    shares = Shares(at_once=1, patience=0.2)
    async with shares.of("ann", lasts=False):
        with pytest.raises(ApiError) as refused:
            async with shares.of("ann", lasts=False):
                pass
        assert (refused.value.code, refused.value.reason) == (429, "TooManyRequests")
        async with shares.of("bob", lasts=False), shares.of("ann", lasts=True):
            pass
    async with shares.of("ann", lasts=False):
        pass
    assert not shares._callers


async def test_bodies_of_one_caller_and_of_all_together_are_bounded() -> None:
    shares = Shares(bodies=10, all_bodies=15)
    async with shares.of("ann", lasts=False) as first, shares.of("ann", lasts=False) as second:
        first.take(8)
        with pytest.raises(ApiError):
            second.take(3)
        async with shares.of("bob", lasts=False) as third:
            third.take(7)
            with pytest.raises(ApiError):
                third.take(1)
    assert shares.held == 0
    async with shares.of("ann", lasts=False) as again:
        again.take(10)


async def test_many_large_bodies_are_refused_before_they_fill_the_memory(objects: Objects) -> None:
    """Each is below the limit of one body; together they are too many, and each is told so or served."""
    async with door(objects) as there:
        text, _ = await there.users.token("ann", groups=["system:masters"])
        url = f"https://{HOST}:{there.port}/weft/v1/apply"
        headers = {"authorization": f"Bearer {text}", "content-type": "application/json"}
        part = b" " * (1 << 20)
        gate = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            for _ in range(7):
                yield part
            await gate.wait()

        async def send(client: aiohttp.ClientSession) -> int:
            try:
                async with client.post(url, data=body(), headers=headers) as answer:
                    return answer.status
            except aiohttp.ClientError:
                return 429  # the answer came before the body was sent, and the connection ended

        connector = aiohttp.TCPConnector(ssl=there.context, limit=0)
        async with aiohttp.ClientSession(connector=connector) as client:
            sending = [asyncio.create_task(send(client)) for _ in range(8)]
            # 32 MiB are four of seven, so that at least one is turned away while the others wait.
            async with asyncio.timeout(SECONDS):
                await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
            assert await there.served(path="/api/v1/namespaces", token=text) == 200
            gate.set()
            statuses = await asyncio.gather(*sending)
        assert 429 in statuses
        assert set(statuses) <= {400, 429}


async def test_pings_that_nobody_reads_the_answers_of_end_their_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_UNREAD_MAX", 128 << 10)

    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(text)

    app = Starlette(routes=[WebSocketRoute("/", echo)])
    path = tmp_path / "s"
    async with serve_api(app, socket_path=path, stop=asyncio.Event()):
        _, writer = await asyncio.open_unix_connection(path, limit=1024)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: " + key.encode() + b"\r\n\r\n"
        )
        pings = (b"\x89\xfd\0\0\0\0" + b"p" * 125) * 500
        async with asyncio.timeout(SECONDS):
            while not writer.transport.is_closing():
                writer.write(pings)
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
        connector = aiohttp.UnixConnector(str(path))
        async with (
            aiohttp.ClientSession(connector=connector) as client,
            client.ws_connect("http://weft/") as session,
        ):
            await session.send_str("well")
            assert (await session.receive()).data == "well"
            # What is larger than any message ends the session.
            with contextlib.suppress(ConnectionError):
                await session.send_bytes(b"x" * (9 << 20))
            assert (await session.receive()).type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}


async def test_the_monitoring_port_shows_health_to_all_and_series_to_those_who_may(objects: Objects) -> None:
    async with door(objects, monitoring=True) as there:
        users = there.users
        scraper, _ = await users.token("prometheus", groups=["system:monitoring"])
        narrow, _ = await users.token("narrow", groups=["system:monitoring"], audiences=[Audience.MONITORING])
        elsewhere, _ = await users.token("other", groups=["system:masters"], audiences=[Audience.API])
        stranger, _ = await users.token("stranger")
        table: list[tuple[str, str, set[int]]] = [
            ("/healthz", "", {200}),
            ("/readyz", "", {200}),
            ("/version", "", {200}),
            ("/metrics", "", {401}),
            ("/debug/syncz", "", {401}),
            # No metrics are wired here: who may is told that there are none.
            ("/metrics", scraper, {404}),
            ("/metrics", narrow, {404}),
            ("/metrics", elsewhere, {401}),
            ("/api/v1/namespaces", scraper, {404}),
            ("/api/v1/namespaces", "", {404}),
            ("/weft/v1/enroll", "", {404}),
        ]
        for path, token, codes in table:
            assert await there.served(path=path, token=token) in codes, path
        assert await there.served(path="/healthz", token=stranger) == 200
    async with door(objects) as there:
        assert await there.served(path="/api", token=narrow) == 401
        assert await there.served(path="/api/v1/namespaces", token=elsewhere) == 200


@pytest.mark.parametrize(
    ("host", "share"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_whose_share_an_address_is(host: str, share: str) -> None:
    assert share_of(host) == share
