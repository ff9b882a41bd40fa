"""Private files: what others could read is closed or refused, what is another's is not used."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from pathlib import Path

import pytest

from weft.control.app import control_plane
from weft.control.options import ControlOptions
from weft.errors import WeftError
from weft.private import check_readable_by_owner_only, check_way, secure

root = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_what_is_open_to_others_is_closed_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "state"
    (directory / "control").mkdir(parents=True)
    (directory / "control" / "store.db").touch()
    (directory / "fine").touch()
    for path, open_ in ((directory, 0o755), (directory / "control" / "store.db", 0o644)):
        path.chmod(open_)
    (directory / "control").chmod(0o700)
    (directory / "fine").chmod(0o600)
    with caplog.at_level(logging.WARNING):
        secure(directory)
    assert mode(directory) == 0o700
    assert mode(directory / "control" / "store.db") == 0o600
    assert "store.db could be read by others" in caplog.text
    assert "fine" not in caplog.text
    caplog.clear()
    secure(directory)
    assert not caplog.records


def test_a_key_that_others_could_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.key").touch()
    (tmp_path / "store.key").chmod(0o640)
    with pytest.raises(WeftError, match="no secret any more") as refused:
        secure(tmp_path)
    assert "replace the key" in refused.value.hint
    assert mode(tmp_path / "store.key") == 0o640


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.touch()
    outside.chmod(0o644)
    state = tmp_path / "state"
    state.mkdir(0o700)
    (state / "link").symlink_to(outside)
    secure(state)
    assert mode(outside) == 0o644


def test_what_is_not_there_yet_is_fine(tmp_path: Path) -> None:
    secure(tmp_path / "later")
    check_readable_by_owner_only(tmp_path / "later")


def test_nobody_may_put_another_directory_in_its_place(tmp_path: Path) -> None:
    open_ = tmp_path / "open"
    (open_ / "state").mkdir(parents=True)
    open_.chmod(0o777)
    with pytest.raises(WeftError, match="anybody can write"):
        check_way(open_ / "state")
    open_.chmod(0o1777)
    check_way(open_ / "state")


@pytest.mark.root
@root
@pytest.mark.parametrize("whose", ["the directory", "a file in it", "the one above"])
def test_what_belongs_to_somebody_else_is_not_used(tmp_path: Path, whose: str) -> None:
    state = tmp_path / "above" / "state"
    state.mkdir(parents=True)
    (state / "file").touch()
    path = {"the directory": state, "a file in it": state / "file", "the one above": state.parent}[whose]
    os.chown(path, 4242, 4242)
    with pytest.raises(WeftError, match="belongs to uid 4242"):
        secure(state)
    if whose == "a file in it":
        secure(state, also=frozenset({4242}))


async def test_all_that_a_control_plane_makes_is_its_own(tmp_path: Path) -> None:
    """Even where the umask would let everybody read everything."""
    before = os.umask(0)
    try:
        options = ControlOptions(
            runtime=tmp_path / "run", state=tmp_path / "state", listen="127.0.0.1", xds_port=0,
            api_port=0, monitoring_port=0, telemetry_port=0,
        )  # fmt: skip
        stop = asyncio.Event()
        async with control_plane(options, stop) as listening:
            found = [path for top in (options.runtime, options.state) for path in (top, *top.rglob("*"))]
            names = {path.name for path in found}
            assert {"store.db", "store.db-wal", "store.key", "audit.log", "api.sock", "kubeconfig"} <= names
            wide = {str(path): oct(mode(path)) for path in found if mode(path) & 0o077}
            assert not wide
            assert listening.kubeconfig in found
            stop.set()
    finally:
        os.umask(before)
