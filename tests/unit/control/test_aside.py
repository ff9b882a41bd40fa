"""Large objects leave the event loop to others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.support.plane import eventually
from tests.unit.control.test_statuses import World

from weft.control.aside import aside, is_bulky
from weft.store.sqlite import SqliteStore

RULES = 5_000


def virtual_service(rules: int) -> dict[str, Any]:
    """A VirtualService with so many rules."""
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "big", "namespace": "shop"},
        "spec": {
            "hosts": ["web"],
            "http": [
                {"match": [{"uri": {"prefix": f"/{rule}"}}], "route": [{"destination": {"host": "web"}}]}
                for rule in range(rules)
            ],
        },
    }


def test_what_is_bulky() -> None:
    assert is_bulky(virtual_service(RULES))
    assert not is_bulky(virtual_service(3))
    assert not is_bulky({"data": {"one": "x" * 1_000_000}})


async def test_short_work_is_done_at_once() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    assert await aside(False, sum, (1, 2)) == 3
    assert turns == 0
    counting.cancel()


async def test_the_loop_gets_turns_while_a_large_object_is_taken_in(tmp_path: Path) -> None:
    """Counted, not timed: between the write and its publication the loop comes round many times."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    async with SqliteStore.open(tmp_path / "store") as store:
        world = World(store)
        await world.objects.start()
        async with world.running():
            service = {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "web", "namespace": "shop"},
                "spec": {"ports": [{"name": "http", "port": 80}]},
            }
            await world.apply(service)
            proxy = world.mesh.connect("web-0")
            await eventually(lambda: proxy.stream.revision >= 0)
            counting = asyncio.create_task(count())
            await asyncio.sleep(0)
            before = turns
            stored = await world.apply(virtual_service(RULES))
            written = turns - before
            await eventually(lambda: proxy.stream.revision >= stored.revision)
            counting.cancel()
    # At once it would be a handful: each of the checks, the parsing and the compilation in one piece.
    assert written >= 10
    assert turns - before - written >= 10
