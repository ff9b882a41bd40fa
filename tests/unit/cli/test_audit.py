"""``weft audit`` finds the log of the mesh that runs here, however it was started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from weft.cli.audit import audit


def write(directory: Path, actor: str) -> None:
    directory.mkdir(parents=True)
    line = {"seq": 1, "time": "2026-01-02T03:04:05Z", "event": "change", "actor": actor}
    (directory / "audit.log").write_text(json.dumps(line) + "\n")


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(audit, arguments)
    return result.output if result.exit_code == 0 else str(result.exception)


def test_the_log_of_a_mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("os.getuid", lambda: tmp_path.stat().st_uid or 12345)
    assert "there is no audit log here" in shown("--mesh", "m")
    write(tmp_path / "state" / "weft" / "m", "of a control plane")
    assert "of a control plane" in shown("--mesh", "m")
    write(tmp_path / "run" / "m" / "control-plane", "of weft up")
    assert "of weft up" in shown("--mesh", "m"), "what runs comes first"
    # Where anybody may make directories, somebody else's is no log of ours.
    monkeypatch.setattr("os.getuid", lambda: 12346)
    if tmp_path.stat().st_uid:
        assert "of a control plane" in shown("--mesh", "m")
