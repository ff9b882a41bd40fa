"""Fields, kinds and providers that are going or gone (IST0002)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from weft.analysis.scene import Found, Scene
from weft.analysis.tree import at, number, rows, table, word
from weft.yaml import Path

_REMOVED: Final = frozenset({"ClusterRbacConfig", "RbacConfig", "ServiceRole", "ServiceRoleBinding"})


def fields(scene: Scene) -> Iterator[Found]:
    """Deprecated fields of VirtualServices and Sidecars, and definitions of kinds that are no more."""
    for item in scene.of("networking.istio.io/VirtualService"):
        for index, rule in rows(item.spec, "http"):
            if (number(rule, "fault", "delay", "percent") or 0) > 0:
                path: Path = ("spec", "http", index, "fault", "delay", "percent")
                yield Found(item, "IST0002", "fault.delay.percent is deprecated: write percentage", path)
    for item in scene.of("networking.istio.io/Sidecar"):
        if at(item.spec, "outboundTrafficPolicy", "egressProxy") is not None:
            path = ("spec", "outboundTrafficPolicy", "egressProxy")
            message = "outboundTrafficPolicy.egressProxy is deprecated: Istio ignores it, weft heeds it"
            yield Found(item, "IST0002", message, path)
    for item in scene.of("apiextensions.k8s.io/CustomResourceDefinition"):
        kind = word(item.spec, "names", "kind")
        if word(item.spec, "group") == "rbac.istio.io" and kind in _REMOVED:
            yield Found(item, "IST0002", f"Istio has no kind {kind} of rbac.istio.io any more")


def lightstep(scene: Scene) -> Iterator[Found]:
    """Traces to the provider that OpenTelemetry replaces."""
    names = {
        word(provider, "name")
        for _, provider in rows(scene.mesh, "extensionProviders")
        if table(provider, "lightstep")
    }
    for item in scene.of("telemetry.istio.io/Telemetry") if names else ():
        for index, tracing in rows(item.spec, "tracing"):
            for place, provider in rows(tracing, "providers"):
                if (name := word(provider, "name")) in names:
                    path = ("spec", "tracing", index, "providers", place)
                    message = f"the provider {name} is for Lightstep, which is deprecated: use OpenTelemetry"
                    yield Found(item, "IST0002", message, path)
