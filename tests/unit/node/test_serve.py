"""The node's socket and those who may not, or do not, speak its words. Real sockets, real users."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weft.errors import UsageError
from weft.node import serve as module
from weft.node.app import Node
from weft.node.layout import Layout
from weft.node.serve import serve
from weft.node.spec import WorkloadSpec


class _Empty:
    """A node without workloads."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.workloads: dict[str, Any] = {}
        self.leaving = False

    def status(self) -> dict[str, Any]:
        return {"workloads": 0}


@pytest.fixture
async def path() -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="weft-t") as made:
        base = Path(made)
        base.chmod(0o711)
        layout = Layout("t", base / "run" / "t", base / "state" / "t")
        layout.prepare()
        async with serve(cast(Node, _Empty(layout))):
            yield layout.node_socket


async def told(path: Path, line: bytes) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(line + b"\n")
        async with asyncio.timeout(10):
            found: dict[str, Any] = json.loads(await reader.readline())
        return found
    finally:
        writer.close()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[" * 100_000,
        b"null",
        b"\xff\xfe",
        b'{"op":{}}',
        b'{"op":"join"}',
        b'{"op":"join","name":"../../etc"}',
        b'{"op":"join","name":"a","ports":{"http":99999}}',
        b'{"op":"join","name":"a","ports":[1]}',
        b'{"op":"join","name":"a","labels":5}',
        b'{"op":"join","name":"a","namespace":"b.c"}',
        b'{"op":"add","name":"a","concurrency":1000000}',
        b"x" * (2 << 20),
    ],
)
async def test_a_hostile_line_is_a_refusal(path: Path, line: bytes) -> None:
    answer = await told(path, line)
    assert answer["event"] == "error"
    assert answer["exitCode"] == 2, answer
    assert (await told(path, b'{"op":"status"}'))["event"] == "status"


@settings(
    max_examples=100, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(
    st.fixed_dictionaries(
        {"name": st.text(max_size=5) | st.none()},
        optional={
            field: st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
            for field in ("namespace", "labels", "ports", "kind", "portMap", "concurrency", "capture")
        },
    )
)
def test_a_spec_is_read_or_refused(record: dict[str, Any]) -> None:
    try:
        spec = WorkloadSpec.from_record(record)
    except UsageError:
        return
    assert "/" not in spec.name + spec.namespace


_MANY = """
import os, socket, sys
os.setresuid(4242, 4242, 4242)
held = []
for _ in range(int(sys.argv[2])):
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(10)
    one.connect(sys.argv[1])
    held.append(one)
print(sum(one.recv(1) == b"" for one in held[-2:]), flush=True)
sys.stdin.read()
"""


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
async def test_a_user_that_connects_without_end_keeps_nobody_else_out(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CONNECTIONS_MAX", 5)
    greedy = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _MANY, str(path), "7"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert greedy.stdin is not None
    assert greedy.stdout is not None
    async with asyncio.timeout(20):
        assert (await greedy.stdout.readline()).strip() == b"2"  # those beyond its share are closed
        assert (await told(path, b'{"op":"status"}'))["event"] == "status"
        greedy.stdin.close()
        assert await greedy.wait() == 0
