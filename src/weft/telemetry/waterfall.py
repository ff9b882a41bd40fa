"""A trace as rows under each other: which span called which, when, and for how long. Pure.

Spans are what the question ``trace`` answers. They may be anything: parents that nobody told of, circles,
clocks that disagree, the same span twice. Every span is a row exactly once, children below their parents.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

SpanLike = Mapping[str, Any]

_DEEPEST: Final = 64
_NO_FLAGS: Final = frozenset({"", "-"})
_SERVER: Final = frozenset({"server", "consumer"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One span. ``offset`` and ``duration`` in ms, ``own`` without what its children cover.

    ``kind``: ``server``, ``client`` or another. ``orphan``: it names a parent that nobody told of.
    ``last``: for each level above and for its own, whether it is the last one there.
    """

    span: SpanLike
    depth: int
    offset: float
    duration: float
    own: float
    title: str
    code: str
    flags: str
    attempts: int
    failed: bool
    orphan: bool
    last: tuple[bool, ...]

    @property
    def service(self) -> str:
        """``namespace/service``."""
        return f"{self.span.get('namespace', '')}/{self.span.get('service', '')}"

    @property
    def kind(self) -> str:
        """Of the span."""
        return str(self.span.get("kind", ""))

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, with the span's own fields."""
        return {
            **self.span,
            "depth": self.depth,
            "offset": self.offset,
            "duration": self.duration,
            "own": self.own,
            "title": self.title,
            "code": self.code,
            "flags": self.flags,
            "attempts": self.attempts,
            "failed": self.failed,
            "orphan": self.orphan,
        }


def title(span: SpanLike) -> str:
    """``GET /users/7``: what was asked. Without its query, which may hold secrets."""
    said = span.get("attributes", {})
    method = said.get("http.method", "") or said.get("http.request.method", "")
    url = said.get("http.url", "") or said.get("url.path", "")
    if not url:
        return str(span.get("name", "")).partition("?")[0]
    _, scheme, rest = url.partition("://")
    path = f"/{rest.partition('/')[2]}" if scheme else url
    path = path.partition("?")[0].partition("#")[0]
    return f"{method} {path}".strip()


def waterfall(spans: Iterable[SpanLike]) -> tuple[Row, ...]:
    """The rows, from above; the earliest first among equals."""
    known: dict[str, SpanLike] = {}
    for span in spans:
        known.setdefault(str(span["spanId"]), span)
    if not known:
        return ()
    children: defaultdict[str, list[str]] = defaultdict(list)
    roots: list[str] = []
    for name, span in known.items():
        parent = str(span["parentId"])
        (children[parent] if parent in known and parent != name else roots).append(name)
    roots += _circles(known, roots, children)
    began = min(span["startUs"] for span in known.values())

    def order(name: str) -> tuple[int, int, str]:
        span = known[name]
        # A caller's span before the one of whom it called, if both begin at once.
        return span["startUs"], span.get("kind") in _SERVER, name

    rows: list[Row] = []
    seen: set[str] = set()
    stack: list[tuple[str, int, tuple[bool, ...]]] = [
        (name, 0, (place == 0,)) for place, name in enumerate(sorted(roots, key=order, reverse=True))
    ]
    while stack:
        name, depth, last = stack.pop()
        if name in seen:
            continue
        seen.add(name)
        below = sorted((child for child in children[name] if child not in seen), key=order)
        orphan = depth == 0 and bool(known[name]["parentId"]) and known[name]["parentId"] not in known
        rows.append(_row(known[name], [known[child] for child in below], depth, began, orphan, last))
        stack += [
            (child, min(depth + 1, _DEEPEST), (*last, place == 0)[-_DEEPEST:])
            for place, child in enumerate(reversed(below))
        ]
    return tuple(rows)


def _circles(
    known: Mapping[str, SpanLike], roots: Iterable[str], children: Mapping[str, list[str]]
) -> list[str]:
    """The earliest span of each circle, which no root reaches."""
    reached: set[str] = set()

    def reach(name: str) -> None:
        stack = [name]
        while stack:
            one = stack.pop()
            if one not in reached:
                reached.add(one)
                stack += children.get(one, [])

    for name in roots:
        reach(name)
    more = []
    for name in sorted(known, key=lambda one: (known[one]["startUs"], one)):
        if name not in reached:
            more.append(name)
            reach(name)
    return more


def _row(
    span: SpanLike, below: Iterable[SpanLike], depth: int, began: int, orphan: bool, last: tuple[bool, ...]
) -> Row:
    said = span.get("attributes", {})
    flags = str(said.get("response_flags", ""))
    code = str(said.get("http.status_code", "") or said.get("http.response.status_code", ""))
    start, end = span["startUs"], span["startUs"] + span["durationUs"]
    return Row(
        span=span,
        depth=depth,
        offset=(start - began) / 1_000,
        duration=span["durationUs"] / 1_000,
        own=(span["durationUs"] - _covered(start, end, below)) / 1_000,
        title=title(span),
        code=code,
        flags="" if flags in _NO_FLAGS else flags,
        attempts=_attempts(said),
        failed=span.get("status") == "error" or code[:1] == "5" or code == "0",
        orphan=orphan,
        last=last,
    )


def _attempts(said: Mapping[str, str]) -> int:
    """How often it was tried upstream, where the proxy tells."""
    for name in ("upstream_request_attempt_count", "weft.attempts", "retry.count"):
        text = str(said.get(name, ""))
        if text.isascii() and text.isdecimal() and len(text) < 6:
            return int(text) + (name == "retry.count")
    return 1


def _covered(start: int, end: int, below: Iterable[SpanLike]) -> int:
    """How much of a span's time its children cover, overlaps once."""
    covered, reached = 0, start
    for one in sorted(below, key=lambda span: span["startUs"]):
        first, last = max(reached, one["startUs"]), min(end, one["startUs"] + one["durationUs"])
        if last > first:
            covered += last - first
            reached = last
    return covered
