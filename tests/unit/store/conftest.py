from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from weft.store.interface import Store
from weft.store.sqlite import SqliteStore


@pytest.fixture(params=["sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    assert request.param == "sqlite"
    async with SqliteStore.open(tmp_path / "store") as opened:
        yield opened
