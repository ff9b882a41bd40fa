"""Every input that was ever worth keeping, and a minute of new ones, divided among the targets."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
SECONDS = -(-60 // len(TARGETS))
# The engine is made for some platforms only; elsewhere there is the corpus.
GUIDED = list(TARGETS) if importlib.util.find_spec("atheris") else []
FINDINGS = ("crash-", "timeout-", "oom-", "slow-")


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_finds_nothing(target: str) -> None:
    inputs = sorted((CORPUS / target).iterdir())
    assert inputs
    for path in inputs:
        TARGETS[target](path.read_bytes())


@pytest.mark.parametrize("target", GUIDED)
def test_new_inputs_find_nothing(target: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", target, "--seconds", str(SECONDS), "--output"]
    done = subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name.startswith(FINDINGS)}
    assert (done.returncode, found) == (0, {}), done.stderr[-4000:]
    assert "stat::number_of_executed_units" in done.stderr
