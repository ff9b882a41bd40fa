from __future__ import annotations

from typing import Any

from weft.dashboard.onset import changes_before, onset

TIMES = list(range(0, 1_000, 100))


def change(time: int, revision: int) -> dict[str, Any]:
    return {"time": time, "revision": revision}


def test_the_beginning_of_what_lasts_until_now() -> None:
    assert onset(TIMES, [0, 0, 5, 0, 0, 0, 4, 5, 6, 5]) == 600, "what was over is another matter"
    assert onset(TIMES, [0, 0, 5, 0, 4, 0, 4, None, 6, 0]) == 200, "a lull is no end"
    assert onset(TIMES, [0] * 9 + [5]) == 900


def test_what_is_as_old_as_the_hour_has_no_beginning() -> None:
    assert onset(TIMES, [5] * 10) is None
    assert onset(TIMES, [0] * 10) is None
    assert onset([], []) is None


def test_what_was_changed_just_before() -> None:
    changes = [change(900_000, 4), change(600_000, 3), change(600_000, 3), change(550_000, 2), change(1, 1)]
    assert changes_before(changes, 610_000) == [change(600_000, 3)] * 2
    assert changes_before(changes, 1_500_000) == []
