"""What workloads use, added up: what is not known is no zero."""

from __future__ import annotations

from typing import Any

from weft.dashboard.usage import by_workload


def row(name: str, application: Any, proxy: Any) -> dict[str, Any]:
    return {"namespace": "shop", "name": name, "workload": "web", "application": application, "proxy": proxy}


def test_replicas_are_added_up() -> None:
    whole, begun = {"cpu": 0.25, "memory": 5}, {"cpu": None, "memory": 2}
    assert by_workload([row("web-0", whole, whole), row("web-1", None, begun)]) == {
        "shop/web": {"cpu": 0.5, "memory": 12, "proxyCpu": 0.25, "proxyMemory": 7}
    }
    assert by_workload([row("web-0", None, begun)])["shop/web"]["cpu"] is None
    assert by_workload([row("web-0", None, None)])["shop/web"]["memory"] is None
    assert by_workload([]) == {}
