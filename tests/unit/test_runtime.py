"""Signals, readiness, drain."""

from __future__ import annotations

import asyncio
import os
import signal

from weft.runtime import Readiness, drain, stop_on_signals


async def test_the_first_signal_stops_and_the_next_is_passed_on() -> None:
    again = asyncio.Event()
    before = signal.getsignal(signal.SIGTERM)
    async with stop_on_signals(on_again=again.set) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            await stop.wait()
        assert not again.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        async with asyncio.timeout(5):
            await again.wait()
    assert signal.getsignal(signal.SIGTERM) == before


async def test_ready_is_when_every_guard_was_called() -> None:
    readiness = Readiness()
    store, streams = readiness.guard("store"), readiness.guard("streams")
    waiting = asyncio.create_task(readiness.wait())
    store()
    store()
    await asyncio.sleep(0)
    assert readiness.waiting_for == ("streams",)
    assert not waiting.done()
    streams()
    await waiting
    with readiness.unready("drain"):
        assert list(readiness.waiting_for) == ["drain"]
    assert not readiness.waiting_for


async def test_a_drain_ends_at_its_deadline() -> None:
    assert await drain(asyncio.sleep(0), 5)
    ended: list[str] = []

    async def stuck() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    assert not await drain(stuck(), 0.01)
    assert ended == ["cancelled"]
