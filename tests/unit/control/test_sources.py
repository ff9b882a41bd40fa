from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from weft.control.api.apply import Applier, Item
from weft.control.api.objects import Objects
from weft.control.api.writes import Options
from weft.control.sources import Directory, Synced, follow
from weft.errors import WeftError
from weft.model.resource import Key


def config(name: str, value: str = "1", namespace: str = "default") -> str:
    return (
        f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: {namespace}\n"
        f"data:\n  key: '{value}'\n"
    )


def key(name: str, namespace: str = "default") -> Key:
    return Key("/ConfigMap", namespace, name)


async def value_of(objects: Objects, name: str) -> str | None:
    stored = await objects.store.get(key(name))
    return None if stored is None else json.loads(stored.body)["data"]["key"]


async def synced(directory: Directory) -> Synced:
    done = await directory.sync()
    assert done is not None
    return done


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    directory = tmp_path / "mesh"
    directory.mkdir()
    return directory


async def test_files_become_objects_with_an_owner_and_a_place(objects: Objects, mesh: Path) -> None:
    (mesh / "deeper").mkdir()
    (mesh / "deeper" / "a.yaml").write_text("# a comment\n" + config("a"))
    (mesh / ".hidden.yaml").write_text(config("hidden"))
    assert (await synced(Directory(objects, mesh))).problems == ()
    stored = await objects.store.get(key("a"))
    assert stored is not None
    assert stored.owner == f"files:{mesh}"
    assert stored.source == f"{mesh}/deeper/a.yaml:2:1"
    assert await objects.store.get(key("hidden")) is None


async def test_nothing_happens_when_nothing_changed(objects: Objects, mesh: Path) -> None:
    (mesh / "a.yaml").write_text(config("a"))
    directory = Directory(objects, mesh)
    await synced(directory)
    revision = objects.store.revision
    assert await directory.sync() is None
    (mesh / "a.yaml").write_text("# only the line changes\n" + config("a"))
    assert (await synced(directory)).changed == 0
    assert objects.store.revision == revision
    stored = await objects.store.get(key("a"))
    assert stored is not None
    assert stored.source.endswith("a.yaml:2:1")


async def test_a_broken_file_keeps_its_last_good_state(objects: Objects, mesh: Path) -> None:
    (mesh / "a.yaml").write_text(config("a"))
    (mesh / "b.yaml").write_text(config("b"))
    directory = Directory(objects, mesh)
    await synced(directory)
    (mesh / "a.yaml").write_text(config("a").replace("data:", "daata:"))
    (mesh / "b.yaml").write_text(config("b", "2"))
    done = await synced(directory)
    assert done.kept == (f"{mesh}/a.yaml",)
    assert any("daata" in str(problem) and f"{mesh}/a.yaml:6:1" in str(problem) for problem in done.problems)
    assert (await value_of(objects, "a"), await value_of(objects, "b")) == ("1", "2")
    (mesh / "a.yaml").write_text(config("a", "3"))
    assert (await synced(directory)).kept == ()
    assert await value_of(objects, "a") == "3"


async def test_files_are_read_as_everywhere(objects: Objects, mesh: Path) -> None:
    (mesh / "utf-16.yaml").write_bytes(config("a", "ü").encode("utf-16"))
    (mesh / "latin-1.yaml").write_bytes(config("b", "ü").encode("latin-1"))
    done = await synced(Directory(objects, mesh))
    assert await value_of(objects, "a") == "ü"
    assert done.kept == (f"{mesh}/latin-1.yaml",)
    (problem,) = done.problems
    assert f"{mesh}/latin-1.yaml:7:9" in str(problem)


async def test_a_workload_counts_from_the_folder_of_its_file(objects: Objects, mesh: Path) -> None:
    (mesh / "a.yaml").write_text(
        "apiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {name: web}\n"
        "spec: {command: [./serve], workingDir: web}\n"
    )
    await synced(Directory(objects, mesh))
    stored = await objects.store.get(Key("weft.dev/Workload", "default", "web"))
    assert stored is not None
    spec = json.loads(stored.body)["spec"]
    assert spec == {"command": [f"{mesh}/web/serve"], "workingDir": f"{mesh}/web"}


async def test_a_file_that_is_broken_from_the_start_prunes_nothing(objects: Objects, mesh: Path) -> None:
    (mesh / "a.yaml").write_text(config("a"))
    await synced(Directory(objects, mesh))
    (mesh / "a.yaml").write_text("a: [")
    after_restart = Directory(objects, mesh)
    assert (await synced(after_restart)).kept == (f"{mesh}/a.yaml",)
    assert await value_of(objects, "a") == "1"


async def test_what_no_file_names_is_pruned_but_only_what_it_owns(objects: Objects, mesh: Path) -> None:
    await apply(objects, "by-hand")
    (mesh / "a.yaml").write_text(config("a") + "---\n" + config("b"))
    directory = Directory(objects, mesh)
    await synced(directory)
    (mesh / "a.yaml").write_text(config("b"))
    await synced(directory)
    assert await objects.store.get(key("a")) is None
    (mesh / "a.yaml").unlink()
    await synced(directory)
    assert await objects.store.get(key("b")) is None
    assert await objects.store.get(key("by-hand")) is not None


async def apply(objects: Objects, name: str, value: str = "0", *, force: bool = False) -> None:
    async def at_once(_: int, __: float) -> dict[str, Any]:
        return {}

    wire = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": value}}
    applied = await Applier(objects, at_once).apply([Item(wire=wire)], Options(force=force))
    assert not applied.refused, applied.found


async def test_what_others_made_is_left_alone_and_said(objects: Objects, mesh: Path) -> None:
    await apply(objects, "a", "theirs")
    (mesh / "a.yaml").write_text(config("a", "ours") + "---\n" + config("b"))
    done = await synced(Directory(objects, mesh))
    (problem,) = done.problems
    assert "left alone" in problem.message
    assert str(problem).startswith(f"{mesh}/a.yaml:")
    assert await value_of(objects, "a") == "theirs"
    assert await value_of(objects, "b") == "1"


async def test_two_directories_do_not_take_from_each_other(objects: Objects, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for directory, value in ((first, "1"), (second, "2")):
        directory.mkdir()
        (directory / "a.yaml").write_text(config("a", value))
    assert (await synced(Directory(objects, first))).problems == ()
    (problem,) = (await synced(Directory(objects, second))).problems
    assert f"files:{first}" in problem.message
    assert await value_of(objects, "a") == "1"


async def test_detached_objects_stay_detached(objects: Objects, mesh: Path) -> None:
    (mesh / "a.yaml").write_text(config("a"))
    directory = Directory(objects, mesh)
    await synced(directory)
    await apply(objects, "a", "theirs", force=True)
    (mesh / "a.yaml").write_text(config("a", "2"))
    await synced(directory)
    assert await value_of(objects, "a") == "theirs"
    (mesh / "a.yaml").unlink()
    await synced(directory)
    assert await value_of(objects, "a") == "theirs"


async def test_follow_applies_changes_until_it_is_stopped(objects: Objects, mesh: Path) -> None:
    (mesh / "a.yaml").write_text(config("a"))
    stop, reports = asyncio.Event(), asyncio.Queue[Synced]()
    following = asyncio.create_task(follow(objects, mesh, stop=stop, report=reports.put_nowait))
    async with asyncio.timeout(10):
        assert (await reports.get()).changed == 1
        (mesh / "b.yaml").write_text(config("b"))
        assert (await reports.get()).changed == 1
        stop.set()
        await following
    assert await value_of(objects, "b") == "1"


async def test_a_directory_that_is_none(objects: Objects, tmp_path: Path) -> None:
    with pytest.raises(WeftError, match="not a directory"):
        await Directory(objects, tmp_path / "nowhere").sync()
