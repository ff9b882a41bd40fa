"""Which mesh and which command a person means."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from weft.cli import weft
from weft.cli.nodes import find_socket
from weft.errors import UsageError, WeftError


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where meshes may run, and nothing is said in the environment."""
    monkeypatch.setenv("WEFT_RUNTIME_DIR", str(tmp_path))
    for name in ("WEFT_SERVER", "WEFT_NODE_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def _node(runtime: Path, mesh: str) -> Path:
    socket = runtime / mesh / "node.sock"
    socket.parent.mkdir()
    socket.touch()
    return socket


def test_a_mesh_that_nobody_runs(runtime: Path) -> None:
    with pytest.raises(WeftError, match="no node runs for mesh 'other-mesh'") as refused:
        find_socket("other-mesh")
    assert "weft up" in refused.value.hint
    _node(runtime, "blue")
    _node(runtime, "green")
    with pytest.raises(WeftError) as refused:
        find_socket("other-mesh")
    assert refused.value.hint.startswith("these run here: blue, green; or start one: weft up")
    with pytest.raises(UsageError) as unclear:
        find_socket("default")
    assert unclear.value.hint == "these run here: blue, green; choose with --mesh"


def test_the_mesh_of_the_server(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blue, green = _node(runtime, "blue"), _node(runtime, "green")
    monkeypatch.setenv("WEFT_SERVER", str(green.with_name("api.sock")))
    assert find_socket("default") == green
    monkeypatch.setenv("WEFT_SERVER", f"unix://{blue.parent}")
    assert find_socket("default") == blue


@pytest.mark.parametrize("word", ["clusters", "ep", "routes", "s"])
def test_kinds_of_configuration_by_istioctls_words(word: str) -> None:
    done = CliRunner().invoke(weft, ["proxy", "config", word], standalone_mode=False)
    assert "say which proxy" in getattr(done.exception, "message", ""), done.exception


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("proxy-status", "here it is weft proxy status"),
        ("pc", "here it is weft proxy config"),
        ("aply", "did you mean 'apply'?"),
    ],
)
def test_a_command_of_another_name(typed: str, said: str) -> None:
    done = CliRunner().invoke(weft, [typed])
    assert done.exit_code == 2
    assert said in done.output
