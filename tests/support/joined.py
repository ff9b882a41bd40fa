"""A node that has joined a control plane, and the instances that it registers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.plane import Plane
from weft.model.resource import Key
from weft.node.enrolment import Membership, join
from weft.node.session import Session

CAPTURED = {"capture": "redirect", "labels": {"app": "web"}, "ports": {"http": 8080}}
ENTRY = "networking.istio.io/WorkloadEntry"


async def joined(control: Plane, state: Path, name: str = "host1", **options: Any) -> Membership:
    state.mkdir(parents=True, exist_ok=True)
    token = await control.token(**options)
    return await join(control.url, token, name, ["192.0.2.1"], state)


@asynccontextmanager
async def session(membership: Membership, state: Path, *, connect: bool = True) -> AsyncIterator[Session]:
    opened = Session(membership, state)
    running = asyncio.create_task(opened.run())
    try:
        if connect:
            assert await opened.wait_connected(10), opened.error
        yield opened
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await opened.close()


def instance(name: str = "web-0", **fields: Any) -> dict[str, Any]:
    about = {"namespace": "shop", "name": name, "serviceAccount": "web", "address": "192.0.2.7"}
    return {
        **about,
        "id": f"shop/{name}",
        "labels": {"app": "web"},
        "ports": {"http": 8080},
        **CAPTURED,
        **fields,
    }


async def entry(control: Plane, name: str = "web-0") -> dict[str, Any] | None:
    stored = await control.store.get(Key(ENTRY, "shop", name))
    return json.loads(stored.body) if stored else None


def healthy(body: dict[str, Any] | None) -> str | None:
    return body["status"]["conditions"][0]["status"] if body else None
