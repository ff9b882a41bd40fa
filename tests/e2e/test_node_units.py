"""The unit files of the documentation are ones that systemd accepts."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "docs" / "how-to" / "systemd"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("name", [path.name for path in sorted(UNITS.glob("*.service"))])
def test_systemd_accepts_it(name: str, tmp_path: Path) -> None:
    program = tmp_path / "weft"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in UNITS.glob("*.service"):
        # Only where the program lies is changed: systemd looks for it.
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/weft/bin/weft", str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / name)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "notice"},
    )
    assert done.returncode == 0, done.stderr
    assert name not in done.stderr


def test_there_are_units_to_check() -> None:
    assert {path.stem for path in UNITS.glob("*.service")} == {"orders", "weft-control-plane", "weft-node"}
