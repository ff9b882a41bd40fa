"""Processes that weft starts run its own code, whatever lies in the folder that it is started in."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from weft.app.up import command_of
from weft.node.run_node import node_command


@pytest.mark.parametrize("argv", [command_of("control-plane"), node_command("m")], ids=["up", "run"])
def test_modules_in_the_folder_are_not_taken(argv: list[str], tmp_path: Path) -> None:
    for name in ("weft", "click", "json", "jwt"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(9)\n")
    done = subprocess.run([*argv, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "Usage" in done.stdout) == (0, True), done.stderr
