"""A task for each collector: it is told every so often; one that fails is left alone longer each time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from weft.grpc_tls import Certificates
from weft.telemetry.limits import Losses
from weft.telemetry.otlp import harmless
from weft.telemetry.push.bridge import Bridge, bridged
from weft.telemetry.push.pages import of_page, started
from weft.telemetry.push.plan import Collector, Page, Plan
from weft.telemetry.push.sender import PushError, Send, sending
from weft.telemetry.push.sums import Sums

_log = logging.getLogger(__name__)

_FIRST_PUSH_S: Final = 2.0
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0
_LONGEST_ASKED_S: Final = 600.0
_SAME_NS: Final = 2_000_000_000


@dataclass(slots=True)
class Standing:
    """How it goes with a collector. Points: ``sent``, ``lost`` (of rounds that failed) and ``rejected`` (by
    it). ``failures``: rounds that did not come to their end. ``told_ms``: when one did last.
    """

    collector: str
    endpoint: str = ""
    protocol: str = "grpc"
    sent: int = 0
    lost: int = 0
    rejected: int = 0
    failures: int = 0
    told_ms: int = 0
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As ``health`` answers."""
        return {
            "provider": self.collector,
            "endpoint": self.endpoint,
            "protocol": self.protocol,
            "up": bool(self.told_ms) and not self.error,
            "sent": self.sent,
            "lost": self.lost,
            "rejected": self.rejected,
            "failures": self.failures,
            "lastTold": self.told_ms,
            "error": self.error,
        }


class Pusher:
    """``directory``: where the sockets of bridges are."""

    def __init__(
        self, sums: Sums, losses: Losses, directory: Path, certificates: Callable[[], Certificates]
    ) -> None:
        self._sums = sums
        self._losses = losses
        self._directory = directory
        self._certificates = certificates
        self._pages: dict[str, Page] = {}
        self._began: dict[str, int] = {}
        self._standings: dict[str, Standing] = {}
        self._places = 0
        self._running: dict[str, tuple[Collector, float, asyncio.Task[None]]] = {}

    def standings(self) -> list[dict[str, Any]]:
        """Of all collectors, by name."""
        return [self._standings[name].to_dict() for name in sorted(self._standings)]

    def tell(self, plan: Plan) -> None:
        """From now on it goes by this plan: what did not change of it goes on."""
        self._sums.plan = plan
        wanted = {one.name: one for one in plan.collectors}
        for name, (known, interval_s, task) in list(self._running.items()):
            if wanted.get(name) != known or interval_s != plan.interval_s:
                task.cancel()
                del self._running[name]
                if name not in wanted:
                    del self._standings[name]
        for name, collector in wanted.items():
            if name in self._running:
                continue
            standing = self._standings.setdefault(name, Standing(name))
            standing.endpoint = collector.host
            standing.protocol = "grpc" if collector.path is None else "http"
            task = asyncio.create_task(self._serve(collector, plan.interval_s, standing))
            self._running[name] = collector, plan.interval_s, task
        self._sums.forget(time.time_ns())

    def hear(self, pages: dict[str, Page]) -> None:
        """What the control plane and nodes show now, by their names."""
        self._pages = pages
        self._began = {name: self._beginning(name, page) for name, page in pages.items()}

    def _beginning(self, name: str, page: Page) -> int:
        """Since when it counts, or is known. What clocks say of a process differs from time to time."""
        now_ns = time.time_ns()
        said, known = min(started(page), now_ns), self._began.get(name, now_ns)
        return known if not said or abs(said - known) < _SAME_NS else said

    async def close(self) -> None:
        """Once more to all, as long as they answer at once; then no more."""
        tasks = [task for _, _, task in self._running.values()]
        self._running.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, collector: Collector, interval_s: float, standing: Standing) -> None:
        if collector.problem:
            standing.error = collector.problem
            return
        self._places += 1
        place = self._directory / f"push-{self._places}.sock"
        try:
            async with (
                bridged(place, collector, self._certificates) as bridge,
                sending(collector, place) as send,
            ):
                await self._keep(collector.name, interval_s, standing, bridge, send)
        except OSError as error:
            standing.error = f"no way to it can be made: {error}"
            _log.warning("metrics do not go to %s: %s", collector.name, standing.error)

    async def _keep(
        self, name: str, interval_s: float, standing: Standing, bridge: Bridge, send: Send
    ) -> None:
        pause, next_s = _FIRST_PAUSE_S, time.monotonic() + min(interval_s, _FIRST_PUSH_S)
        while True:
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))
            began = time.monotonic()
            try:
                await self._round(name, standing, send)
            except PushError as error:
                said = harmless(bridge.error or error.message)
                if said != standing.error:
                    _log.warning("metrics do not go to %s: %s; they will when it is well again", name, said)
                standing.failures += 1
                standing.error = said
                next_s = began + max(pause, min(error.after_s, _LONGEST_ASKED_S))
                pause = min(2 * pause, max(_LONGEST_PAUSE_S, interval_s))
            else:
                if standing.error:
                    _log.info("metrics go to %s again", name)
                standing.error, standing.told_ms = "", time.time_ns() // 1_000_000
                pause, next_s = _FIRST_PAUSE_S, max(began + interval_s, time.monotonic())

    async def _round(self, name: str, standing: Standing, send: Send) -> None:
        """Tell a collector everything, as it is now.

        Raises:
            PushError: it did not take it all.
        """
        told = 0
        try:
            for message, points in self._messages(name):
                refused, why = await send(message)
                told += points
                standing.sent += points - min(refused, points)
                if refused:
                    standing.rejected += refused
                    self._losses.push_rejected_points += refused
                    _log.warning("%s refused %d points of metrics: %s", name, refused, harmless(why))
        except PushError:
            left = max(0, self._sums.points(name) - told)
            standing.lost += left
            self._losses.push_lost_points += left
            raise

    def _messages(self, name: str) -> Iterator[tuple[bytes, int]]:
        now_ns = time.time_ns()
        yield from self._sums.messages(name, now_ns)
        for known, page in list(self._pages.items()):
            yield from of_page(page, self._began.get(known, now_ns), now_ns)

    async def keep(self) -> None:
        """Let go of what is idle, for ever."""
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await asyncio.sleep(30)
                self._sums.forget(time.time_ns())
