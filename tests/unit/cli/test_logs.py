"""What ``weft logs`` prints of what a node answers; the node is played on a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from weft.analysis.response_flags import FLAGS
from weft.cli.logs import logs
from weft.errors import UsageError

LINES = (
    '{"response_code":200,"response_flags":"-"}',
    '{"response_code":503,"response_flags":"UF,URX"}',
    "[warning] something else",
)
WORDS = [f"{name}: {FLAGS[name].meaning}: {FLAGS[name].remedy}" for name in ("UF", "URX")]
EXPLAINED = [*LINES[:2], *(f"    {words}" for words in WORDS), LINES[2]]


async def printed(directory: Path, *options: str, terminal: bool = False) -> tuple[int, str]:
    """Exit code, and all that was printed, by a terminal or into a pipe."""

    async def node(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        for line in LINES:
            writer.write(json.dumps({"event": "log", "line": line}).encode() + b"\n")
        writer.write(b'{"event": "end"}\n')
        await writer.drain()
        writer.close()

    ours, its = pty.openpty() if terminal else os.pipe()
    environment = {**os.environ, "WEFT_NODE_SOCKET": str(directory / "node.sock"), "NO_COLOR": "1"}
    try:
        async with await asyncio.start_unix_server(node, directory / "node.sock"):
            command = (sys.executable, "-m", "weft", "logs", "web", *options)
            process = await asyncio.create_subprocess_exec(*command, stdout=its, stderr=its, env=environment)
            os.close(its)
            text = await asyncio.to_thread(_read, ours)
            return await process.wait(), text.replace("\r\n", "\n")
    finally:
        os.close(ours)


def _read(descriptor: int) -> str:
    found = b""
    try:
        while part := os.read(descriptor, 4096):
            found += part
    except OSError:
        pass  # how a terminal ends
    return found.decode()


@pytest.mark.parametrize(
    ("options", "terminal", "lines"),
    [
        (("--proxy",), False, list(LINES)),
        (("--proxy", "--explain-flags"), False, EXPLAINED),
        (("--proxy",), True, EXPLAINED),
        (("--proxy", "--no-explain-flags"), True, list(LINES)),
        ((), True, list(LINES)),
    ],
)
async def test_flags_in_words(
    tmp_path: Path, options: tuple[str, ...], terminal: bool, lines: list[str]
) -> None:
    code, text = await printed(tmp_path, *options, terminal=terminal)
    shown = text.replace("\x1b[33m", "").replace("\x1b[0m", "").splitlines()
    assert (code, shown) == (0, lines)


async def test_an_application_writes_no_flags(tmp_path: Path) -> None:
    code, text = await printed(tmp_path, "--explain-flags")
    assert code == 2
    assert "weft logs NAME --proxy --explain-flags" in text


def test_all_flags_in_words() -> None:
    done = CliRunner().invoke(logs, ["--explain-flags"])
    assert (done.exit_code, len(done.output.splitlines())) == (0, len(FLAGS))
    assert "UF     no connection to the server could be made: " in done.output
    nameless = CliRunner().invoke(logs, [])
    assert isinstance(nameless.exception, UsageError)
