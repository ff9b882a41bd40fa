"""What resources of the Gateway API and policies are attached to (IST0101, WEFT0202)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from weft.analysis.objects import Object
from weft.analysis.scene import Found, Scene, meant
from weft.analysis.tree import rows, table, word
from weft.compile.gatewayapi.facts import BUILT_IN_CLASSES
from weft.model.catalog import GATEWAY_API
from weft.yaml import Path

_ROUTES: Final = tuple(
    f"{GATEWAY_API}/{kind}" for kind in ("HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute")
)
_POLICIES: Final = (
    f"{GATEWAY_API}/BackendTLSPolicy",
    "security.istio.io/AuthorizationPolicy",
    "security.istio.io/RequestAuthentication",
    "telemetry.istio.io/Telemetry",
    "extensions.istio.io/WasmPlugin",
)
# Kinds that may be meant, and are looked up; of others nothing is known.
_KNOWN: Final = frozenset(
    {
        f"{GATEWAY_API}/Gateway",
        f"{GATEWAY_API}/GatewayClass",
        f"{GATEWAY_API}/ListenerSet",
        "/Service",
        "networking.istio.io/ServiceEntry",
    }
)


def parents(scene: Scene) -> Iterator[Found]:
    """Routes, listeners and policies that are attached to something that does not exist."""
    for kind in _ROUTES:
        for item in scene.of(kind):
            for index, ref in rows(item.spec, "parentRefs"):
                yield from _missing(item, ref, ("spec", "parentRefs", index), scene, "Gateway", GATEWAY_API)
    for item in scene.of(f"{GATEWAY_API}/ListenerSet"):
        ref = table(item.spec, "parentRef")
        yield from _missing(item, ref, ("spec", "parentRef"), scene, "Gateway", GATEWAY_API)
    for kind in _POLICIES:
        for item in scene.of(kind):
            for index, ref in rows(item.spec, "targetRefs"):
                yield from _missing(item, ref, ("spec", "targetRefs", index), scene)
            if ref := table(item.spec, "targetRef"):
                yield from _missing(item, ref, ("spec", "targetRef"), scene)


def _missing(
    item: Object, ref: Mapping[str, Any], path: Path, scene: Scene, kind: str = "", group: str = ""
) -> Iterator[Found]:
    kind, name = word(ref, "kind") or kind, word(ref, "name")
    group = word(ref, "group") if "group" in ref else group
    known = f"{group}/{kind}"
    if known not in _KNOWN or not name:
        return
    space = "" if kind == "GatewayClass" else word(ref, "namespace") or item.namespace
    if scene.find(known, space, name) is None:
        place = f"{space}/{name}" if space else name
        hint = meant(name, (other.name for other in scene.of(known) if other.namespace == space))
        yield Found(
            item, "IST0101", f"there is no {kind} {place}{hint}: it is attached to nothing there", path
        )


def classes(scene: Scene) -> Iterator[Found]:
    """Gateways of a class that does not exist."""
    for item in scene.of(f"{GATEWAY_API}/Gateway"):
        name = word(item.spec, "gatewayClassName")
        if (
            name
            and name not in BUILT_IN_CLASSES
            and scene.find(f"{GATEWAY_API}/GatewayClass", "", name) is None
        ):
            message = f"there is no GatewayClass {name!r}: nobody serves this Gateway"
            yield Found(item, "WEFT0202", message, ("spec", "gatewayClassName"))
