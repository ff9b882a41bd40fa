from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from weft.store.interface import Store
from weft.store.sqlite import SqliteStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with SqliteStore.open(tmp_path / "store") as opened:
        yield opened
