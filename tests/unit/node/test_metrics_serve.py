"""The door for Prometheus on real sockets and TLS; who scrapes is played, what is scraped too."""

from __future__ import annotations

import asyncio
import base64
import gzip
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from tests.support.certificates import TestAuthority

from weft.errors import UsageError, WeftError
from weft.node.metrics.admission import Admission, Unknown
from weft.node.metrics.application import Scrape, ScrapeError, fetch
from weft.node.metrics.exposition import Page, own
from weft.node.metrics.scrape import Scraper
from weft.node.metrics.serve import Place, serve, take
from weft.node.probe import Target
from weft.node.remote import serving_context

ALLOWED = "weftuser.abcdefghij.secret"


class Seen:
    """Shows one series; counts looks."""

    def __init__(self) -> None:
        self.looks: list[tuple[str, float]] = []

    async def look(self, only: str = "", *, seconds: float = 8.0) -> Page:
        self.looks.append((only, seconds))
        if only == "shop/none":
            raise LookupError(only)
        family = own("weft_node_x", "gauge", "X.")
        family.add(1)
        page = Page()
        page.add([family])
        return page


class Control:
    """The control plane's word."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, str]] = []
        self.away = False

    async def __call__(self, shown: Mapping[str, str]) -> bool:
        self.asked.append(shown)
        if self.away:
            raise WeftError("nobody answers")
        return shown.get("token") == ALLOWED or "certificate" in shown


@asynccontextmanager
async def door(
    path: Path, where: str, control: Control | None = None
) -> AsyncIterator[tuple[Seen, int, TestAuthority]]:
    authority, seen = TestAuthority(), Seen()
    pair = authority.issue("spiffe://cluster.local/weft/node/one", "weft-node.istio-system.svc")
    place = Place.parse(where)
    assert place is not None
    taken = take(place)
    admission = Admission(control or Control())
    context = lambda: serving_context(lambda: (authority.pem, pair.key, pair.certificate))  # noqa: E731
    async with serve(cast("Scraper", seen), path / "metrics.sock", taken, admission, context):
        yield seen, taken[1].port, authority


async def get(port: int, target: str = "/metrics", *, tls: Any = None, **headers: str) -> tuple[int, str]:
    scheme = "https" if tls else "http"
    host = "weft-node.istio-system.svc" if tls else None
    async with (
        aiohttp.ClientSession() as http,
        http.get(
            f"{scheme}://127.0.0.1:{port}{target}", headers=headers, ssl=tls or False, server_hostname=host
        ) as answer,
    ):
        return answer.status, await answer.text()


async def test_loopback_and_the_socket_are_open(tmp_path: Path) -> None:
    async with door(tmp_path, "127.0.0.1:0") as (seen, port, _):
        status, text = await get(port, "/metrics?workload=shop/web-0")
        assert (status, text.splitlines()[-1]) == (200, "weft_node_x 1")
        assert (await get(port, "/metrics?workload=shop/none"))[0] == 404
        assert (await get(port, "/stats/prometheus"))[0] == 200
        assert (await get(port, "/other"))[0] == 404
        connector = aiohttp.UnixConnector(str(tmp_path / "metrics.sock"))
        async with aiohttp.ClientSession(connector=connector) as http:
            for _ in range(2):  # on one connection
                async with http.get("http://node/metrics") as answer:
                    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
                    assert (await answer.text()).endswith("weft_node_x 1\n")
        assert seen.looks[0] == ("shop/web-0", 8.0)
        assert (tmp_path / "metrics.sock").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "metrics.sock").exists()


async def test_prometheus_says_how_long_it_waits(tmp_path: Path) -> None:
    async with door(tmp_path, "127.0.0.1:0") as (seen, port, _):
        for said in ("1.5", "nan", "soon", "-1", "1e9"):
            await get(port, **{"X-Prometheus-Scrape-Timeout-Seconds": said})
        assert [seconds for _, seconds in seen.looks] == [1.2000000000000002, 8.0, 8.0, 0.3, 30.0]


async def test_other_addresses_take_tls_and_a_token(tmp_path: Path) -> None:
    control = Control()
    async with door(tmp_path, "0.0.0.0:0", control) as (seen, port, authority):
        tls = ssl.create_default_context(cadata=authority.pem)
        assert (await get(port, tls=tls))[0] == 401
        assert (await get(port, tls=tls, authorization="Bearer guess"))[0] == 401
        basic = base64.b64encode(b"weft:x").decode()
        assert (await get(port, tls=tls, authorization=f"Basic {basic}"))[0] == 401
        assert not seen.looks
        # Where there is nothing, strangers are not told so.
        assert (await get(port, "/none", tls=tls))[0] == 401
        assert await get(port, tls=tls, authorization=f"Bearer {ALLOWED}") == (
            200,
            "# HELP weft_node_x X.\n# TYPE weft_node_x gauge\nweft_node_x 1\n",
        )
        with pytest.raises(aiohttp.ClientError):
            await get(port, authorization=f"Bearer {ALLOWED}")
        assert [shown["token"] for shown in control.asked] == ["guess", ALLOWED]


async def test_a_client_certificate_of_the_mesh_is_shown_to_the_control_plane(tmp_path: Path) -> None:
    control = Control()
    async with door(tmp_path, "0.0.0.0:0", control) as (_, port, authority):
        for issuer, name in ((authority, "good"), (TestAuthority(), "strange")):
            pair = issuer.issue("spiffe://cluster.local/weft/user/prometheus")
            (tmp_path / f"{name}.pem").write_text(f"{pair.key}\n{pair.certificate}")
        tls = ssl.create_default_context(cadata=authority.pem)
        tls.load_cert_chain(tmp_path / "good.pem")
        assert (await get(port, tls=tls))[0] == 200
        assert "BEGIN CERTIFICATE" in control.asked[0]["certificate"]
        # A header decides alone.
        assert (await get(port, tls=tls, authorization="Bearer guess"))[0] == 401
        tls = ssl.create_default_context(cadata=authority.pem)
        tls.load_cert_chain(tmp_path / "strange.pem")
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await get(port, tls=tls)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /metrics HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello",
        b"GET /metrics HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET http://x/ HTTP/1.1\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nauthorization: a\r\nauthorization: b\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n broken\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
    ],
)
async def test_what_is_no_plain_question_gets_none(tmp_path: Path, request_: bytes) -> None:
    async with door(tmp_path, "127.0.0.1:0") as (seen, port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_)
        assert (await reader.readline()).split()[1] == b"400"
        await reader.read()
        writer.close()
        assert not seen.looks


async def test_a_head_without_end_is_cut_off(tmp_path: Path) -> None:
    async with door(tmp_path, "127.0.0.1:0") as (seen, port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.1\r\n" + b"x: " + b"a" * 200_000)
        async with asyncio.timeout(20):
            assert await _end(reader) == b""
        writer.close()
        assert (await get(port))[0] == 200
        assert len(seen.looks) == 1


async def _end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def test_a_taken_port_gives_another(tmp_path: Path) -> None:
    first, place = take(Place("127.0.0.1", 0))
    first.listen()
    second, other = take(place)
    assert other.port not in {0, place.port}
    for one in (first, second):
        one.close()


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (":", "https://192.0.2.7:15020"),
        (":9000", "https://192.0.2.7:9000"),
        ("127.0.0.1", "http://127.0.0.1:15020"),
        ("[::1]:99", "http://[::1]:99"),
        ("192.0.2.9:1", "https://192.0.2.9:1"),
        ("off", ""),
    ],
)
def test_places(text: str, url: str) -> None:
    place = Place.parse(text)
    assert (place.url("192.0.2.7") if place else "") == url


@pytest.mark.parametrize("text", ["host:80", "127.0.0.1:x", "127.0.0.1:70000", "::zz"])
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(UsageError, match="is no place"):
        Place.parse(text)


async def test_what_the_control_plane_said_holds_for_a_while() -> None:
    clock, control = SimpleNamespace(now=0.0), Control()
    admission = Admission(control, lambda: clock.now)
    good, bad = f"Bearer {ALLOWED}", "Bearer bad"
    assert await admission.admits(good, None)
    assert not await admission.admits(bad, None)
    clock.now = 9
    assert (await admission.admits(good, None), await admission.admits(bad, None)) == (True, False)
    assert len(control.asked) == 2
    clock.now = 11
    assert not await admission.admits(bad, None)
    assert len(control.asked) == 3
    control.away, clock.now = True, 3000
    assert await admission.admits(good, None)
    with pytest.raises(Unknown):
        await admission.admits(bad, None)
    with pytest.raises(Unknown):
        await admission.admits("Bearer new", None)
    clock.now = 3700
    with pytest.raises(Unknown):
        await admission.admits(good, None)


async def test_guesses_do_not_drive_out_who_is_let_in() -> None:
    control = Control()
    admission = Admission(control)
    await admission.admits(f"Bearer {ALLOWED}", None)
    for number in range(600):
        assert not await admission.admits(f"Bearer guess-{number}", None)
    control.away = True
    assert await admission.admits(f"Bearer {ALLOWED}", None)


def answering(answer: bytes) -> Any:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    return handle


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nx 1\n", b"x 1\n"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nx \r\n2;e\r\n1\n\r\n0\r\n\r\n",
            b"x 1\n",
        ),
        (b"HTTP/1.0 200 OK\r\n\r\nx 1\n", b"x 1\n"),
        (b"HTTP/1.1 500 No\r\n\r\n", "it answers 500"),
        (b"HTTP/1.1 302 No\r\nlocation: http://127.0.0.1/\r\n\r\n", "it answers 302"),
        (b"hello\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", "larger"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffff\r\n", "larger"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n", "larger"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2000, "larger"),
    ],
)
async def test_an_applications_answer(answer: bytes, expected: bytes | str) -> None:
    server = await asyncio.start_server(answering(answer), "127.0.0.1", 0)
    async with server:
        scrape = Scrape(server.sockets[0].getsockname()[1])
        if isinstance(expected, bytes):
            assert await fetch(scrape, Target(), limit=1000) == expected
        else:
            with pytest.raises(ScrapeError, match=expected):
                await fetch(scrape, Target(), limit=1000)


def test_where_an_application_shows_series() -> None:
    said = {"prometheus.io/scrape": "true", "prometheus.io/port": "9090", "prometheus.io/path": "all?x=1"}
    assert Scrape.of(said, {}) == Scrape(9090, "/all?x=1")
    assert Scrape.of({"prometheus.io/scrape": "true"}, {"http": 8080}) == Scrape(8080, "/metrics")
    named = {"prometheus.io/scrape": "true", "prometheus.io/port": "admin"}
    assert Scrape.of(named, {"http": 1, "admin": 2}) == Scrape(2)
    assert Scrape.of({"prometheus.io/scrape": "false", "prometheus.io/port": "x"}, {}) is None
    for bad in ({}, {"prometheus.io/port": "x"}, {"prometheus.io/port": "70000"}):
        with pytest.raises(UsageError):
            Scrape.of({"prometheus.io/scrape": "true", **bad}, {})
    with pytest.raises(UsageError):
        Scrape(80, "/a b")
    assert Scrape.parse(Scrape(80).to_dict()) == Scrape(80)


async def test_what_goes_over_the_network_is_packed(tmp_path: Path) -> None:
    async with door(tmp_path, "0.0.0.0:0") as (_, port, authority):
        tls = ssl.create_default_context(cadata=authority.pem)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=tls, server_hostname="weft-node.istio-system.svc"
        )
        writer.write(
            f"GET /metrics HTTP/1.1\r\nauthorization: Bearer {ALLOWED}\r\naccept-encoding: gzip\r\n"
            "connection: close\r\n\r\n".encode()
        )
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert b"content-encoding: gzip" in head
        packed = b""
        while (size := int(body.partition(b"\r\n")[0], 16)) > 0:
            body = body.partition(b"\r\n")[2]
            packed, body = packed + body[:size], body[size + 2 :]
        assert gzip.decompress(packed).endswith(b"weft_node_x 1\n")
