"""The graph in each form: everything that is quoted stays quoted, whatever services are called."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from weft.telemetry.graph import dot, mermaid, read, text, to_dict

_ID = r'"(?:[^"\\\n]|\\["\\])*"'
_ATTRIBUTES = rf"\[\w+=(?:{_ID}|\w+)(?:, \w+=(?:{_ID}|\w+))*\]"
# What DOT's grammar has, as far as it is used.
_DOT = re.compile(
    rf"digraph weft \{{|\}}| +rankdir=LR;| +(?:node|edge) {_ATTRIBUTES};| +subgraph cluster_\d+ \{{| +\}}"
    rf"| +label={_ID};| +{_ID} {_ATTRIBUTES};| +{_ID} -> {_ID} {_ATTRIBUTES};"
)
_LABEL = r'"[^"\[\]{}|<>\n`\\]*"'
_MERMAID = re.compile(
    rf"flowchart LR|  n\d+\[{_LABEL}\]|  n\d+ (?:-->|-\.->)\|{_LABEL}\| n\d+"
    r"|  linkStyle \d+ stroke:#[0-9a-f]{6}"
)
EVIL = 'a"];x->y;"\\[<script>\x1b[31m\n|`'


def who(
    workload: str, namespace: str = "shop", kind: str = "workload", principal: str = ""
) -> dict[str, Any]:
    return {
        "namespace": namespace, "workload": workload, "app": "", "version": "", "principal": principal,
        "kind": kind, "sure": True,
    }  # fmt: skip


def edge(source: str, destination: str, **signals: Any) -> dict[str, Any]:
    known = {"rps": 2.0, "success": 1.0, "p95": 12.0, "sentPerSecond": 0.0, "receivedPerSecond": 0.0}
    return {
        "source": who(source), "destination": who(destination), "protocol": "http", "secured": True,
        "service": {"name": destination, "namespace": "shop", "host": f"{destination}.shop.svc"},
        **known, **signals,
    }  # fmt: skip


def parsed(lines: list[str], grammar: re.Pattern[str]) -> None:
    for line in lines:
        assert grammar.fullmatch(line), line


def test_a_graph_in_every_form() -> None:
    arcs = read([edge("web", "orders", secured=False, success=0.5), edge("gateway", "web")])
    lines = list(dot(arcs))
    parsed(lines, _DOT)
    assert lines[0].endswith("{")
    assert sum(line.count("{") for line in lines) == sum(line.count("}") for line in lines)
    assert sum(" -> " in line for line in lines) == 2
    assert "style=dashed" in next(line for line in lines if '"workload:shop/web" ->' in line)
    drawn = list(mermaid(arcs))
    parsed(drawn, _MERMAID)
    assert drawn[-1] == "  linkStyle 1 stroke:#c0392b"
    assert list(text(arcs)) == [
        "shop/gateway",
        "  -> shop/web  (2.0 rps, 100.0%, p95 12 ms)",
        "shop/web",
        "  -> shop/orders  (2.0 rps, 50.0%, p95 12 ms, not secured)",
    ]
    found = to_dict(arcs)
    assert [node["id"] for node in found["nodes"]] == ["shop/gateway", "shop/orders", "shop/web"]
    assert [(one["from"], one["to"], one["health"]) for one in found["edges"]] == [
        ("shop/gateway", "shop/web", "good"), ("shop/web", "shop/orders", "bad"),
    ]  # fmt: skip


def test_ends_without_a_workload_have_a_name() -> None:
    outside = edge("", "")
    outside["source"] = who("", "", "outside")
    outside["destination"] = who("", "", "outside")
    outside["service"] = {"name": "", "namespace": "", "host": "api.example.com"}
    (arc,) = read([outside])
    assert (str(arc.source), str(arc.destination)) == ("outside", "api.example.com")
    outside["service"] = {"name": "api", "namespace": "shop", "host": "api.shop.svc.cluster.local"}
    assert str(read([outside])[0].destination) == "shop/api"
    outside["service"] = {"name": "", "namespace": "", "host": ""}
    assert str(read([outside])[0].destination) == "nobody"
    named = edge("", "orders")
    named["source"] = who("", "", "outside", "spiffe://other/ns/a/sa/client")
    assert str(read([named])[0].source) == "client"


@given(st.text(max_size=20), st.text(max_size=20))
def test_names_cannot_leave_their_quotes(source: str, destination: str) -> None:
    arcs = read([edge(source + EVIL, destination), edge(destination, EVIL)])
    parsed(list(dot(arcs)), _DOT)
    parsed(list(mermaid(arcs)), _MERMAID)
    assert all(char.isprintable() for line in text(arcs) for char in line)
