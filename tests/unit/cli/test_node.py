"""Who ``weft node`` is when it starts: as it joined, with what the command line says now."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support.plane import Plane, eventually, plane

from weft.cli.node import membership
from weft.errors import UsageError, WeftError
from weft.node.app import NodeOptions
from weft.node.enrolment import Membership
from weft.node.layout import Layout

OPTIONS = NodeOptions(name="host1", advertise="192.0.2.1", adopt=True)


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Plane]:
    async with plane(tmp_path / "control") as running:
        yield running


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    for name in ("run", "state"):
        (tmp_path / name).mkdir()
    return Layout("test", tmp_path / "run", tmp_path / "state")


async def start(
    layout: Layout, server: str | None = None, token: str | None = None, name: str | None = None
) -> Membership:
    options = replace(OPTIONS, name=name or OPTIONS.name)
    return await membership(layout, options, server, token, named=name is not None)


async def test_it_joins_once_and_may_be_sent_elsewhere(control: Plane, layout: Layout) -> None:
    with pytest.raises(UsageError, match="--join is missing"):
        await start(layout, control.url)
    first = await start(layout, control.url, await control.token())
    assert await start(layout) == first
    moved = await start(layout, "10.0.0.9")
    assert (moved.api, moved.credential) == ("https://10.0.0.9:15017", first.credential)


async def test_another_name_is_refused_with_the_one_it_has(control: Plane, layout: Layout) -> None:
    await start(layout, control.url, await control.token())
    with pytest.raises(UsageError, match="joined the mesh as node 'host1', not as 'host2'"):
        await start(layout, name="host2")
    assert (await start(layout, name="host1")).node == "host1"


async def test_an_expired_node_starts_and_says_so(
    tmp_path: Path, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    async with plane(tmp_path / "control", node_lifetime=timedelta(seconds=3)) as control:
        old = await start(layout, control.url, await control.token())
        await eventually(lambda: datetime.now(UTC) > old.credential.not_after, what="the expiry")
        assert await start(layout) == old
        assert "goes on" in capsys.readouterr().err
        assert await start(layout, token="weft1.no.such.token") == old
        assert "goes on" in capsys.readouterr().err
        again = await start(layout, token=await control.token(node="host1"))
        assert again.credential.not_after > old.credential.not_after
        assert capsys.readouterr().err == ""


async def test_a_node_that_cannot_join_elsewhere_stops(control: Plane, layout: Layout) -> None:
    await start(layout, control.url, await control.token())
    with pytest.raises(WeftError):
        await start(layout, "https://127.0.0.1:9", await control.token())
