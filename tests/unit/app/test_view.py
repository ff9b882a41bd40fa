"""What people see of a mesh that runs, on terminals of all sizes."""

from __future__ import annotations

import datetime
import io
from typing import Any

import pytest
from rich.console import Console

from weft.app.view import Row, Table, draw, progress, row

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def a_row(name: str, **given: Any) -> Row:
    entry = {
        "name": name, "namespace": "shop", "kind": "sidecar", "state": "running", "ready": True,
        "address": "10.0.0.1", "capture": "netns", "certificate": {"notAfter": "2026-01-01T23:59:30Z"},
    }  # fmt: skip
    return row({**entry, **given}, NOW)


def drawn(rows: list[Row], change: str = "", *, width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height)
    with console.capture() as captured:
        console.print(draw(rows, change, width, height))
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.mark.parametrize(("width", "namespaces"), [(80, False), (140, True)])
def test_nothing_is_cut_that_a_terminal_has_room_for(width: int, namespaces: bool) -> None:
    lines = drawn([a_row("recommendations-v1-0")], "revision 7", width=width, height=24)
    shown = "\n".join(lines)
    assert "recommendations-v1-0" in shown
    assert "● ready" in shown
    assert "10.0.0.1" in shown
    assert "23h59m" in shown
    assert ("NAMESPACE" in shown) == namespaces
    assert "…" not in shown
    assert lines[-1] == "revision 7"


def test_what_is_not_ready_says_why_and_is_never_hidden() -> None:
    rows = [a_row(f"api-{n}") for n in range(50)]
    rows.append(a_row("slow-0", ready=False, state="starting", message="no certificate yet"))
    lines = drawn(rows, width=80, height=24)
    assert any("slow-0" in line and "● starting" in line and "no certificate yet" in line for line in lines)
    assert lines[-1] == "and 35 more, 35 of them ready"
    assert len(lines) < 24


def test_text_of_others_is_no_markup() -> None:
    message = "bind [::]:80: [red]refused[/]"
    shown = drawn([a_row("a", ready=False, message=message)], width=120, height=24)
    assert any(message in line for line in shown)


def test_what_is_said_leaves_the_table_as_it_is() -> None:
    console = Console(file=io.StringIO(), width=100, height=24, force_terminal=True, color_system=None)
    table = Table(console)
    table.show([a_row("api-0")], "")
    table.say("a [bracket] and more")
    table.close()
    file = console.file
    assert isinstance(file, io.StringIO)
    assert "a [bracket] and more" in file.getvalue()
    assert "[green]" not in file.getvalue()


def test_progress_counts_who_runs_it_and_names_who_refuses() -> None:
    state: dict[str, Any] = {"revision": 7, "total": 3, "missing": ["a"], "rejected": []}
    assert progress(state) == "revision 7: live on 2 of 3 proxies"
    state["rejected"] = [{"proxy": "shop/a", "name": "0.0.0.0_80"}]
    assert progress(state).endswith("; shop/a refuses 0.0.0.0_80 (weft proxy status)")
