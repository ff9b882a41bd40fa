"""What is used by the second: by real processes of this test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.plane import eventually

from weft.node.metrics import usage
from weft.node.metrics.meter import Measured, Meter

SPIN = "while True: pass"
SLEEP = "import time; time.sleep(600)"


class Host:
    """Processes that run until the end, by the name of an instance."""

    def __init__(self) -> None:
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, instance: str, code: str) -> None:
        self.running[instance] = subprocess.Popen([sys.executable, "-c", code])

    def measure(self) -> Iterator[Measured]:
        for instance, process in self.running.items():
            if (used := usage.of_process(process.pid)) is not None:
                yield Measured(instance, "application", process.pid, used)


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    for process in made.running.values():
        process.kill()
        process.wait()


async def test_who_works_uses_cpu_and_who_sleeps_does_not(host: Host) -> None:
    host.start("shop/busy-0", SPIN)
    host.start("bank/idle-0", SLEEP)
    meter = Meter(host.measure)
    rows: dict[str, Any] = {}

    async def look() -> None:
        rows.update({row["instance"]: row for row in await meter.look()})

    async def told_apart() -> bool:
        await look()
        assert rows["shop/busy-0"]["seconds"] >= 0.5
        return bool(rows["bank/idle-0"]["cpu"] == 0 and 0 < rows["shop/busy-0"]["cpu"] < 1.5)

    await eventually(told_apart, 60)
    assert rows["bank/idle-0"]["memory"] > 100_000
    assert [row["instance"] for row in await meter.look("bank")] == ["bank/idle-0"]
    assert await meter.look("ban") == []

    # What has just begun has no rate yet; its memory is known.
    host.start("bank/late-0", SPIN)

    async def seen() -> bool:
        await look()
        return "bank/late-0" in rows

    await eventually(seen, 60)
    assert rows["bank/late-0"]["cpu"] is None
    assert rows["bank/late-0"]["processes"] == 1
