from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

import pytest

from weft.client import Server, locate
from weft.errors import UsageError, WeftError


def test_a_socket_that_is_given(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    path.touch()
    for text in (str(path), f"unix://{path}", str(tmp_path)):
        assert locate(text, environ={}) == Server(socket_path=path)
    assert locate(None, environ={"WEFT_SERVER": str(path)}) == Server(socket_path=path)


def test_a_url_with_its_credentials() -> None:
    environ = {"WEFT_CA_FILE": "/ca.pem", "WEFT_CERT_FILE": "/c.pem", "WEFT_KEY_FILE": "/k.pem"}
    server = locate("https://mesh:15017/", environ=environ)
    assert server.url == "https://mesh:15017"
    assert server.ca_file == Path("/ca.pem")
    assert server.key_file == Path("/k.pem")


def test_plain_http_is_refused() -> None:
    with pytest.raises(UsageError, match="not encrypted"):
        locate("http://mesh:15017", environ={})


def test_the_mesh_that_runs_here(tmp_path: Path) -> None:
    mesh = tmp_path / "weft" / "default"
    mesh.mkdir(parents=True)
    (mesh / "api.sock").touch()
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert locate(None, environ=environ, uid=1000).socket_path == mesh / "api.sock"
    assert locate(None, environ={"WEFT_RUNTIME_DIR": str(mesh)}).socket_path == mesh / "api.sock"


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_a_socket_that_another_user_put_there_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module("weft.client.locate")
    monkeypatch.setattr(module, "runtime_directories", lambda environ, uid: (tmp_path / "weft",))
    mesh = tmp_path / "weft" / "default"
    mesh.mkdir(parents=True)
    (mesh / "api.sock").touch()
    os.chown(mesh / "api.sock", 4242, 4242)
    with pytest.raises(WeftError, match="no control plane runs here"):
        locate(None, environ={}, uid=4243)


def test_several_meshes_ask_for_a_choice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "api.sock").touch()
    with pytest.raises(UsageError, match="several meshes run here: a, b") as refused:
        locate(None, environ={"WEFT_RUNTIME_DIR": str(tmp_path)})
    assert "--server" in refused.value.hint


def test_no_mesh_says_where_it_looked_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeftError) as refused:
        locate(None, environ={"WEFT_RUNTIME_DIR": str(tmp_path)})
    assert str(tmp_path) in refused.value.message
    assert "weft up" in refused.value.hint
    with pytest.raises(WeftError, match="no control plane listens"):
        locate(str(tmp_path / "nothing"), environ={})
