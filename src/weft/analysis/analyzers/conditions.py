"""What a resource's own status says against it (IST0171)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from weft.analysis.objects import Object
from weft.analysis.scene import Found, Scene
from weft.analysis.tree import rows, table, word
from weft.yaml import Path

_WAYPOINT: Final = frozenset({"istio.io/WaypointBound"})
_ROUTE: Final = frozenset({"Accepted", "Programmed", "ResolvedRefs"})
_POLICY: Final = "security.istio.io/AuthorizationPolicy"
NEGATIVE: Final = {
    "/Service": _WAYPOINT,
    "networking.istio.io/ServiceEntry": _WAYPOINT,
    "networking.istio.io/WorkloadEntry": _WAYPOINT,
    _POLICY: frozenset({"ZtunnelAccepted", "WaypointAccepted"}),
    "gateway.networking.k8s.io/Gateway": _ROUTE,
    "gateway.networking.k8s.io/HTTPRoute": _ROUTE,
    "gateway.networking.k8s.io/GRPCRoute": _ROUTE,
}
"""Conditions that are bad news when they are False, by kind."""


def conditions(scene: Scene) -> Iterator[Found]:
    """Negative conditions in the status of resources."""
    for kind, types in NEGATIVE.items():
        for item in scene.of(kind):
            for path, condition in conditions_of(item):
                name, status = word(condition, "type"), word(condition, "status")
                partly = name == "WaypointAccepted" and word(condition, "reason") == "PartiallyInvalid"
                if (name in types and status.lower() == "false") or (kind == _POLICY and partly):
                    reason, message = word(condition, "reason"), word(condition, "message")
                    about = f"its status says {name}={status}: {reason}" + (f", {message}" if message else "")
                    yield Found(item, "IST0171", about, path)


def conditions_of(item: Object) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The conditions in a status, those that each parent of a route gives too."""
    status = table(item.data, "status")
    for index, condition in rows(status, "conditions"):
        yield ("status", "conditions", index), condition
    for place, parent in rows(status, "parents"):
        for index, condition in rows(parent, "conditions"):
            yield ("status", "parents", place, "conditions", index), condition
