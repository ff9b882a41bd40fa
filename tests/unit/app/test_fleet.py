"""What people are told when replicas start. The node is a Unix socket that says everything is ready."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from weft.app.fleet import Fleet
from weft.app.nodesocket import NodeSocket
from weft.app.replicas import Replica


async def started(directory: Path, kind: str, capture: str) -> list[str]:
    """What is said of two replicas of one kind and capture."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        why = {"covers": "much", "because": "as asked", "limits": ["little"]}
        ready = {"event": "ready", "capture": capture, **why}
        writer.write(json.dumps(ready).encode() + b"\n")
        writer.close()

    said: list[str] = []
    path = directory / "node.sock"
    async with await asyncio.start_unix_server(answer, str(path)):
        fleet = Fleet(NodeSocket(path), said.append)
        fleet.want({name: Replica(name, {"name": name, "kind": kind}, "1") for name in ("a", "b")})
        bringing = [task for task in asyncio.all_tasks() if task.get_name().startswith("replica ")]
        await asyncio.wait_for(asyncio.gather(*bringing), 10)
        assert fleet.settled
        await fleet.close()
    return said


@pytest.mark.parametrize("capture", ["seccomp", "none"])
async def test_a_capture_is_told_once_with_its_reason_and_its_limits(tmp_path: Path, capture: str) -> None:
    assert await started(tmp_path, "sidecar", capture) == [
        f"capture: {capture}. much",
        "  because: as asked",
        "  not covered: little",
    ]


async def test_a_gateway_captures_nothing_and_needs_no_word_of_it(tmp_path: Path) -> None:
    assert await started(tmp_path, "router", "none") == []
