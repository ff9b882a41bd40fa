from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from weft.errors import UsageError
from weft.node.probe import Execute, Grpc, HttpGet, Probe, Target, TcpSocket, check, watch

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handle: Handle) -> AsyncIterator[int]:
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def answering(status: str, seen: list[bytes] | None = None) -> Handle:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(request)
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n".encode())
        writer.close()

    return handle


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        ("200 OK", ""),
        ("302 Found", ""),
        ("399 x", ""),
        ("404 x", "HTTP status 404"),
        ("503 x", "HTTP status 503"),
    ],
)
async def test_http_success_is_200_to_399(status: str, problem: str) -> None:
    async with listening(answering(status)) as port:
        assert await check(Probe(handler=HttpGet(port=port)), Target()) == problem


async def test_http_by_port_name_with_path_and_headers() -> None:
    seen: list[bytes] = []
    async with listening(answering("200 OK", seen)) as port:
        handler = HttpGet(port="web", path="/ready?x=1", headers=(("Host", "a.test"), ("X-Probe", "1")))
        assert await check(Probe(handler=handler), Target(ports={"web": port})) == ""
    head = seen[0].decode().split("\r\n")
    assert head[0] == "GET /ready?x=1 HTTP/1.1"
    assert [line for line in head if line.lower().startswith("host:")] == ["Host: a.test"]
    assert "X-Probe: 1" in head


async def test_an_answer_that_is_no_http() -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\r\n")
        writer.close()

    async with listening(shout) as port:
        assert await check(Probe(handler=HttpGet(port=port)), Target())


async def test_silence_ends_with_the_timeout() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with listening(hang) as port:
        probe = Probe(handler=HttpGet(port=port), timeout_s=0.1)
        assert await check(probe, Target()) == "no answer within 0.1 s"


async def test_tcp_and_a_closed_port() -> None:
    async with listening(answering("200 OK")) as port:
        assert await check(Probe(handler=TcpSocket(port=port)), Target()) == ""
    assert await check(Probe(handler=TcpSocket(port=port)), Target()) == "connection refused"


async def test_exec_in_the_applications_environment() -> None:
    command = (sys.executable, "-c", "import os, sys; sys.exit(int(os.environ['CODE']))")
    probe = Probe(handler=Execute(command=command), timeout_s=10)
    assert await check(probe, Target(env={"CODE": "0"})) == ""
    assert await check(probe, Target(env={"CODE": "3"})) == "exit status 3"
    hanging = Probe(handler=Execute(command=("sleep", "60")), timeout_s=0.1)
    assert "no answer" in await check(hanging, Target())


class Health(grpc.GenericRpcHandler):  # type: ignore[misc]
    """grpc.health.v1 by its wire format: ``service`` is field 1, ``status`` (1 is SERVING) is field 1."""

    def __init__(self) -> None:
        self.serving = {b"": True}

    def service(self, details: Any) -> Any:
        if details.method != "/grpc.health.v1.Health/Check":
            return None

        async def answer(request: bytes, context: Any) -> bytes:
            name = request[2:]
            if name not in self.serving:
                await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
            return b"\x08\x01" if self.serving[name] else b"\x08\x02"

        return grpc.unary_unary_rpc_method_handler(answer)


async def test_grpc_health_of_a_real_server() -> None:
    server, health = grpc.aio.server(), Health()
    server.add_generic_rpc_handlers((health,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        health.serving[b"shop.Orders"] = False
        whole = Probe(handler=Grpc(port=port), timeout_s=5)
        one = Probe(handler=Grpc(port=port, service="shop.Orders"), timeout_s=5)
        other = Probe(handler=Grpc(port=port, service="nobody"), timeout_s=5)
        assert await check(whole, Target()) == ""
        assert "not SERVING" in await check(one, Target())
        assert "not SERVING" in await check(other, Target())
        health.serving[b"shop.Orders"] = True
        assert await check(one, Target()) == ""
    finally:
        await server.stop(0)


async def test_a_probe_changes_its_mind_only_at_the_thresholds() -> None:
    answers = iter([True, False, False, True, False, False, False, True, True])
    status = {"now": "200 OK"}

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        status["now"] = "200 OK" if next(answers, True) else "500 x"
        writer.write(f"HTTP/1.1 {status['now']}\r\n\r\n".encode())
        writer.close()

    async with listening(handle) as port:
        probe = Probe(handler=HttpGet(port=port), period_s=0.01, failure_threshold=3, success_threshold=2)
        verdicts: list[bool] = []
        async for healthy, _ in watch(probe, Target()):
            verdicts.append(healthy)
            if len(verdicts) == 2:
                break
    # Neither one success nor two failures in a row count: only three failures, then two successes.
    assert verdicts == [False, True]


async def test_a_start_is_noticed_long_before_a_period_is_over_even_after_failures() -> None:
    asked = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        asked += 1
        writer.write(b"HTTP/1.1 %s\r\n\r\n" % (b"200 OK" if asked > 4 else b"503 x"))
        writer.close()

    async with listening(handle) as port:
        probe = Probe(handler=HttpGet(port=port), period_s=3600, failure_threshold=2)
        verdicts: list[bool] = []
        async with asyncio.timeout(20):
            async for healthy, _ in watch(probe, Target(), eager=True):
                verdicts.append(healthy)
                if healthy:
                    break
        assert verdicts == [False, True]
        # A probe that may end the application keeps to its period.
        asked = 0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(watch(probe, Target())), 0.7)
        assert asked == 1


def test_kubernetes_own_words_and_defaults() -> None:
    probe = Probe.parse(
        {
            "httpGet": {"port": "http", "path": "/healthz", "httpHeaders": [{"name": "A", "value": "b"}]},
            "periodSeconds": 5,
            "initialDelaySeconds": 1,
        }
    )
    assert probe.handler == HttpGet(port="http", path="/healthz", headers=(("A", "b"),))
    assert (probe.initial_delay_s, probe.period_s, probe.timeout_s, probe.failure_threshold) == (1, 5, 1, 3)


@pytest.mark.parametrize(
    "data", [{}, {"httpGet": {"port": 1}, "exec": {"command": ["x"]}}, {"tcpSocket": {}}]
)
def test_a_probe_without_exactly_one_whole_handler_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Probe.parse(data)


async def test_a_port_name_that_the_workload_lacks() -> None:
    with pytest.raises(UsageError, match="none of the workload's"):
        await check(Probe(handler=TcpSocket(port="nope")), Target(ports={"http": 1}))
