from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from weft.control import changes
from weft.control.changes import recent


def line(second: int, **fields: object) -> str:
    time = datetime.fromtimestamp(second, UTC).isoformat()
    usual = {
        "event": "change", "actor": "alice", "verb": "update",
        "kind": "networking.istio.io/VirtualService", "namespace": "shop", "name": "web", "revision": second,
    }  # fmt: skip
    return json.dumps({"seq": second, "time": time, **usual, **fields}) + "\n"


def test_what_people_changed_newest_first_over_files(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    (tmp_path / "audit.log.000000000002").write_text(line(1) + line(2, kind="/Service", verb="create"))
    log.write_text(line(3, actor="weft") + line(4, event="denied") + "no JSON\n" + line(5, verb="delete"))
    assert recent(log, 2_000, 10) == [
        {
            "time": 5_000, "who": "alice", "verb": "delete", "kind": "VirtualService",
            "group": "networking.istio.io", "namespace": "shop", "name": "web", "revision": 5,
        },
        {
            "time": 2_000, "who": "alice", "verb": "create", "kind": "Service", "group": "",
            "namespace": "shop", "name": "web", "revision": 2,
        },
    ]  # fmt: skip
    assert [one["time"] for one in recent(log, 0, 2)] == [5_000, 2_000]


def test_of_a_long_log_only_the_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "audit.log"
    log.write_text("".join(map(line, range(1, 100))))
    monkeypatch.setattr(changes, "_TAIL_BYTES", len(line(50)) * 3 + 10)
    assert [one["revision"] for one in recent(log, 0, 50)] == [99, 98, 97]


def test_a_log_that_is_not_there(tmp_path: Path) -> None:
    assert recent(tmp_path / "audit.log", 0, 5) == []
