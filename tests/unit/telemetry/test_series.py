"""Series in memory: any window is exact, whatever the clock does; bounded, and idle ones are let go."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from weft.telemetry.limits import Limits, Losses
from weft.telemetry.rows import CLOSED, OPENED, REQUESTS, WIDTH, Row, column, pack
from weft.telemetry.series import HOUR, OTHER, SLOT_MS, TOTAL, Series, SeriesKey, SeriesTable

NOW_MS = 1_800_000_000_000
NOW = NOW_MS // SLOT_MS
HOUR_MS = HOUR * SLOT_MS


def _key(
    workload: str = "reviews", *, side: str = "destination", account: str = "reviews", **more: str
) -> SeriesKey:
    principal = f"spiffe://cluster.local/ns/default/sa/{account}"
    return SeriesKey(side, "workload", "default", workload, workload, "", principal, **more)


def _row(requests: int = 1, opened: int = 0, closed: int = 0) -> Row:
    row = [0] * WIDTH
    row[REQUESTS], row[OPENED], row[CLOSED] = requests, opened, closed
    return pack(row)


def _requests(row: Row) -> int:
    return column(row, REQUESTS)


def _table(losses: Losses | None = None, **limits: int) -> SeriesTable:
    return SeriesTable(Limits(**limits), losses or Losses(), NOW_MS)  # type: ignore[arg-type]


def _grown(series: Series, slot: int) -> int:
    """Requests since the beginning of a slot."""
    return _requests(series.total - series.before(slot))


def _all(table: SeriesTable, slot: int) -> int:
    return sum(_grown(series, slot) for series in table)


@given(
    st.lists(st.tuples(st.integers(0, 40_000), st.integers(1, 1 << 33)), min_size=1, max_size=60),
    st.integers(0, 60),
    st.booleans(),
)
def test_a_window_has_what_came_in_it(told: list[tuple[int, int]], ago: int, thinned: bool) -> None:
    table, now_ms, truth = _table(), NOW_MS, list[tuple[int, int]]()
    for pause_ms, requests in told:
        now_ms += pause_ms
        table.add(_key(), _row(requests), now_ms)
        truth.append((now_ms // SLOT_MS, requests))
    (series,) = table
    since = now_ms // SLOT_MS - ago
    if thinned:
        # Minutes stay exact at their ends.
        series.thin(now_ms // SLOT_MS)
        since = since // 6 * 6
    assert _grown(series, since) == sum(requests for slot, requests in truth if slot >= since)


def test_steps_add_up_to_the_window() -> None:
    table = _table()
    for number in range(100):
        table.add(_key(), _row(number), NOW_MS + 7_000 * number)
    (series,) = table
    starts = list(range(NOW, NOW + 75, 5))
    steps = dict(series.steps(starts))
    assert sum(_requests(row) for row in steps.values()) == sum(range(100))
    assert _requests(steps[0]) == sum(
        number for number in range(100) if NOW_MS + 7_000 * number < (NOW + 5) * SLOT_MS
    )


def test_idle_series_are_let_go_and_open_connections_kept() -> None:
    table = _table()
    table.add(_key("idle"), _row(), NOW_MS)
    table.add(_key("open"), _row(0, opened=2, closed=1), NOW_MS)
    later = NOW_MS + HOUR_MS + 2 * SLOT_MS
    table.advance(later)
    table.trim()
    assert [(series.key.workload, series.open) for series in table] == [("open", 1)]
    table.add(_key("open"), _row(0, closed=1), later)
    table.advance(later + HOUR_MS + 2 * SLOT_MS)
    table.trim()
    assert len(table) == 0
    assert not table.tells("default", "open")


def test_more_connections_closed_than_opened_is_none_open() -> None:
    table = _table()
    table.add(_key(), _row(0, opened=1, closed=5), NOW_MS)
    assert table.open(_key()) == 0
    assert table.open(_key("unknown")) == 0


def test_what_there_is_no_room_for_is_counted_together() -> None:
    losses = Losses()
    table = _table(losses, series=10)
    for number in range(50):
        table.add(_key(peer_workload=f"w{number}"), _row(), NOW_MS)
    for number in range(50):
        table.add(_key(f"x{number}"), _row(), NOW_MS)
    assert len(table) <= 12
    assert _all(table, NOW) == 100, "nothing is lost but names"
    assert losses.series_overflow == 90
    others = [series for series in table if series.key.peer_workload == OTHER]
    assert {series.key.workload for series in others} == {"reviews", OTHER}


def test_one_identity_leaves_room_for_others() -> None:
    losses = Losses()
    table = _table(losses, series=100, series_of_one=20)
    for number in range(500):
        table.add(_key(account="hostile", peer_workload=f"w{number}"), _row(), NOW_MS)
    for number in range(50):
        table.add(_key(account=f"good{number}"), _row(), NOW_MS)
    assert losses.series_overflow == 480
    assert sum(series.key.peer_workload == "" for series in table) == 50


def test_idle_ones_make_room() -> None:
    losses = Losses()
    table = _table(losses, series=10)
    for number in range(10):
        table.add(_key(f"old{number}"), _row(), NOW_MS)
    later = NOW_MS + 15 * 60_000
    for number in range(10):
        table.add(_key(f"new{number}"), _row(), later)
    assert {series.key.workload for series in table} == {f"new{number}" for number in range(10)}
    assert (losses.series_evicted, losses.series_overflow) == (10, 0)


def test_notes_are_bounded_and_the_horizon_says_so() -> None:
    table = _table(notes=200)
    for slot in range(300):
        for number in range(10):
            table.add(_key(f"w{number}"), _row(), NOW_MS + slot * SLOT_MS)
    table.advance(NOW_MS + 300 * SLOT_MS)
    table.trim()
    assert sum(len(series.notes) for series in table) <= 200
    assert table.horizon > NOW
    assert _all(table, table.horizon) == 10 * (NOW + 300 - table.horizon), "what is known is whole"


def test_a_clock_that_is_set_back_a_little_stands_still() -> None:
    losses = Losses()
    table = _table(losses)
    table.add(_key(), _row(1), NOW_MS)
    table.add(_key(), _row(2), NOW_MS - 30_000)
    (series,) = table
    assert (_grown(series, NOW), table.newest, losses.clock_steps) == (3, NOW, 0)


def test_a_clock_that_is_set_back_far_begins_anew() -> None:
    losses = Losses()
    table = _table(losses)
    table.add(_key(), _row(5), NOW_MS)
    back = NOW_MS - 3 * HOUR_MS
    table.add(_key(), _row(2), back)
    (series,) = table
    assert (losses.clock_steps, table.horizon) == (1, back // SLOT_MS)
    assert _grown(series, table.horizon) == 2
    table.add(_key(), _row(3), back + SLOT_MS)
    assert _grown(series, table.horizon) == 5
    assert sum(_requests(row) for (key, _), row in table.pending.items() if key.side != TOTAL) == 7


def test_what_is_pending_is_what_was_told() -> None:
    table = _table()
    for number in range(50):
        table.add(_key(f"w{number % 3}"), _row(number), NOW_MS + 5_000 * number)
    table.close()
    table.close()
    assert sum(_requests(row) for row in table.pending.values()) == sum(range(50))


def _counting(table: SeriesTable, keys: Iterable[SeriesKey]) -> SeriesTable:
    for key in keys:
        table.add(key, _row(), NOW_MS)
    return table


def test_the_total_follows_a_slot_behind() -> None:
    total = SeriesKey(TOTAL, "", "", "", "", "", "")
    table = SeriesTable(
        Limits(), Losses(), NOW_MS, lambda _, key: total if key.side == "destination" else None
    )
    _counting(table, [_key(), _key(side="source")])
    table.advance(NOW_MS + SLOT_MS)
    assert table.totals == {}
    assert sum(_requests(row) for _, key, row in table.unsummed() if key.side == "destination") == 1
    table.advance(NOW_MS + 2 * SLOT_MS)
    assert _grown(table.totals[total], NOW) == 1
    assert list(table.unsummed()) == []


def test_what_was_kept_is_loaded() -> None:
    minute = NOW // 6
    table = _table()
    table.load(_key(), [(minute - 2, _row(3)), (minute - 1, _row(4)), (minute, _row(5))], 7)
    (series,) = table
    assert (_grown(series, NOW - 60), _grown(series, (minute - 1) * 6), series.open) == (12, 9, 7)
    assert table.tells("default", "reviews")
    table.add(_key(), _row(1), NOW_MS)
    table.close()
    assert [_requests(row) for row in table.pending.values()] == [1], "nothing is written twice"


def test_more_than_anything_can_count_spoils_nothing() -> None:
    losses = Losses()
    table = _table(losses)
    for _ in range(9):
        table.add(_key(), pack([1 << 60] * WIDTH), NOW_MS)
        table.add(_key("other"), _row(), NOW_MS)
    assert losses.points_unusable > 0
    grown = {series.key.workload: series.total for series in table}
    assert len({column(grown["reviews"], number) for number in range(WIDTH)}) == 1
    assert _requests(grown["other"]) == 9


def test_at_the_end_the_total_has_everything() -> None:
    total = SeriesKey(TOTAL, "", "", "", "", "", "")
    table = SeriesTable(Limits(), Losses(), NOW_MS, lambda _, __: total)
    _counting(table, [_key(), _key("other")])
    table.finish()
    assert sum(_requests(row) for (key, _), row in table.pending.items() if key.side == TOTAL) == 2
