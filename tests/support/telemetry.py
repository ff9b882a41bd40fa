"""A real telemetry process for tests, held by a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.certificates import TestAuthority
from tests.support.envoy import wait_until
from weft.control.metrics import Metrics
from weft.control.telemetry import TelemetryProcess
from weft.grpc_tls import Certificates
from weft.telemetry.inquiry import TelemetryError, ask
from weft.telemetry.limits import USUAL, Room
from weft.telemetry.push.plan import NOTHING, Plan

SERVER = "control.test"
_SECONDS = 60.0


class Telemetry:
    """Asks and disturbs the process. ``port``: where proxies send; ``revoked``: serial numbers, to add to."""

    def __init__(
        self,
        process: TelemetryProcess,
        socket: Path,
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
        shown: list[Certificates],
        revoked: list[str],
    ) -> None:
        self._shown = shown
        self.revoked = revoked
        self._process = process
        self._socket = socket
        self._loop = loop
        self.metrics = metrics

    @property
    def port(self) -> int:
        return self._process.port

    @property
    def pid(self) -> int:
        """The process."""
        known = self._process.pid
        assert known is not None
        return known

    def ask(self, question: str, **parameters: str) -> dict[str, Any]:
        """An answer, as the API gives it.

        Raises:
            TelemetryError: the process does not answer so.
        """
        return asyncio.run_coroutine_threadsafe(ask(self._socket, question, parameters), self._loop).result(
            _SECONDS
        )

    def flows(self, **wanted: Any) -> list[dict[str, Any]]:
        """Flows that have these fields."""
        found = self.ask("flows")["flows"]
        return [flow for flow in found if all(flow[key] == value for key, value in wanted.items())]

    def count(self, **wanted: Any) -> int:
        """How many requests those are."""
        return sum(flow["count"] for flow in self.flows(**wanted))

    def wait_count(self, count: int, **wanted: Any) -> None:
        """Until there are so many, at least."""
        wait_until(lambda: self.count(**wanted) >= count, _SECONDS, f"{count} requests with {wanted}")

    def renew(self, authority: TestAuthority) -> None:
        """Have the process show a certificate of this authority, and believe nobody else's."""
        self._shown[0] = _certificates(authority)

    def kill(self) -> int:
        """End the process as no program expects; which one it was."""
        known = self.pid
        os.kill(known, signal.SIGKILL)
        return known

    def answers(self) -> bool:
        """Whether it can be asked now."""
        try:
            self.ask("health")
        except TelemetryError:
            return False
        return True


def _certificates(authority: TestAuthority) -> Certificates:
    pair = authority.issue(SERVER)
    return Certificates(pair.certificate.encode(), pair.key.encode(), authority.pem.encode())


@contextmanager
def running_telemetry(
    directory: Path,
    authority: TestAuthority,
    plan: Callable[[], Plan] = lambda: NOTHING,
    room: Room = USUAL,
) -> Iterator[Telemetry]:
    """The process, ready to be sent to; ended at the end. ``plan``: who is told of metrics."""
    shown, revoked = [_certificates(authority)], list[str]()
    loop = asyncio.new_event_loop()
    metrics = Metrics()
    ready, stop = threading.Event(), asyncio.Event()
    socket = directory / "telemetry.sock"
    process = TelemetryProcess(
        address="127.0.0.1",
        port=0,
        socket=socket,
        database=directory / "telemetry" / "telemetry.db",
        certificates=lambda: shown[0],
        trust_domain=lambda: "cluster.local",
        metrics=metrics,
        revoked=lambda: revoked,
        plan=plan,
        room=room,
    )

    async def run() -> None:
        running = asyncio.create_task(process.run())
        await process.placed()
        ready.set()
        await stop.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    try:
        assert ready.wait(_SECONDS), "the telemetry process does not start"
        yield Telemetry(process, socket, metrics, loop, shown, revoked)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(_SECONDS)
        loop.close()
