"""The test backend, asked by real clients: curl (HTTP/1.1, h2c, TLS), grpcio, websockets, sockets."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from tests.support.certificates import TestAuthority
from tests.support.ports import free_port
from websockets.asyncio.client import connect

from weft.app.echo.answer import Asked, Echo
from weft.app.echo.rpc import SERVICE
from weft.app.echo.server import Ports, serving, tls_context
from weft.errors import WeftError

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


@dataclass
class Backend:
    http: int
    tls: int
    tcp: int
    udp: int


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    ports = Ports(host="127.0.0.1", http=(0,), tls=(0,), tcp=(0,), udp=(0,))
    who = Echo(name="echo", namespace="shop", pod="echo-0")
    async with serving(who, ports, tls=tls_context(None, None, None)) as bound:
        yield Backend(**{kind: found[0] for kind, found in bound.items()})


async def curl(*argv: str) -> tuple[int, dict[str, str], str]:
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sSik", "--max-time", "20", *argv), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    head, _, body = out.decode().partition("\r\n\r\n")
    lines = head.split("\r\n")
    named = (line.split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), {name.lower(): value for name, value in named}, body


@pytest.mark.parametrize(
    ("option", "proto"), [("--http1.1", "HTTP/1.1"), ("--http2-prior-knowledge", "HTTP/2.0")]
)
async def test_it_says_what_was_asked(backend: Backend, option: str, proto: str) -> None:
    url = f"http://127.0.0.1:{backend.http}/a//b?x=%20y"
    set_header = "X-Echo-Set-Header: x-one:1, x-two:2,x-two:3"
    status, headers, body = await curl(
        option, "-H", "X-A: 1", "-H", "x-a: 2", "-H", set_header, "-d", "q", url
    )
    found = json.loads(body)
    assert (status, headers["x-one"], headers["x-two"]) == (200, "1", "2,3")
    assert (found["path"], found["method"], found["proto"]) == ("/a//b?x=%20y", "POST", proto)
    assert found["host"] == f"127.0.0.1:{backend.http}"
    assert found["headers"]["X-A"] == ["1", "2"]
    assert found["httpPort"] == str(backend.http)
    assert (found["namespace"], found["pod"]) == ("shop", "echo-0")
    assert "tls" not in found


@pytest.mark.parametrize(("option", "alpn"), [("--http1.1", "http/1.1"), ("--http2", "h2")])
async def test_tls(backend: Backend, option: str, alpn: str) -> None:
    to = f"echo.example:{backend.tls}"
    _, _, body = await curl(option, "--connect-to", f"{to}:127.0.0.1:{backend.tls}", f"https://{to}/")
    tls = json.loads(body)["tls"]
    assert (tls["version"], tls["serverName"], tls["negotiatedProtocol"]) == ("TLSv1.3", "echo.example", alpn)
    assert tls["cipherSuite"].startswith("TLS_")


async def test_client_certificates_are_shown(tmp_path: Any) -> None:
    authority = TestAuthority()
    pair = authority.issue("spiffe://cluster.local/ns/shop/sa/web", "localhost")
    for name, text in (("pair.pem", pair.certificate + pair.key), ("ca.pem", authority.pem)):
        (tmp_path / name).write_text(text)
    own = tls_context(tmp_path / "pair.pem", None, tmp_path / "ca.pem")
    async with serving(Echo(), Ports(host="127.0.0.1", tls=(0,)), tls=own) as bound:
        url = f"https://127.0.0.1:{bound['tls'][0]}/"
        _, _, body = await curl("--cert", str(tmp_path / "pair.pem"), url)
        assert json.loads(body)["tls"]["peerCertificates"] == [pair.certificate]
        _, _, body = await curl(url)
        assert "peerCertificates" not in json.loads(body)["tls"]


async def test_status_and_delay(backend: Backend) -> None:
    url = f"http://127.0.0.1:{backend.http}/"
    assert (await curl(f"{url}?responseCode=503"))[0] == 503
    assert (await curl(f"{url}status/404"))[0] == 404
    assert (await curl("--http2-prior-knowledge", f"{url}?responseCode=204"))[0] == 204
    began = time.monotonic()
    assert (await curl(f"{url}?delay=300ms"))[0] == 200
    assert time.monotonic() - began >= 0.3
    for wrong in ("delay=3", "delay=10h", "responseCode=abc", "responseCode=99", "succeedAfter=-1"):
        assert (await curl(f"{url}?{wrong}"))[0] == 400


async def test_succeeds_after(backend: Backend) -> None:
    url = f"http://127.0.0.1:{backend.http}/?succeedAfter=2&responseCode=502"
    assert [(await curl(url))[0] for _ in range(4)] == [502, 502, 200, 200]
    assert (await curl("-H", "x-request-id: other", url))[0] == 502


async def test_tries_that_break(backend: Backend) -> None:
    for option in ("--http1.1", "--http2-prior-knowledge"):
        url = f"http://127.0.0.1:{backend.http}/{option}?succeedAfter=1&delayRetry=1ms"
        process = await asyncio.create_subprocess_exec("curl", "-s", option, "--max-time", "20", url)
        assert await process.wait() in {52, 56, 92}  # no answer, broken off, stream reset
        assert (await curl(option, url))[0] == 200


async def test_grpc(backend: Backend) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{backend.http}") as channel:
        call = channel.unary_unary("/any.Service/Method")
        assert await call(b"hello", timeout=20) == b"hello"
        large = bytes(200_000)  # more than a flow-control window
        assert await call(large, timeout=20) == large


@pytest.fixture(scope="module")
def echo_response() -> type[Message]:
    """The conformance backend's answer, as much of it as is asked for here."""
    file = descriptor_pb2.FileDescriptorProto(name="echo_test.proto", package="test", syntax="proto3")
    shapes = {
        "Header": [("key", 1, ""), ("value", 2, "")],
        "Context": [("namespace", 1, ""), ("service_name", 3, ""), ("pod", 4, "")],
        "Assertions": [
            ("method", 1, ""),
            ("headers", 2, "Header"),
            ("authority", 3, ""),
            ("context", 4, "Context"),
        ],
        "Answer": [("assertions", 1, "Assertions")],
    }
    field = descriptor_pb2.FieldDescriptorProto
    for name, fields in shapes.items():
        message = file.message_type.add(name=name)
        for key, number, kind in fields:
            label = field.LABEL_REPEATED if key == "headers" else field.LABEL_OPTIONAL
            of = {"type": field.TYPE_MESSAGE, "type_name": f".test.{kind}"} if kind else {"type": 9}
            message.field.add(name=key, number=number, label=label, **of)
    return message_factory.GetMessages([file], descriptor_pool.DescriptorPool())["test.Answer"]


async def test_grpc_says_who_answers(backend: Backend, echo_response: Any) -> None:
    options = (("grpc.default_authority", "echo.example"),)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{backend.http}", options=options) as channel:
        value = "long" * 100  # its length takes two bytes
        call = channel.unary_unary(f"{SERVICE}EchoTwo", response_deserializer=echo_response.FromString)
        said = (await call(b"", metadata=[("x-a", value)], timeout=20)).assertions
        assert (said.method, said.authority) == (f"{SERVICE}EchoTwo", "echo.example")
        assert (said.context.namespace, said.context.pod) == ("shop", "echo-0")
        assert value in [header.value for header in said.headers if header.key == "x-a"]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(f"{SERVICE}EchoThree")(b"", timeout=20)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_websocket(backend: Backend) -> None:
    async with connect(f"ws://127.0.0.1:{backend.http}/ws") as websocket:
        await websocket.send("text")
        assert await websocket.recv() == "text"
        await websocket.send([b"in ", b"parts"])
        assert await websocket.recv() == b"in parts"
        await (await websocket.ping())


async def test_tcp_and_udp(backend: Backend) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", backend.tcp)
    writer.write(b"tcp")
    writer.write_eof()
    assert await reader.read() == b"tcp"
    writer.close()
    loop = asyncio.get_running_loop()
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.setblocking(False)
        await loop.sock_sendto(udp, b"udp", ("127.0.0.1", backend.udp))
        assert await asyncio.wait_for(loop.sock_recv(udp, 99), 10) == b"udp"


async def test_nonsense_is_refused(backend: Backend) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", backend.http)
    writer.write(b"\x16\x03\x01nonsense\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400")
    writer.close()


async def test_a_port_in_use_is_said(backend: Backend) -> None:
    with pytest.raises(WeftError, match="cannot listen"):
        async with serving(Echo(), Ports(host="127.0.0.1", http=(backend.http,))):
            pass


def test_headers_cannot_be_smuggled() -> None:
    hostile = [("X-Echo-Set-Header", "content-length:0,x y:1,a:b")]
    asked = Asked(method="GET", target="/", host="h", proto="HTTP/1.1", headers=hostile, port=1)
    names = [name for name, _ in Echo().reply(asked).headers]
    assert names == ["content-type", "x-content-type-options", "a"]


def test_context_needs_a_pair(tmp_path: Any) -> None:
    (tmp_path / "x.pem").write_text("nothing")
    with pytest.raises(WeftError, match="TLS files"):
        tls_context(tmp_path / "x.pem", None, None)
    assert ssl.HAS_TLSv1_3


@pytest.mark.parametrize(("host", "reached"), [("127.9.9.9", False), ("some-name", True)])
async def test_it_listens_where_a_node_says(host: str, reached: bool) -> None:
    """Only an address is one: elsewhere HOST may be anything."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "weft", "echo", "--name", "shop"),
        env={**os.environ, "HOST": host, "PORT": str(port), "HOSTNAME": "shop-0"},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        assert await process.stderr.readline() == f"shop-0 listens: http {port}\n".encode()
        with socket.socket() as probe:
            assert (probe.connect_ex(("127.0.0.1", port)) == 0) is reached
        _, _, body = await curl(f"http://{host if not reached else '127.0.0.1'}:{port}/")
        assert json.loads(body)["pod"] == "shop-0"
    finally:
        process.terminate()
        await process.wait()
