from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from weft.errors import WeftError
from weft.node import logfile
from weft.node.layout import Layout, read_json, write_atomic
from weft.node.process import LaunchError, Plan, launch


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout("m", tmp_path / "run" / "m", tmp_path / "state" / "m")


def test_roots_directories_and_a_users() -> None:
    root = Layout.of("m", uid=0)
    assert (root.runtime, root.state) == (Path("/run/weft/m"), Path("/var/lib/weft/m"))
    user = Layout.of("m", uid=1000, environ={"XDG_RUNTIME_DIR": "/run/user/1000", "HOME": "/home/u"})
    assert user.node_socket == Path("/run/user/1000/weft/m/node.sock")
    assert user.state == Path("/home/u/.local/state/weft/m")
    bare = Layout.of("m", uid=1000, environ={"HOME": "/home/u"})
    assert bare.runtime == Path(tempfile.gettempdir()) / "weft-1000" / "m"


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", "a" * 33, "-a"])
def test_a_name_that_would_leave_the_directory_is_refused(name: str) -> None:
    with pytest.raises(WeftError, match="not a name for a mesh"):
        Layout.of(name)


def test_secrets_are_closed_to_others(layout: Layout) -> None:
    layout.prepare()
    paths = layout.make_workload("shop", "web")
    assert stat.S_IMODE(paths.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(layout.state.stat().st_mode) == 0o700
    write_atomic(paths.secrets, b"{}")
    assert stat.S_IMODE(paths.secrets.stat().st_mode) == 0o600


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_somebody_elses_directory_is_never_used(layout: Layout) -> None:
    layout.runtime.mkdir(parents=True)
    os.chown(layout.runtime, 4242, 4242)
    with pytest.raises(WeftError, match="belongs to uid 4242"):
        layout.prepare()


def test_a_link_in_place_of_a_directory_is_never_followed(layout: Layout, tmp_path: Path) -> None:
    layout.runtime.parent.mkdir()
    layout.runtime.symlink_to(tmp_path)
    with pytest.raises(WeftError):
        layout.prepare()


def test_a_long_name_still_has_a_socket_that_fits(layout: Layout) -> None:
    paths = layout.workload("n" * 60, "w" * 60)
    assert len(os.fsencode(paths.admin_socket.relative_to(layout.runtime))) < 40


def test_records_are_read_back_and_torn_ones_skipped(layout: Layout) -> None:
    layout.prepare()
    layout.write_record("netns", "a.b", {"link": "x"})
    layout.write_record("rules", "host", {})
    (layout.records / "netns.torn.json").write_text('{"link"')
    assert list(layout.read_records("netns")) == [("a.b", {"link": "x"})]
    layout.drop_record("netns", "a.b")
    assert layout.read_record("netns", "a.b") is None


def test_removal_leaves_what_others_keep_in_the_directory(layout: Layout) -> None:
    layout.prepare()
    layout.make_workload("shop", "web")
    other = layout.runtime / "api.sock"
    other.touch()
    layout.remove_runtime()
    assert list(layout.runtime.iterdir()) == [other]
    other.unlink()
    layout.remove_runtime()
    assert not layout.runtime.parent.exists()


def test_a_failed_write_leaves_the_old_content(layout: Layout) -> None:
    layout.prepare()
    target = layout.runtime / "directory"
    target.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomic(target, b"x")
    assert [path for path in layout.runtime.iterdir() if path.name.startswith(".")] == []


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


def test_the_tail_of_a_log(log: Path) -> None:
    assert logfile.tail(log, 3) == []
    log.write_text("".join(f"line {number}\n" for number in range(50_000)))
    assert logfile.tail(log, 2) == ["line 49998", "line 49999"]
    assert logfile.tail(log, 0) == []


def test_a_log_that_is_cut_goes_on_in_the_same_file(log: Path) -> None:
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 100 + b"\n")
        assert not logfile.bound(log, 1000)
        assert logfile.bound(log, 100)
        writer.write(b"after\n")
    assert log.read_bytes() == b"after\n"
    assert (log.parent / "app.log.1").read_bytes() == b"x" * 100 + b"\n"


async def test_following_sees_new_lines_and_survives_a_cut(log: Path) -> None:
    log.write_text("old\n")
    lines = logfile.follow(log, 1)
    assert await anext(lines) == "old"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"half")
        writer.write(b" a line\nnext\n")
        assert [await anext(lines), await anext(lines)] == ["half a line", "next"]
        os.truncate(log, 0)
        writer.write(b"new\n")
        assert await anext(lines) == "new"


@pytest.mark.parametrize("trap", ["link", "hard link", "pipe"])
async def test_a_trap_in_a_proxys_directory_leads_root_nowhere(log: Path, tmp_path: Path, trap: str) -> None:
    """A proxy that was taken over owns its directory; root writes, cuts and reads logs there."""
    treasure = tmp_path / "treasure"
    treasure.write_text("root's own\n" * 100)
    match trap:
        case "link":
            log.symlink_to(treasure)
        case "hard link":
            log.hardlink_to(treasure)
        case "pipe":
            os.mkfifo(log)
    assert not logfile.bound(log, 10)
    assert logfile.tail(log, 3) == []
    with pytest.raises(LaunchError, match="cannot execute"):
        await launch(Plan(argv=("true",), env={"PATH": "/usr/bin:/bin"}, log=log))
    assert treasure.read_text() == "root's own\n" * 100


def test_a_trap_where_a_log_is_kept_is_replaced(log: Path, tmp_path: Path) -> None:
    treasure = tmp_path / "treasure"
    treasure.write_text("mine")
    log.write_text("x" * 100)
    (tmp_path / "app.log.1").symlink_to(treasure)
    assert logfile.bound(log, 10)
    assert (treasure.read_text(), (tmp_path / "app.log.1").read_text()) == ("mine", "x" * 100)


def test_a_pipe_in_the_way_of_a_file_holds_nobody_up(tmp_path: Path) -> None:
    target = tmp_path / "sds.json"
    os.mkfifo(tmp_path / f".sds.json.{os.getpid()}.tmp")
    write_atomic(target, b"{}")
    assert target.read_bytes() == b"{}"


def test_only_what_we_wrote_is_believed(tmp_path: Path) -> None:
    note, link, pipe = tmp_path / "envoy.pid", tmp_path / "link", tmp_path / "pipe"
    write_atomic(note, b'{"pid": 1}')
    assert read_json(note) == {"pid": 1}
    link.symlink_to(note)
    os.mkfifo(pipe)
    assert read_json(link) is None
    assert read_json(pipe) is None


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_a_note_that_the_proxy_wrote_is_not_believed(tmp_path: Path) -> None:
    note = tmp_path / "envoy.pid"
    write_atomic(note, b'{"pid": 1}', owner=4242)
    assert read_json(note) is None
    assert read_json(note, owner=4242) == {"pid": 1}
