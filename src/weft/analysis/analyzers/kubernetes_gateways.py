"""Policies on the proxies of Kubernetes Gateways, and definitions of the Gateway API (IST0166, IST0176)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from weft.analysis.scene import Found, Scene, selects
from weft.analysis.tree import pairs, table
from weft.names import GATEWAY_NAME_LABEL

_POLICIES: Final = (
    "security.istio.io/AuthorizationPolicy",
    "security.istio.io/RequestAuthentication",
    "telemetry.istio.io/Telemetry",
    "extensions.istio.io/WasmPlugin",
)
_BUNDLE: Final = "gateway.networking.k8s.io/bundle-version"
MINIMUM: Final = {
    "grpcroutes.gateway.networking.k8s.io": (1, 1, 0),
    "backendtlspolicies.gateway.networking.k8s.io": (1, 4, 0),
    "tlsroutes.gateway.networking.k8s.io": (1, 5, 0),
    "tcproutes.gateway.networking.k8s.io": (1, 6, 0),
}
"""The oldest definitions that Istio 1.31 uses (istio/istio, pkg/config/schema/gatewayapi)."""
_VERSION: Final = re.compile(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:[-+].*)?")


def selectors(scene: Scene) -> Iterator[Found]:
    """Selectors that choose a Gateway's proxy: targetRef is for that."""
    pods = [pod for pod in scene.of("/Pod") if GATEWAY_NAME_LABEL in pod.labels]
    for kind in _POLICIES if pods else ():
        for item in scene.of(kind):
            if table(item.spec, "targetRef") or not isinstance(item.spec.get("selector"), dict):
                continue
            selector = pairs(item.spec, "selector", "matchLabels")
            names = {
                pod.labels[GATEWAY_NAME_LABEL]
                for pod in pods
                if pod.namespace == item.namespace and selects(selector, pod.labels)
            }
            for name in sorted(names):
                message = f"the selector has no effect on the Kubernetes Gateway {name}: write targetRefs"
                yield Found(item, "IST0166", message, ("spec", "selector"))


def definitions(scene: Scene) -> Iterator[Found]:
    """Definitions of the Gateway API that are too old."""
    for item in scene.of("apiextensions.k8s.io/CustomResourceDefinition"):
        minimum, given = MINIMUM.get(item.name), item.annotations.get(_BUNDLE, "")
        version = _VERSION.fullmatch(given)
        if minimum and version and tuple(int(part or 0) for part in version.groups()) < minimum:
            oldest = ".".join(map(str, minimum))
            message = (
                f"{item.name} is of version {given}; Istio needs {oldest} and ignores the kind otherwise"
            )
            yield Found(item, "IST0176", message, ("metadata", "annotations", _BUNDLE))
