"""Who is woken, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from weft.emit.packed import Packed
from weft.names import CLUSTER_TYPE, ENDPOINT_TYPE
from weft.xds.messages import Request
from weft.xds.protocol import Stream
from weft.xds.shared import Shared
from weft.xds.store import ConfigStore


@dataclass
class Bundle:
    resources: Mapping[str, Mapping[str, Packed]]


@dataclass
class Watcher:
    """A stream whose proxy acknowledges everything at once."""

    proxy: str
    stream: Stream
    sent: list[tuple[str, ...]] = field(default_factory=list)
    stalled: bool = False
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.sent) < count:
                self.woken.clear()
                await self.woken.wait()

    def wake(self) -> None:
        self.woken.set()
        if self.stalled:
            return
        while (response := self.stream.send()) is not None:
            self.sent.append(tuple(resource.version for resource in response.resources))
            self.stream.receive(Request(response.type_url, nonce=response.nonce))


def packed(name: str, version: str) -> Packed:
    return Packed(name, version, b"\n\x01x")


def bundle(*names: str) -> Bundle:
    return Bundle({CLUSTER_TYPE: {name: packed(name, f"cluster {name}") for name in names}})


def connect(store: ConfigStore, shared: Shared, proxy: str, *names: str) -> Watcher:
    watcher = Watcher(proxy, Stream(shared))
    store.attach(watcher)
    watcher.stream.receive(Request(CLUSTER_TYPE))
    watcher.stream.receive(Request(ENDPOINT_TYPE, subscribe=names))
    watcher.wake()
    watcher.sent.clear()
    return watcher


async def test_only_streams_that_asked_for_a_changed_name_are_woken() -> None:
    store, shared = ConfigStore(), Shared()
    store.publish_endpoints("here", {"a": packed("a", "1"), "b": packed("b", "1")})
    store.publish_endpoints("there", {"a": packed("a", "far")})
    for proxy, lane, names in (("p", "here", ("a",)), ("q", "here", ("b",)), ("r", "there", ("a",))):
        store.publish(proxy, bundle(*names), 1, lane=lane)
    p, q, r = (connect(store, shared, name, *names) for name, names in (("p", "a"), ("q", "b"), ("r", "a")))
    store.publish_endpoints("here", {"a": packed("a", "2")})
    store.flush()
    assert (p.sent, q.sent, r.sent) == ([("2",)], [], [])
    assert all(watcher.stream.has_endpoints(store.sequence) for watcher in (p, q, r))


async def test_changes_within_a_tick_go_out_together_and_the_first_at_once() -> None:
    store, shared = ConfigStore(tick=0.05), Shared()
    store.publish("p", bundle("a", "b"), 1)
    p = connect(store, shared, "p", "a", "b")
    loop = asyncio.get_running_loop()
    began = loop.time()
    store.publish_endpoints(None, {"a": packed("a", "1")})
    await p.until(1)
    assert loop.time() - began < 0.05
    for version in "23456":
        store.publish_endpoints(None, {"a": packed("a", version), "b": packed("b", version)})
        await asyncio.sleep(0)
    assert p.sent == [("1",)]
    await p.until(2)
    assert p.sent == [("1",), ("6", "6")]


async def test_endpoints_reach_a_proxy_before_the_bundle_that_needs_them() -> None:
    store, shared = ConfigStore(), Shared()
    store.publish("p", bundle(), 1)
    p = connect(store, shared, "p", "a")
    store.publish_endpoints(None, {"a": packed("a", "1")})
    store.publish("p", bundle("a"), 2)
    assert p.sent == [("cluster a",), ("1",)]


async def test_a_proxy_that_changes_its_lane_gets_the_endpoints_of_the_new_one() -> None:
    store, shared = ConfigStore(), Shared()
    store.publish_endpoints("here", {"a": packed("a", "near")})
    store.publish_endpoints("there", {"a": packed("a", "far")})
    store.publish("p", bundle("a"), 1, lane="here")
    p = connect(store, shared, "p", "a")
    store.publish("p", bundle("a"), 2, lane="there")
    assert p.sent == [("far",)]


async def test_an_unchanged_bundle_sends_nothing_and_advances_the_revision() -> None:
    store, shared = ConfigStore(), Shared()
    store.publish("p", bundle("a"), 1)
    p = connect(store, shared, "p")
    store.publish("p", bundle("a"), 2)
    assert (p.sent, p.stream.revision) == ([], 2)
    store.advance(3)
    assert (p.sent, p.stream.revision) == ([], 3)


async def test_a_forgotten_proxy_gets_nothing_until_something_is_published_for_it() -> None:
    store, shared = ConfigStore(), Shared()
    store.publish("p", bundle("a"), 1)
    store.forget("p")
    p = connect(store, shared, "p")
    p.wake()
    assert p.sent == []
    store.publish("p", bundle("a"), 2)
    assert p.sent == [("cluster a",)]


async def test_a_stalled_proxy_gets_the_newest_state_and_nothing_between() -> None:
    store, shared = ConfigStore(), Shared()
    store.publish("p", bundle("a"), 1)
    store.publish_endpoints(None, {"a": packed("a", "0")})
    store.flush()
    p = connect(store, shared, "p", "a")
    p.stalled = True
    store.publish_endpoints(None, {"a": packed("a", "1")})
    store.flush()
    stuck = p.stream.send()
    assert stuck is not None
    for version in ("2", "3", "4"):
        store.publish_endpoints(None, {"a": packed("a", version)})
        store.flush()
        assert p.stream.send() is None
    p.stream.receive(Request(ENDPOINT_TYPE, nonce=stuck.nonce))
    last = p.stream.send()
    assert last is not None
    assert [resource.version for resource in last.resources] == ["4"]
