"""A real Envoy through all of its life."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from weft.node.admin import AdminError, ask
from weft.node.layout import Layout
from weft.node.process import Process
from weft.node.sidecar import ProxyError, ProxyOptions, Sidecar, backoff, envoy_binary, proxy_uid


@pytest.fixture
def layout() -> Iterator[Layout]:
    # Not tmp_path: its parents are closed to the uid of Envoy, and too long for a socket.
    with tempfile.TemporaryDirectory(prefix="weft-t") as base:
        Path(base).chmod(0o711)
        found = Layout("test", Path(base) / "run" / "test", Path(base) / "state" / "test")
        found.prepare(proxy_uid=proxy_uid())
        yield found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def bootstrap(admin: Path, port: int, upstream: int) -> str:
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
        "HttpConnectionManager",
        "stat_prefix": "inbound_test",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"prefix": "/slow"}, "route": {"cluster": "app"}},
                        {"match": {"prefix": "/"}, "direct_response": {"status": 204}},
                    ],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    return json.dumps(
        {
            "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}},
            "static_resources": {
                "listeners": [
                    {
                        "name": "in",
                        "traffic_direction": "INBOUND",
                        "enable_reuse_port": False,
                        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                    }
                ],
                "clusters": [
                    {
                        "name": "app",
                        "type": "STATIC",
                        "load_assignment": {
                            "cluster_name": "app",
                            "endpoints": [
                                {
                                    "lb_endpoints": [
                                        {
                                            "endpoint": {
                                                "address": {
                                                    "socket_address": {
                                                        "address": "127.0.0.1",
                                                        "port_value": upstream,
                                                    }
                                                }
                                            }
                                        }
                                    ]
                                }
                            ],
                        },
                    }
                ],
            },
        }
    )


@pytest.fixture
async def sidecar(layout: Layout) -> AsyncIterator[Sidecar]:
    paths = layout.make_workload("default", "web", owner=proxy_uid())
    options = ProxyOptions(binary=envoy_binary(), uid=proxy_uid(), concurrency=1, drain_s=5)
    found = Sidecar(paths, options)
    yield found
    await found.stop()


async def get(port: int, path: str = "/") -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    line = await reader.readline()
    writer.close()
    return int(line.split()[1])


async def until(true: object, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


async def test_it_starts_ready_as_nobody_and_survives_its_starter(sidecar: Sidecar) -> None:
    port = free_port()
    await sidecar.start(bootstrap(sidecar.paths.admin_socket, port, 1))
    assert sidecar.ready
    assert await get(port) == 204
    status = Path(f"/proc/{sidecar.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    if os.getuid() == 0:
        assert set(fields["Uid"].split()) == {str(proxy_uid())}
        assert int(fields["CapEff"], 16) == 0
    assert int(fields["PPid"]) != os.getpid()
    assert sidecar.paths.admin_socket.stat().st_mode & 0o777 == 0o600


async def test_a_killed_envoy_is_back_in_under_a_second(sidecar: Sidecar) -> None:
    port = free_port()
    await sidecar.start(bootstrap(sidecar.paths.admin_socket, port, 1))
    keeping = asyncio.create_task(sidecar.keep())
    first = sidecar.pid
    assert first is not None
    process = Process.of(first)
    assert process is not None
    died = time.monotonic()
    process.send(signal.SIGKILL)
    await until(lambda: sidecar.restarts == 1 and sidecar.ready)
    assert time.monotonic() - died < 1
    assert sidecar.pid != first
    assert await get(port) == 204
    await sidecar.stop()
    await asyncio.wait_for(keeping, 5)


async def test_the_next_agent_adopts_it(sidecar: Sidecar) -> None:
    port = free_port()
    await sidecar.start(bootstrap(sidecar.paths.admin_socket, port, 1))
    sidecar.leave()
    other = Sidecar(sidecar.paths, sidecar.options)
    assert await other.adopt()
    assert (other.pid, other.ready) == (sidecar.pid, True)
    await other.stop()
    assert not await Sidecar(sidecar.paths, sidecar.options).adopt()
    with pytest.raises(AdminError):
        await ask(sidecar.paths.admin_socket, "/ready")


async def test_a_pid_that_went_to_another_process_is_not_adopted(sidecar: Sidecar) -> None:
    mine = Process.of(os.getpid())
    assert mine is not None
    record = {**mine.to_record(), "started": mine.started - 1}
    sidecar.paths.pid_file.write_text(json.dumps(record))
    assert not await sidecar.adopt()


async def test_a_request_in_flight_outlives_the_drain(sidecar: Sidecar) -> None:
    release = asyncio.Event()
    arrived = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(slow, "127.0.0.1", 0)
    port = free_port()
    await sidecar.start(bootstrap(sidecar.paths.admin_socket, port, server.sockets[0].getsockname()[1]))
    request = asyncio.create_task(get(port, "/slow"))
    await arrived.wait()
    stopping = asyncio.create_task(sidecar.stop(drain=True))
    done, _ = await asyncio.wait({stopping}, timeout=0.3)
    assert not done
    release.set()
    assert await request == 200
    await asyncio.wait_for(stopping, 4)
    server.close()


async def test_a_tcp_connection_in_use_outlives_the_drain(sidecar: Sidecar) -> None:
    async def send_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(send_back, "127.0.0.1", 0)
    port = free_port()
    made = json.loads(bootstrap(sidecar.paths.admin_socket, free_port(), server.sockets[0].getsockname()[1]))
    stream = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "bytes",
        "cluster": "app",
    }
    made["static_resources"]["listeners"].append(
        {
            "name": "virtualInbound",
            "traffic_direction": "INBOUND",
            "enable_reuse_port": False,
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "filter_chains": [{"filters": [{"name": "tcp", "typed_config": stream}]}],
        }
    )
    await sidecar.start(json.dumps(made))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def exchange() -> None:
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"

    await exchange()
    stopping = asyncio.create_task(sidecar.stop(drain=True))
    done, _ = await asyncio.wait({stopping}, timeout=0.3)
    assert not done
    await exchange()
    writer.close()
    await asyncio.wait_for(stopping, 4)
    server.close()


async def test_a_broken_bootstrap_says_why(sidecar: Sidecar) -> None:
    with pytest.raises(ProxyError, match="no_such_field"):
        await sidecar.start('{"no_such_field": 1}')
    assert sidecar.pid is None


def test_pauses_between_restarts_grow_to_half_a_minute() -> None:
    assert backoff(1) < 1
    assert [backoff(crashes) for crashes in (1, 2, 3)] == [0.1, 0.2, 0.4]
    assert backoff(1000) == 30
