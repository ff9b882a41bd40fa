"""Sums over a window are the same whether they are added up anew or moved along with the time."""

from __future__ import annotations

import random
from pathlib import Path

import apsw
import pytest

from weft.telemetry.limits import Limits
from weft.telemetry.rollups import MINUTE_MS, SCHEMA, STEPS_MINUTES, Growth, Rollups
from weft.telemetry.rows import REQUESTS, Row, column, one
from weft.telemetry.series import SeriesKey

NOW = 1_800_000_000_000 // MINUTE_MS


@pytest.fixture
def database(tmp_path: Path) -> apsw.Connection:
    database = apsw.Connection(str(tmp_path / "t.db"))
    database.execute(SCHEMA)
    return database


def _key(number: int) -> SeriesKey:
    return SeriesKey("destination", "workload", "shop", f"w{number}", "", "", f"p{number}")


def _sums(rollups: Rollups, minutes: int, since: int) -> dict[SeriesKey, Row]:
    return dict(rollups.sums(minutes, since))


@pytest.mark.parametrize("seed", range(4))
def test_a_window_that_moves_on_is_added_up_right(database: apsw.Connection, seed: int) -> None:
    chance = random.Random(seed)
    rollups, now = Rollups(database, Limits(series=50)), NOW
    for _ in range(80):
        now += chance.randrange(12)
        rollups.write(
            [
                # Some come late, into a period that is over.
                Growth(_key(chance.randrange(9)), now - chance.choice((0, 0, 0, 20, 70)), one(REQUESTS, 1))
                for _ in range(chance.randrange(5))
            ],
            (),
        )
        if chance.random() < 0.02:
            rollups.trim(now + chance.randrange(30 * 1_440))
        if chance.random() < 0.02:
            rollups.drop_oldest()
        for minutes in STEPS_MINUTES:
            length = chance.choice((2, 10, 11, 24)) * minutes
            since = (now - length) // minutes * minutes
            assert _sums(rollups, minutes, since) == _sums(Rollups(database, Limits()), minutes, since)


def test_what_was_rolled_back_is_in_no_sum(database: apsw.Connection) -> None:
    rollups = Rollups(database, Limits())
    for minute in range(10):
        rollups.write([Growth(_key(1), NOW + minute, one(REQUESTS, 1))], ())
    assert column(_sums(rollups, 1, NOW)[_key(1)], REQUESTS) == 10
    database.execute("BEGIN")
    rollups.write([Growth(_key(1), NOW + 1, one(REQUESTS, 5)), Growth(_key(2), NOW, one(REQUESTS, 5))], ())
    database.execute("ROLLBACK")
    rollups.restart()
    assert {key: column(row, REQUESTS) for key, row in rollups.sums(1, NOW)} == {_key(1): 10}
