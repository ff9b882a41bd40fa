"""Patches of EnvoyFilters that do nothing, or that depend on luck (IST0151 to IST0155)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from weft.analysis.scene import Found, Scene
from weft.analysis.tree import at, number, rows, table, word

_ROUTES: Final = frozenset({"ROUTE_CONFIGURATION", "HTTP_ROUTE"})
_REPLACEABLE: Final = frozenset({"NETWORK_FILTER", "HTTP_FILTER", "VIRTUAL_HOST"})


def patches(scene: Scene) -> Iterator[Found]:
    """Patches that have no effect, or that depend on what others did before."""
    # In the order of the files: it counts which filters were named by patches for certain versions.
    versioned: set[str] = set()
    for item in scene.of("networking.istio.io/EnvoyFilter"):
        ranked = bool(number(item.spec, "priority"))
        found: dict[str, list[tuple[int, str]]] = {}
        for index, row in rows(item.spec, "configPatches"):
            patch = at(row, "patch")
            if not isinstance(patch, dict):
                break
            name, operation, apply_to = _filter(row), word(patch, "operation"), word(row, "applyTo")
            code = _judge(apply_to, operation)
            if code == "IST0151" and name in versioned:
                code = "IST0155"
            if code and not (ranked and code in {"IST0151", "IST0155"}):
                found.setdefault(code, []).append((index, f"{operation} {apply_to}"))
            if word(row, "match", "proxy", "proxyVersion"):
                versioned.add(name)
        for code, places in found.items():
            listed = ", ".join(f"configPatches[{index}] ({text})" for index, text in places)
            yield Found(
                item, code, f"{listed}: {_WORDS[code]}", ("spec", "configPatches", places[0][0], "patch")
            )


_DEPENDS: Final = "what it does depends on earlier patches: set priority, or use INSERT_FIRST or ADD"
_WORDS: Final = {
    "IST0151": _DEPENDS,
    "IST0152": "REPLACE has an effect on filters and virtual hosts only",
    "IST0153": "ADD has no effect there",
    "IST0154": "REMOVE has no effect there",
    "IST0155": f"{_DEPENDS}; one of them is for certain versions of the proxy only",
}


def _judge(apply_to: str, operation: str) -> str:
    """Istio's code for what is wrong; empty when nothing is."""
    match operation:
        case "ADD" if apply_to in _ROUTES:
            return "IST0153"
        case "REMOVE" if apply_to in _ROUTES:
            return "IST0154"
        case "REPLACE" if apply_to not in _REPLACEABLE:
            return "IST0152"
        case "REMOVE" | "REPLACE" | "INSERT_BEFORE" | "INSERT_AFTER":
            return "IST0151"
    return ""


def _filter(row: dict[str, Any]) -> str:
    """The filter that a patch is about: its own name, or the one that it looks for."""
    value = table(row, "patch", "value")
    if not value:
        return ""
    own = word(value, "name")
    return own or word(row, "match", "listener", "filterChain", "filter", "name")
