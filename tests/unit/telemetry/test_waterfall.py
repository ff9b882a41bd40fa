"""Spans as a tree: right where they are right, and something where they are not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.cli.trace import tree
from weft.cli.traffic_text import width
from weft.telemetry.waterfall import title, waterfall


def span(
    name: str, parent: str = "", start: int = 0, took: int = 10, service: str = "web", **more: Any
) -> dict[str, Any]:
    """Times in ms."""
    return {
        "spanId": name,
        "parentId": parent,
        "startUs": start * 1_000,
        "durationUs": took * 1_000,
        "namespace": "shop",
        "service": service,
        "instance": f"{service}-0",
        "name": "GET /",
        "kind": "server",
        "status": "unset",
        "attributes": {},
        **more,
    }


def test_gateway_and_sidecars_nest() -> None:
    rows = waterfall(
        [
            span("d", "c", 3, 5, "payments"),
            span("c", "b", 2, 7, "orders", kind="client"),
            span("a", "", 0, 20, "gateway"),
            span("b", "a", 1, 18, "orders"),
            span("e", "b", 10, 4, "orders", kind="client"),
        ]
    )
    assert [(row.span["spanId"], row.depth, row.offset) for row in rows] == [
        ("a", 0, 0), ("b", 1, 1), ("c", 2, 2), ("d", 3, 3), ("e", 2, 10),
    ]  # fmt: skip
    assert [row.own for row in rows] == [2, 7, 2, 5, 4]
    assert not any(row.orphan for row in rows)
    shown = [line.split("█")[0].split("ms")[0] for line in tree("t", rows)]
    assert shown[1:] == [
        "gateway                20",
        "└─ orders              18",
        "   ├─ orders            7",
        "   │  └─ payments       5",
        "   └─ orders            4",
    ]


def test_missing_parents_circles_and_twins() -> None:
    rows = waterfall(
        [
            span("a", "gone", 5),
            span("b", "c", 1), span("c", "b", 2),
            span("d", "d", 9),
            span("a", "gone", 5, service="twin"),
        ]
    )  # fmt: skip
    assert sorted(row.span["spanId"] for row in rows) == ["a", "b", "c", "d"]
    assert {row.span["spanId"]: row.depth for row in rows} == {"a": 0, "b": 0, "c": 1, "d": 0}
    assert {row.span["spanId"] for row in rows if row.orphan} == {"a"}
    assert waterfall([]) == ()


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(-1, 12), st.integers(0, 50), st.integers(0, 50))))
def test_every_span_is_shown_once_below_its_parent(given: list[tuple[int, int, int, int]]) -> None:
    spans = [
        span(str(name), str(parent) if parent >= 0 else "", start, took)
        for name, parent, start, took in given
    ]
    rows = waterfall(spans)
    assert sorted(row.span["spanId"] for row in rows) == sorted({one["spanId"] for one in spans})
    above: list[str] = []
    for row in rows:
        above = above[: row.depth]
        if row.depth:
            assert row.span["parentId"] == above[-1]
        above.append(row.span["spanId"])
        assert 0 <= row.own <= row.duration
        assert len(row.last) == row.depth + 1
    if rows:
        assert all(width(line) <= 80 for line in list(tree("t", rows, columns=80))[1:])


def test_a_chain_deeper_than_any_screen() -> None:
    rows = waterfall([span(str(n), str(n - 1) if n else "", n) for n in range(2_000)])
    assert len(rows) == 2_000
    assert all("█" in line for line in list(tree("t", rows, columns=80))[1:])
    assert all(width(line) <= 100 for line in tree("t", rows, columns=100))


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({"http.method": "GET", "http.url": "https://h:8080/users/7?token=secret#x"}, "GET /users/7"),
        ({"http.method": "POST", "http.url": "/a?b"}, "POST /a"),
        ({"http.request.method": "GET", "url.path": "/x"}, "GET /x"),
        ({}, "op"),
    ],
)
def test_titles_have_no_query(said: dict[str, str], shown: str) -> None:
    assert title({"name": "op?secret=1", "attributes": said}) == shown


def test_hostile_and_wide_text_is_inert_and_fits() -> None:
    evil = "\x1b]0;owned\x07\x1b[31m\u202eevil\r\n" + "漢字" * 40
    rows = waterfall(
        [
            span("a", "", 0, 20, evil, attributes={"http.url": f"http://h/{evil}", "response_flags": evil}),
            span("b", "a", 1, 5, "e\u0301" * 30, attributes={"http.status_code": "503"}),
        ]
    )
    for columns in (60, 100, 200):
        lines = list(tree(evil, rows, columns=columns, colour=False))
        assert len(lines) == 3
        assert all(char.isprintable() for line in lines for char in line)
        assert all(width(line) <= columns for line in lines[1:])
    assert rows[1].failed


def test_retries_and_flags_are_shown() -> None:
    (row,) = waterfall(
        [span("a", attributes={"http.status_code": "503", "response_flags": "UF,URX", "weft.attempts": "3"})]
    )
    assert (row.attempts, row.flags, row.failed) == (3, "UF,URX", True)
    _, line, words = tree("t", (row,))
    assert "503 UF,URX (3 tries)" in line
    assert words.startswith("UF,URX: ")
