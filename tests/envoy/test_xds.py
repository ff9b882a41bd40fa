"""What real Envoys do with what the server sends."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from tests.envoy.xds import (
    Authority,
    Control,
    ask,
    backend,
    bundle,
    cluster,
    endpoints,
    envoy,
    free_port,
    listener,
    routes,
    until,
)
from weft.names import CLUSTER_TYPE, ENDPOINT_TYPE

PROXY = "sidecar~127.0.0.1~app.default~default.svc.cluster.local"


@pytest.fixture
async def control() -> AsyncIterator[Control]:
    control = Control(Authority())
    async with control.running():
        yield control


async def test_a_proxy_gets_a_bundle_and_serves_it(control: Control, tmp_path: Path) -> None:
    port = free_port()
    async with backend("a") as a, envoy(control, tmp_path) as proxy:
        control.store.publish_endpoints(None, {"one": endpoints("one", a)})
        control.store.publish(PROXY, bundle(cluster("one"), listener("in", port, "r"), routes("r", "one")), 1)
        await proxy.ready()
        await control.settled(1)
        assert await ask(port) == (200, "a")
    assert control.record.refusals() == []
    assert [kind for kind, _, _ in control.record.sent_] == ["cds", "eds", "lds", "rds"]


async def test_an_endpoint_change_reaches_traffic_and_nothing_else_is_sent(
    control: Control, tmp_path: Path
) -> None:
    port = free_port()
    async with backend("a") as a, backend("b") as b, envoy(control, tmp_path) as proxy:
        control.store.publish_endpoints(None, {"one": endpoints("one", a), "two": endpoints("two", a)})
        made = bundle(cluster("one"), cluster("two"), listener("in", port, "r"), routes("r", "one"))
        control.store.publish(PROXY, made, 1)
        await proxy.ready()
        await control.settled(1)
        before = len(control.record.sent_)
        control.store.publish_endpoints(None, {"one": endpoints("one", b)})
        control.store.flush()
        await control.settled(1)
        assert await ask(port) == (200, "b")
        control.store.publish_endpoints(None, {}, removed=["one"])
        control.store.flush()
        await control.settled(1)
        assert (await ask(port))[0] == 503
    assert control.record.sent_[before:] == [("eds", ("one",), ())] * 2


async def test_a_changed_cluster_is_given_its_endpoints_again(control: Control, tmp_path: Path) -> None:
    port = free_port()
    async with backend("a") as a, envoy(control, tmp_path) as proxy:
        control.store.publish_endpoints(None, {"one": endpoints("one", a)})
        rest = (listener("in", port, "r"), routes("r", "one"))
        control.store.publish(PROXY, bundle(cluster("one"), *rest), 1)
        await proxy.ready()
        await control.settled(1)
        before = len(control.record.sent_)
        control.store.publish(PROXY, bundle(cluster("one", connect_timeout="7s"), *rest), 2)
        # Without the endpoints Envoy would withhold its acknowledgement for 15 s.
        async with asyncio.timeout(5):
            await control.settled(2)
        assert await ask(port) == (200, "a")
        (active,) = await proxy.dump("dynamic_active_clusters")
        assert active["cluster"]["connect_timeout"] == "7s"
    assert control.record.sent_[before:] == [("cds", ("one",), ()), ("eds", ("one",), ())]


@pytest.mark.parametrize("count", [1, 6])
async def test_a_refused_cluster_is_found_and_the_others_go_on(
    control: Control, tmp_path: Path, count: int
) -> None:
    port = free_port()
    bad = cluster("bad", lb_policy="RING_HASH", ring_hash_lb_config={"minimum_ring_size": 9_000_000})
    good = [cluster(f"good-{number}") for number in range(count)]
    async with backend("a") as a, envoy(control, tmp_path) as proxy:
        control.store.publish_endpoints(
            None, {name: endpoints(name, a) for name in ("bad", *(packed.name for _, packed in good))}
        )
        control.store.publish(PROXY, bundle(bad, *good, listener("in", port, "r"), routes("r", "good-0")), 1)
        await proxy.ready()
        await control.settled(1)
        assert await ask(port) == (200, "a")
        names = {config["cluster"]["name"] for config in await proxy.dump("dynamic_active_clusters")}
        assert names == {packed.name for _, packed in good}
        ((kind, rejection),) = control.stream.rejected()
        assert (kind, rejection.resource) == (CLUSTER_TYPE, bad[1])
        assert "RingHashLbConfig" in rejection.error
        culprits = [event.culprit for event in control.record.refusals() if event.culprit]
        assert culprits == [bad[1]]
        # Mended, it is taken, and nothing is refused any more.
        control.store.publish(
            PROXY, bundle(cluster("bad"), *good, listener("in", port, "r"), routes("r", "bad")), 2
        )
        await control.settled(2)
        assert await ask(port) == (200, "a")
        assert list(control.stream.rejected()) == []


async def test_refused_listeners_and_routes_leave_the_rest_alone(control: Control, tmp_path: Path) -> None:
    port, other = free_port(), free_port()
    async with backend("a") as a, envoy(control, tmp_path) as proxy:
        control.store.publish_endpoints(None, {"one": endpoints("one", a), "old": endpoints("old", a)})
        control.store.publish(
            PROXY, bundle(cluster("one"), cluster("old"), listener("in", port, "r"), routes("r", "old")), 1
        )
        await proxy.ready()
        await control.settled(1)
        taken = listener("taken", a, "r")  # the backend has that port
        broken = routes("r", "one", safe_regex={"regex": "(("})
        control.store.publish(
            PROXY,
            bundle(cluster("one"), listener("in", port, "r"), taken, listener("more", other, "r"), broken),
            2,
        )
        await control.settled(2)
        refused = {rejection.resource.name for _, rejection in control.stream.rejected()}
        assert refused == {"taken", "r"}
        # The route that was refused leaves the old one in force, so its cluster has to stay.
        assert await ask(port) == (200, "a")
        assert await ask(other) == (200, "a")
        control.store.publish(
            PROXY,
            bundle(
                cluster("one"), listener("in", port, "r"), listener("more", other, "r"), routes("r", "one")
            ),
            3,
        )
        await control.settled(3)
        assert list(control.stream.rejected()) == []
        assert control.record.sent_[-1] == ("cds", (), ("old",))
        assert await ask(port) == (200, "a")


async def test_a_returning_proxy_is_sent_only_what_differs(tmp_path: Path) -> None:
    control, port = Control(Authority()), free_port()
    first = bundle(cluster("one"), cluster("two"), listener("in", port, "r"), routes("r", "one"))

    def fill() -> None:
        control.store.publish_endpoints(None, {"one": endpoints("one", a), "two": endpoints("two", a)})

    async with backend("a") as a:
        async with control.running():
            proxies = envoy(control, tmp_path)
            proxy = await proxies.__aenter__()
            try:
                fill()
                control.store.publish(PROXY, first, 1)
                await proxy.ready()
                await control.settled(1)
            except BaseException:
                await proxies.__aexit__(None, None, None)
                raise
        try:
            assert await ask(port) == (200, "a")  # nobody controls it, it goes on
            control.restart()
            async with control.running():
                fill()
                control.store.publish(PROXY, first, 1)
                await control.settled(1)
                await control.record.until(lambda: len(control.stream.subscribed(ENDPOINT_TYPE)) == 2)
                await control.settled(1)
                assert control.record.sent_ == []
            control.restart()
            async with control.running():
                fill()
                control.store.publish(
                    PROXY, bundle(cluster("one"), listener("in", port, "r"), routes("r", "one")), 2
                )
                await control.settled(2)
                assert control.record.sent_ == [("cds", (), ("two",))]
                assert await ask(port) == (200, "a")
        finally:
            await proxies.__aexit__(None, None, None)


async def test_moving_traffic_to_new_clusters_loses_no_request(control: Control, tmp_path: Path) -> None:
    port = free_port()
    answers: list[tuple[int, str]] = []
    async with backend("a") as a, envoy(control, tmp_path) as proxy:

        def publish(revision: int) -> None:
            name = f"c{revision}"
            control.store.publish_endpoints(None, {name: endpoints(name, a)}, [f"c{revision - 1}"])
            control.store.publish(
                PROXY, bundle(cluster(name), listener("in", port, "r"), routes("r", name)), revision
            )

        publish(1)
        await proxy.ready()
        await control.settled(1)
        stop = asyncio.Event()
        answered = asyncio.Condition()

        async def load() -> None:
            while not stop.is_set():
                answers.append(await ask(port))
                async with answered:
                    answered.notify_all()

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(load())
            for revision in range(2, 22):
                publish(revision)
                await control.settled(revision)
                goal = len(answers) + 4
                async with answered:
                    while len(answers) < goal:
                        await answered.wait()
            stop.set()
        active = [config["cluster"]["name"] for config in await proxy.dump("dynamic_active_clusters")]
    assert active == ["c21"]
    assert set(answers) == {(200, "a")}


async def test_a_certificate_of_another_account_is_turned_away(control: Control, tmp_path: Path) -> None:
    control.store.publish(PROXY, bundle(cluster("one")), 1)
    stolen = control.authority.workload("other")
    async with envoy(control, tmp_path, credentials=stolen) as proxy:
        words = "its certificate is for spiffe://cluster.local/ns/default/sa/other"

        async def turned_away() -> bool:
            return proxy.log.exists() and words in proxy.log.read_text()

        await until(turned_away)
    assert control.record.sent_ == []


async def test_a_stranger_without_a_certificate_gets_no_stream(control: Control, tmp_path: Path) -> None:
    control.store.publish(PROXY, bundle(cluster("one")), 1)
    stranger = Authority().workload()
    async with envoy(control, tmp_path, credentials=stranger) as proxy:

        async def failed() -> bool:
            return any((await proxy.stats("cluster.xds-grpc.upstream_cx_destroy$")).values())

        await until(failed)
    assert control.record.connections == []
    assert control.record.sent_ == []


async def test_the_server_shows_its_new_certificate_without_a_restart(
    control: Control, tmp_path: Path
) -> None:
    control.store.publish(PROXY, bundle(), 1)
    async with envoy(control, tmp_path) as proxy:
        await proxy.ready()
        assert await shown(control) == "control"
        control.certificates = control.authority.server("renewed")
        assert await shown(control) == "renewed"
        assert len(control.record.connections) == 1


async def shown(control: Control) -> str:
    """The common name in the certificate that the server shows."""
    context = ssl.create_default_context(cadata=control.authority.pem.decode())
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection(
        "127.0.0.1", control.port, ssl=context, server_hostname="weft.test"
    )
    try:
        subject = writer.get_extra_info("peercert")["subject"]
        return str(subject[0][0][1])
    finally:
        writer.close()


async def test_nothing_else_is_served_on_the_port(tmp_path: Path) -> None:
    control = Control(Authority())
    chain, key = control.authority.workload()
    credentials = grpc.ssl_channel_credentials(control.authority.pem, key, chain)
    options = (("grpc.ssl_target_name_override", "weft.test"),)
    async with (
        control.running(),
        grpc.aio.secure_channel(f"127.0.0.1:{control.port}", credentials, options) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")(b"")
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
