"""The port itself: who is let in, what is refused, and proxies that stop reading."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.envoy.xds import Authority, Bundle, Control, bundle, cluster
from weft.emit.packed import Packed
from weft.errors import WeftError
from weft.names import CLUSTER_TYPE
from weft.protos import discovery_v3
from weft.xds import connection as module
from weft.xds import server as server_module
from weft.xds.protocol import Stream
from weft.xds.server import serve

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
IDLE = b"connection idle"  # gRPC's words in GOAWAY
METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
PROXY = "sidecar~127.0.0.1~app.default~default.svc.cluster.local"


@pytest.fixture
async def control() -> AsyncIterator[Control]:
    control = Control(Authority())
    async with control.running():
        yield control


@asynccontextmanager
async def stream(control: Control, **options: int) -> AsyncIterator[Any]:
    chain, key = control.authority.workload()
    credentials = grpc.ssl_channel_credentials(control.authority.pem, key, chain)
    given = (("grpc.ssl_target_name_override", "weft.test"), *options.items())
    async with grpc.aio.secure_channel(f"127.0.0.1:{control.port}", credentials, given) as channel:
        yield channel.stream_stream(METHOD)()


def request(
    type_url: str = CLUSTER_TYPE, node: str = PROXY, metadata: dict[str, Any] | None = None, **more: Any
) -> bytes:
    made = discovery_v3.DeltaDiscoveryRequest(type_url=type_url, **more)
    made.node.id = node
    made.node.metadata.update(metadata or {})
    return made.SerializeToString()


async def ended(call: Any) -> tuple[grpc.StatusCode, str]:
    """How the server ended the stream."""
    async with asyncio.timeout(10):
        return await call.code(), await call.details()


async def test_a_type_that_is_not_served_ends_the_stream(control: Control) -> None:
    async with stream(control) as call:
        await call.write(request("type.googleapis.com/envoy.service.runtime.v3.Runtime"))
        code, words = await ended(call)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "no resources of type" in words


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
        (request(metadata={"WEFT": {"outboundPort": float("nan")}}), grpc.StatusCode.INVALID_ARGUMENT),
        (request(metadata={"NAME": float("inf")}), grpc.StatusCode.INVALID_ARGUMENT),
        (request(metadata={"INTERCEPTION_MODE": ["NONE"]}), grpc.StatusCode.PERMISSION_DENIED),
        (request(metadata={"INTERCEPTION_MODE": {"NONE": 1}}), grpc.StatusCode.PERMISSION_DENIED),
        (request(metadata={"WEFT": {"inboundPorts": {"9" * 5000: 1}}}), grpc.StatusCode.PERMISSION_DENIED),
        (request(metadata={"LABELS": []}), grpc.StatusCode.PERMISSION_DENIED),
        (request(node=""), grpc.StatusCode.PERMISSION_DENIED),
        (
            request(node="sidecar~127.0.0.1~app.other~other.svc.cluster.local"),
            grpc.StatusCode.PERMISSION_DENIED,
        ),
    ],
)
async def test_what_is_no_proxy_is_turned_away(
    control: Control, message: bytes, code: grpc.StatusCode
) -> None:
    async with stream(control) as call:
        await call.write(message)
        assert (await ended(call))[0] is code
    assert control.record.connections == []


async def test_more_names_than_anybody_needs_end_the_stream(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weft.xds.protocol._MAX_NAMES", 10)
    async with stream(control) as call:
        names = [f"cluster-{number}" for number in range(11)]
        await call.write(request(resource_names_subscribe=names))
        code, words = await ended(call)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "more than 10 names" in words


async def test_a_proxy_that_stops_reading_is_let_go_and_holds_up_nobody(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WRITE_SECONDS", 0.3)
    big = {f"c{n}": Packed(f"c{n}", "1", cluster(f"c{n}")[1].body + b"\x12\x00" * 50_000) for n in range(60)}
    control.store.publish(PROXY, Bundle({CLUSTER_TYPE: big}), 1)
    other = PROXY.replace("app.", "other.")
    control.store.publish(other, bundle(cluster("small")), 1)
    async with stream(control, **{"grpc.http2.lookahead_bytes": 65_536, "grpc.http2.bdp_probe": 0}) as stuck:
        await stuck.write(request())  # and reads nothing
        await control.record.until(lambda: len(control.record.connections) == 1)
        async with stream(control) as well:
            await well.write(request(node=other))
            async with asyncio.timeout(5):
                reply = discovery_v3.DeltaDiscoveryResponse.FromString(await well.read())
            assert [resource.name for resource in reply.resources] == ["small"]
            await control.record.until(lambda: [c.proxy for c in control.record.connections] == [other], 10)


async def test_a_fault_of_ours_ends_the_stream_instead_of_silencing_it(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_stream: Stream) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(Stream, "send", fail)
    async with stream(control) as call:
        await call.write(request())
        code, words = await ended(call)
    assert code is grpc.StatusCode.INTERNAL
    assert "a fault" not in words


async def test_a_stopping_server_sends_everybody_away_in_time(control: Control) -> None:
    second = Control(control.authority)
    async with stream(control):
        pass
    loop = asyncio.get_running_loop()
    async with second.running():
        second.store.publish(PROXY, bundle(), 1)
        channels = stream(second)
        call = await channels.__aenter__()
        await call.write(request())
        await call.read()
        began = loop.time()
    assert loop.time() - began < 2
    assert (await ended(call))[0] is grpc.StatusCode.UNAVAILABLE
    assert second.record.connections == []
    await channels.__aexit__(None, None, None)


async def test_a_taken_port_is_said_plainly(control: Control) -> None:
    with pytest.raises(WeftError, match=f"cannot listen on 127.0.0.1:{control.port}"):
        async with serve(
            f"127.0.0.1:{control.port}", lambda: control.certificates, control.store, control.record,
            lambda _node, _spiffe: module.Refusal("nobody"),
        ):  # fmt: skip
            pytest.fail("the port was taken")


async def test_of_two_streams_of_one_proxy_the_newer_wins_and_the_older_is_told(control: Control) -> None:
    control.store.publish(PROXY, bundle(cluster("one")), 1)
    async with stream(control) as first, stream(control) as second:
        await first.write(request())
        async with asyncio.timeout(10):
            await first.read()
        await second.write(request())
        code, words = await ended(first)
        assert code is grpc.StatusCode.ALREADY_EXISTS
        assert "another stream of this proxy" in words
        async with asyncio.timeout(10):
            reply = discovery_v3.DeltaDiscoveryResponse.FromString(await second.read())
        assert [resource.name for resource in reply.resources] == ["one"]
        # That the older one went takes nothing from the newer.
        control.store.publish(PROXY, bundle(cluster("two")), 2)
        await second.write(request(response_nonce=reply.nonce))
        async with asyncio.timeout(10):
            reply = discovery_v3.DeltaDiscoveryResponse.FromString(await second.read())
        assert "two" in {resource.name for resource in reply.resources}


async def test_more_streams_than_a_proxy_needs_wait_and_hold_up_no_other_connection(control: Control) -> None:
    """A connection has so many streams at once; the next ones are not even begun."""
    control.store.publish(PROXY, bundle(cluster("one")), 1)
    chain, key = control.authority.workload()
    credentials = grpc.ssl_channel_credentials(control.authority.pem, key, chain)
    given = (("grpc.ssl_target_name_override", "weft.test"),)
    async with grpc.aio.secure_channel(f"127.0.0.1:{control.port}", credentials, given) as channel:
        calls = [channel.stream_stream(METHOD)() for _ in range(200)]
        async with stream(control) as other:
            await other.write(request())
            async with asyncio.timeout(10):
                await other.read()
        for call in calls:
            call.cancel()


async def test_a_message_larger_than_any_proxy_sends_ends_its_stream_only(control: Control) -> None:
    control.store.publish(PROXY, bundle(cluster("one")), 1)
    async with stream(control) as well, stream(control) as large:
        await well.write(request())
        async with asyncio.timeout(10):
            reply = discovery_v3.DeltaDiscoveryResponse.FromString(await well.read())
        await large.write(request(metadata={"x": "y" * (17 << 20)}, node=PROXY.replace("app.", "b.")))
        async with asyncio.timeout(20):
            assert await large.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        control.store.publish(PROXY, bundle(cluster("two")), 2)
        await well.write(request(response_nonce=reply.nonce))
        async with asyncio.timeout(10):
            await well.read()


def workload_tls(control: Control) -> ssl.SSLContext:
    chain, key = control.authority.workload()
    context = ssl.create_default_context(cadata=control.authority.pem.decode())
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    with tempfile.NamedTemporaryFile() as file:
        file.write(key + b"\n" + chain)
        file.flush()
        context.load_cert_chain(file.name)
    return context


async def test_who_connects_and_says_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    hurried = {"grpc.server_handshake_timeout_ms": 500, "grpc.max_connection_idle_ms": 500}
    known = dict(server_module._OPTIONS)
    assert known.keys() >= hurried.keys()
    monkeypatch.setattr(server_module, "_OPTIONS", tuple({**known, **hurried}.items()))
    control = Control(Authority())
    async with control.running(), stream(control) as well:
        control.store.publish(PROXY, bundle(cluster("one")), 1)
        await well.write(request())
        reply = discovery_v3.DeltaDiscoveryResponse.FromString(await well.read())
        for tls, said in ((False, b""), (False, b"\x16\x03\x01"), (True, b""), (True, PREFACE)):
            context = workload_tls(control) if tls else None
            reader, writer = await asyncio.open_connection("127.0.0.1", control.port, ssl=context)
            writer.write(said)
            seen = b""
            async with asyncio.timeout(30):
                with contextlib.suppress(ConnectionError):
                    while IDLE not in seen and (part := await reader.read(65536)):
                        seen += part
            # Who is silent before it speaks HTTP/2 may be told the one or the other.
            assert IDLE in seen or said != PREFACE, seen
            writer.close()
        control.store.publish(PROXY, bundle(cluster("two")), 2)
        await well.write(request(response_nonce=reply.nonce))
        async with asyncio.timeout(10):
            await well.read()


async def test_a_flood_of_pings_ends_its_connection_and_no_other(control: Control) -> None:
    control.store.publish(PROXY, bundle(cluster("one")), 1)
    async with stream(control) as well:
        await well.write(request())
        context = workload_tls(control)
        reader, writer = await asyncio.open_connection("127.0.0.1", control.port, ssl=context)
        ping = b"\0\0\x08\x06\0\0\0\0\0" + b"p" * 8
        writer.write(PREFACE)
        async with asyncio.timeout(30):
            seen = b""
            while b"too_many_pings" not in seen:
                writer.write(ping * 10)
                part = await reader.read(65536)
                assert part, "the connection ended without a word"
                seen += part
        writer.close()
        async with asyncio.timeout(10):
            await well.read()
