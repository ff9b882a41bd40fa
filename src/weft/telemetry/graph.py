"""Who calls whom, as a graph for other tools: Graphviz, Mermaid, JSON, text. Pure.

Names come from traffic. In each form they are quoted so that they are text and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

_BAD, _DOUBTFUL = 0.95, 0.99
_COLOURS: Final = {"bad": "#c0392b", "doubtful": "#b9770e", "good": "#2e7d4f", "idle": "#7f8c8d"}
_OUTSIDE: Final = "outside"
_NOBODY: Final = "nobody"
"""Who was called where the caller's proxy knew no service: no route, no such cluster."""


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """An end of a call. ``kind`` as telemetry has it: ``workload``, ``gateway``, ``outside``, ``other``."""

    namespace: str
    name: str
    kind: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class Arc:
    """One call path. ``signals`` are as the question ``edges`` gives them."""

    source: Node
    destination: Node
    service: str
    protocol: str
    secured: bool
    signals: Mapping[str, Any]

    @property
    def health(self) -> str:
        """``good``, ``doubtful``, ``bad``; ``idle`` without requests."""
        success = self.signals.get("success")
        if success is None:
            return "idle"
        return "bad" if success < _BAD else "doubtful" if success < _DOUBTFUL else "good"

    @property
    def label(self) -> str:
        """How much, and how well."""
        parts = []
        if self.signals.get("rps"):
            parts.append(f"{self.signals['rps']:.1f} rps")
        if (success := self.signals.get("success")) is not None:
            parts.append(f"{success:.1%}")
        if self.signals.get("p95") is not None:
            parts.append(f"p95 {self.signals['p95']:.0f} ms")
        if not parts:
            rate = (self.signals.get("sentPerSecond") or 0) + (self.signals.get("receivedPerSecond") or 0)
            parts.append(f"{self.protocol} {rate:.0f} B/s")
        return ", ".join(parts)


def read(edges: Iterable[Mapping[str, Any]]) -> tuple[Arc, ...]:
    """The arcs of an answer, in a fixed order."""
    found = [
        Arc(
            _end(edge["source"], _OUTSIDE),
            _called(edge["destination"], edge["service"]),
            edge["service"]["host"],
            edge["protocol"],
            bool(edge["secured"]),
            edge,
        )
        for edge in edges
    ]
    return tuple(sorted(found, key=lambda arc: (arc.source, arc.destination, arc.protocol, arc.service)))


def _called(who: Mapping[str, Any], service: Mapping[str, Any]) -> Node:
    """A service without a sidecar, or that no call reached, stands for itself."""
    name = service["name"] or service["host"]
    if who["workload"] or not name:
        return _end(who, _NOBODY)
    home = service["namespace"] if name != service["host"] else ""
    return Node(who["namespace"] or home, name, who["kind"] or _OUTSIDE)


def _end(who: Mapping[str, Any], otherwise: str) -> Node:
    name = who["workload"] or _account(who["principal"]) or otherwise
    return Node(who["namespace"], name, who["kind"] or _OUTSIDE)


def _account(principal: str) -> str:
    return principal.rpartition("/")[2]


def _nodes(arcs: Iterable[Arc]) -> list[Node]:
    return sorted({end for arc in arcs for end in (arc.source, arc.destination)})


def dot(arcs: Iterable[Arc]) -> Iterator[str]:
    """For Graphviz: one cluster for each namespace."""
    arcs = tuple(arcs)
    yield "digraph weft {"
    yield "  rankdir=LR;"
    yield '  node [shape=box, style=rounded, fontname="sans-serif"];'
    yield '  edge [fontname="sans-serif", fontsize=10];'
    nodes = _nodes(arcs)
    for number, namespace in enumerate(sorted({node.namespace for node in nodes})):
        inside = [node for node in nodes if node.namespace == namespace]
        if not namespace:
            yield from (f"  {_dot(node)} [label={_quoted(node.name)}];" for node in inside)
            continue
        yield f"  subgraph cluster_{number} {{"
        yield f"    label={_quoted(namespace)};"
        yield from (f"    {_dot(node)} [label={_quoted(node.name)}];" for node in inside)
        yield "  }"
    for arc in arcs:
        style = "solid" if arc.secured else "dashed"
        yield (
            f"  {_dot(arc.source)} -> {_dot(arc.destination)} "
            f'[label={_quoted(arc.label)}, color="{_COLOURS[arc.health]}", style={style}];'
        )
    yield "}"


def _dot(node: Node) -> str:
    return _quoted(f"{node.kind}:{node}")


def _quoted(text: str) -> str:
    """A string of DOT. A backslash would begin an escape there."""
    return '"' + _plain(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def mermaid(arcs: Iterable[Arc]) -> Iterator[str]:
    """For Mermaid, as Markdown viewers draw it."""
    arcs = tuple(arcs)
    numbers = {node: f"n{number}" for number, node in enumerate(_nodes(arcs))}
    yield "flowchart LR"
    for node, number in numbers.items():
        yield f'  {number}["{_entities(str(node))}"]'
    for arc in arcs:
        line = "-->" if arc.secured else "-.->"
        yield f'  {numbers[arc.source]} {line}|"{_entities(arc.label)}"| {numbers[arc.destination]}'
    for place, arc in enumerate(arcs):
        if arc.health in {"bad", "doubtful"}:
            yield f"  linkStyle {place} stroke:{_COLOURS[arc.health]}"


def _entities(text: str) -> str:
    """Mermaid's own entities, for whatever is no plain character of a name."""
    return "".join(
        char if char.isalnum() or char in " ./-_:,%*" else f"#{ord(char)};" for char in _plain(text)
    )


def text(arcs: Iterable[Arc]) -> Iterator[str]:
    """A tree of one level: each caller, and below it whom it calls."""
    last: Node | None = None
    for arc in arcs:
        if arc.source != last:
            yield _plain(str(arc.source))
            last = arc.source
        lock = "" if arc.secured else ", not secured"
        yield f"  -> {_plain(str(arc.destination))}  ({arc.label}{lock})"


def to_dict(arcs: Iterable[Arc]) -> dict[str, Any]:
    """Nodes and edges; the edges with all their signals."""
    arcs = tuple(arcs)
    return {
        "nodes": [
            {"id": str(node), "namespace": node.namespace, "name": node.name, "kind": node.kind}
            for node in _nodes(arcs)
        ],
        "edges": [
            {**arc.signals, "from": str(arc.source), "to": str(arc.destination), "health": arc.health}
            for arc in arcs
        ],
    }


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)
