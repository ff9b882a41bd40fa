"""Watching: proxies tell of more for exactly as long as somebody looks, whoever ends it and how."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from weft.control.api.builtin import EDITORS, VIEWERS
from weft.control.api.permission import Access
from weft.control.api.roles import Roles
from weft.control.api.rules import Ask
from weft.control.api.subject import Subject
from weft.control.proxies import Proxies
from weft.control.tap import LEASE_S, WHOLE, Tapping, _fitting, _is
from weft.ir.proxy import ProxyIdentity
from weft.model.catalog import WEFT
from weft.names import ProxyName
from weft.telemetry.inquiry import TelemetryError

ASK = Ask(verb="create", group=WEFT, resource="proxies", subresource="tap", namespace="shop")


class Stage:
    """Nodes and a telemetry process as far as watching needs them. ``told``: what nodes were told last."""

    def __init__(self, *proxies: str) -> None:
        self.told: dict[str, int] = {}
        self.seconds: set[float] = set()
        self.answers: list[dict[str, Any]] = []
        self.lost: set[str] = set()
        self.gone = False
        self.stop = asyncio.Event()
        self.tapping = Tapping(Proxies(), self.hold, self.ask, lambda namespace, name: None, self.stop)
        self.tapping._choose = lambda namespace, of: dict.fromkeys(proxies, "web")  # type: ignore[method-assign]

    async def hold(self, proxy: str, share: int, seconds: float) -> None:
        if proxy in self.lost:
            raise LookupError("no node that is connected runs it")
        self.told[proxy] = share
        self.seconds.add(seconds)

    async def ask(self, question: str, asked: Mapping[str, str]) -> dict[str, Any]:
        assert question == "tap"
        if self.gone:
            raise TelemetryError("the telemetry process does not run", status=503)
        nothing = {"next": 7, "records": [], "seen": 0, "missed": 0}
        return self.answers.pop(0) if asked and self.answers else nothing

    def watch(self) -> AsyncGenerator[dict[str, Any]]:
        access = Access(subject=Subject(name="ada", groups=(EDITORS,)), roles=Roles())
        return self.tapping._lines("shop", "", {}, access, ASK)


def record(path: str, time: int, account: str = "web") -> dict[str, Any]:
    return {"namespace": "shop", "instance": "web-0", "account": account, "path": path, "time": time}


def test_who_may_watch() -> None:
    def may(group: str) -> bool:
        subject = Subject(name="ada", groups=(group,))
        return asyncio.run(Roles().decide(subject, ASK)).allowed

    assert may(EDITORS)
    assert not may(VIEWERS), "it costs proxies CPU, and shows every path"


def test_the_share_is_held_while_somebody_watches() -> None:
    async def run() -> None:
        stage = Stage("shop/web-0", "shop/web-1")
        # The last pretends to be a replica of another workload.
        told = [record("/b", 2), record("/a", 1), record("/forged", 1, "thief")]
        late = {"next": 10, "records": told, "seen": 2, "missed": 0}
        stage.answers.append(late)
        async with aclosing(stage.watch()) as lines:
            started = (await anext(lines))["started"]
            assert started == {"proxies": ["shop/web-0", "shop/web-1"], "failed": {}}
            assert stage.told == {"shop/web-0": WHOLE, "shop/web-1": WHOLE}
            assert stage.seconds == {LEASE_S}
            records = [(await anext(lines))["record"] for _ in range(2)]
            assert [(one["path"], one["weight"]) for one in records] == [("/a", 1.0), ("/b", 1.0)]
            assert (await anext(lines))["status"] == {"share": 1.0, "seen": 2, "missed": 0}
        assert stage.told == {"shop/web-0": 0, "shop/web-1": 0}

    asyncio.run(run())


def test_the_last_of_two_who_watch_puts_it_back() -> None:
    async def run() -> None:
        stage = Stage("shop/web-0")
        async with aclosing(stage.watch()) as first:
            await anext(first)
            async with aclosing(stage.watch()) as second:
                await anext(second)
            assert stage.told == {"shop/web-0": WHOLE}
        assert stage.told == {"shop/web-0": 0}

    asyncio.run(run())


def test_it_is_put_back_when_the_one_who_watches_is_cut_off() -> None:
    async def run() -> None:
        stage = Stage("shop/web-0")
        began = asyncio.Event()

        async def follow() -> None:
            async with aclosing(stage.watch()) as lines:
                async for _ in lines:
                    began.set()

        watching = asyncio.create_task(follow())
        await began.wait()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert stage.told == {"shop/web-0": 0}

    asyncio.run(run())


def test_it_ends_with_the_control_plane_and_with_telemetry() -> None:
    async def run() -> None:
        stage = Stage("shop/web-0")
        async with aclosing(stage.watch()) as lines:
            await anext(lines)
            stage.stop.set()
            assert [line async for line in lines] == []
        assert stage.told == {"shop/web-0": 0}
        stage.stop.clear()
        async with aclosing(stage.watch()) as lines:
            await anext(lines)
            stage.gone = True
            (last,) = [line async for line in lines]
            assert last["error"]["message"] == "the telemetry process does not run"
        assert stage.told == {"shop/web-0": 0}

    asyncio.run(run())


def test_proxies_that_cannot_be_reached_are_named() -> None:
    async def run() -> None:
        stage = Stage("shop/web-0", "shop/web-1")
        stage.lost = {"shop/web-1"}
        async with aclosing(stage.watch()) as lines:
            started = (await anext(lines))["started"]
            assert started["failed"] == {"shop/web-1": "no node that is connected runs it"}

    asyncio.run(run())


def test_a_flood_is_thinned_out_and_comes_back() -> None:
    share = WHOLE
    for _ in range(10):
        share = _fitting(share, 20_000 * share / WHOLE)
    assert 20_000 * share / WHOLE <= 2_000
    assert share >= 50_000
    for _ in range(20):
        share = _fitting(share, 10 * share / WHOLE)
    assert share == WHOLE


def test_names_of_a_workload() -> None:
    labels = (("app", "reviews"), ("version", "v1"))
    one = ProxyIdentity(name=ProxyName("sidecar", "10.0.0.1", "reviews-v1-0", "shop"), labels=labels)
    assert all(_is(one, name, None) for name in ("reviews", "reviews-v1", "reviews-v1-0"))
    assert not any(_is(one, name, None) for name in ("review", "reviews-v2", "reviews-v1-1", "shop"))
    assert _is(one, "anything", {"app": "reviews"})
    assert not _is(one, "reviews", {"app": "ratings"}), "a service goes by its selector alone"
