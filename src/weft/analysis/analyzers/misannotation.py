"""Istio's annotations on Namespaces, Services, Pods and Deployments (IST0107, 0108, 0125, 0135, 0136).

The names are those of istio/api, annotation/annotations.yaml; the checks of values those of istio/istio,
pkg/kube/inject/validate.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import Any, Final

from weft.analysis.objects import Object
from weft.analysis.scene import INJECT, Found, Scene
from weft.analysis.tree import rows, word
from weft.yaml import load

ANY: Final = "Any"
INGRESS_CLASS: Final = "kubernetes.io/ingress.class"
_STABLE: Final = frozenset({INGRESS_CLASS, "traffic.istio.io/nodeSelector"})
_BETA: Final = frozenset({"ambient.istio.io/redirection", "proxy.istio.io/config", INJECT})

_FOR_PODS: Final = """
ambient.istio.io/bypass-inbound-capture ambient.istio.io/dns-capture ambient.istio.io/redirection
inject.istio.io/templates istio.io/reroute-virtual-interfaces istio.io/rev
prometheus.istio.io/merge-metrics proxy.istio.io/config proxy.istio.io/overrides
readiness.status.sidecar.istio.io/applicationPorts readiness.status.sidecar.istio.io/failureThreshold
readiness.status.sidecar.istio.io/initialDelaySeconds readiness.status.sidecar.istio.io/periodSeconds
sidecar.istio.io/agentLogLevel sidecar.istio.io/bootstrapOverride sidecar.istio.io/componentLogLevel
sidecar.istio.io/discoveryAddress sidecar.istio.io/extraStatTags sidecar.istio.io/inject
sidecar.istio.io/interceptionMode sidecar.istio.io/logLevel sidecar.istio.io/nativeSidecar
sidecar.istio.io/proxyCPU sidecar.istio.io/proxyCPULimit sidecar.istio.io/proxyImage
sidecar.istio.io/proxyImageType sidecar.istio.io/proxyMemory sidecar.istio.io/proxyMemoryLimit
sidecar.istio.io/rewriteAppHTTPProbers sidecar.istio.io/statsCompression
sidecar.istio.io/statsEvictionInterval sidecar.istio.io/statsFlushInterval
sidecar.istio.io/statsHistogramBins sidecar.istio.io/statsHistogramBuckets
sidecar.istio.io/statsInclusionPrefixes sidecar.istio.io/statsInclusionRegexps
sidecar.istio.io/statsInclusionSuffixes sidecar.istio.io/status sidecar.istio.io/userVolume
sidecar.istio.io/userVolumeMount status.sidecar.istio.io/port traffic.sidecar.istio.io/excludeInboundPorts
traffic.sidecar.istio.io/excludeInterfaces traffic.sidecar.istio.io/excludeOutboundIPRanges
traffic.sidecar.istio.io/excludeOutboundPorts traffic.sidecar.istio.io/includeInboundPorts
traffic.sidecar.istio.io/includeOutboundIPRanges traffic.sidecar.istio.io/includeOutboundPorts
traffic.sidecar.istio.io/kubevirtInterfaces
"""
KINDS: Final[dict[str, tuple[str, ...]]] = dict.fromkeys(_FOR_PODS.split(), ("Pod",)) | {
    "alpha.istio.io/canonical-serviceaccounts": ("Service",),
    "alpha.istio.io/kubernetes-serviceaccounts": ("Service",),
    "ambient.istio.io/waypoint-inbound-binding": ("GatewayClass", "Gateway"),
    "galley.istio.io/analyze-suppress": (ANY,),
    "gateway.istio.io/controller-version": (ANY,),
    "gateway.istio.io/name-override": ("Gateway",),
    "gateway.istio.io/service-account": ("Gateway",),
    "istio.io/autoRegistrationGroup": ("WorkloadEntry",),
    "istio.io/connectedAt": ("WorkloadEntry",),
    "istio.io/disconnectedAt": ("WorkloadEntry",),
    "istio.io/dry-run": ("AuthorizationPolicy",),
    "istio.io/use-waypoint-canary-weight": ("Service", "ServiceEntry", "Namespace"),
    "istio.io/workloadController": ("WorkloadEntry",),
    INGRESS_CLASS: ("Ingress",),
    "networking.istio.io/exportTo": ("Service",),
    "networking.istio.io/service-type": ("Gateway",),
    "networking.istio.io/traffic-distribution": ("Namespace", "Service", "ServiceEntry"),
    "topology.istio.io/controlPlaneClusters": ("Namespace",),
    "traffic.istio.io/nodeSelector": ("Service",),
}
"""Which kinds each annotation is for."""

DEPRECATED: Final = frozenset(
    {
        "alpha.istio.io/canonical-serviceaccounts",
        "alpha.istio.io/kubernetes-serviceaccounts",
        "sidecar.istio.io/discoveryAddress",
        "sidecar.istio.io/extraStatTags",
        INJECT,
        "sidecar.istio.io/statsCompression",
        "sidecar.istio.io/statsInclusionPrefixes",
        "sidecar.istio.io/statsInclusionRegexps",
        "sidecar.istio.io/statsInclusionSuffixes",
        "traffic.sidecar.istio.io/kubevirtInterfaces",
    }
)
# Written by Istio itself.
_WRITTEN: Final = frozenset(
    {"sidecar.istio.io/status", "gateway.istio.io/controller-version", "istio.io/rev"}
)
# Written by Istio's CNI plug-in.
_WRITTEN_BY_CNI: Final = frozenset(
    {
        "sidecar.istio.io/interceptionMode",
        "traffic.sidecar.istio.io/includeInboundPorts",
        "traffic.sidecar.istio.io/excludeInboundPorts",
        "traffic.sidecar.istio.io/includeOutboundIPRanges",
    }
)
_LOOKED_AT: Final = ("/Namespace", "/Service", "/Pod", "apps/Deployment")


def misused(scene: Scene) -> Iterator[Found]:
    """Annotations that Istio does not know, that stand in the wrong place or have an impossible value."""
    for kind in _LOOKED_AT:
        for item in scene.of(kind):
            for name, value in item.annotations.items():
                if _istios(name) and name not in _WRITTEN:
                    yield from _judge(item, name, value)


def alpha(scene: Scene) -> Iterator[Found]:
    """Annotations of experimental features."""
    for kind in _LOOKED_AT:
        for item in scene.of(kind):
            cni = kind == "/Pod" and not any(
                word(one, "name") == "istio-init" for _, one in rows(item.spec, "initContainers")
            )
            for name in item.annotations:
                if (
                    name not in KINDS
                    or name in _STABLE | _BETA | _WRITTEN
                    or (cni and name in _WRITTEN_BY_CNI)
                ):
                    continue
                yield Found(
                    item, "IST0136", f"the annotation {name} is of an experimental feature", _path(name)
                )


def _path(name: str) -> tuple[str, ...]:
    return ("metadata", "annotations", name)


def _istios(name: str) -> bool:
    return name == INGRESS_CLASS or name.partition("/")[0].endswith("istio.io")


def _judge(item: Object, name: str, value: str) -> Iterator[Found]:
    kinds = KINDS.get(name)
    if kinds is None:
        yield Found(item, "IST0108", f"there is no annotation {name}", _path(name))
        return
    if name in DEPRECATED and not (name == INJECT and INJECT in item.labels):
        instead = f": use the label {INJECT}" if name == INJECT else ""
        yield Found(item, "IST0135", f"the annotation {name} is deprecated{instead}", _path(name))
    if ANY in kinds:
        return
    if item.kind.rpartition("/")[2] not in kinds:
        where = " or ".join(kinds)
        yield Found(item, "IST0107", f"the annotation {name} has an effect on {where} only", _path(name))
        return
    flaw = CHECKS[name](value) if name in CHECKS else ""
    if flaw:
        yield Found(item, "IST0125", f"the annotation {name} cannot be {value!r}: {flaw}", _path(name))


def _mode(value: str) -> str:
    return "" if value in {"REDIRECT", "TPROXY", "NONE"} else "write REDIRECT, TPROXY or NONE"


def _port(value: str) -> str:
    text = value.strip()
    fine = text.isascii() and text.isdigit() and int(text) < 65_536
    return "" if fine else f"{text!r} is not a port"


def _ports(value: str) -> str:
    parts = value.strip().split(",") if value.strip() else []
    return next((flaw for part in parts if (flaw := _port(part))), "")


def _ranges(value: str) -> str:
    for part in value.split(",") if value else []:
        try:
            if "/" not in part:
                raise ValueError
            ip_network(part, strict=False)
        except ValueError:
            return f"{part!r} is not a range of addresses, like 10.0.0.0/8"
    return ""


def _star_or(check: Callable[[str], str]) -> Callable[[str], str]:
    return lambda value: "" if value == "*" else check(value)


def _count(value: str) -> str:
    fine = value.isascii() and value.isdigit() and int(value) < 1 << 32
    return "" if fine else "write a whole number"


def _flag(value: str) -> str:
    known = {"1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"}
    return "" if value in known else "write true or false"


_INTERFACE: Final = re.compile(r"[^\s/]{1,15}")


def _interfaces(value: str) -> str:
    for part in value.split(",") if value.strip() else []:
        if not _INTERFACE.fullmatch(part.strip()):
            return f"{part!r} is not the name of a network interface"
    return ""


_QUANTITY: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?")


def _quantity(value: str) -> str:
    return "" if _QUANTITY.fullmatch(value) else "write a quantity, like 100m or 128Mi"


def _settings(value: str) -> str:
    from pydantic import ValidationError

    from weft.model.proxy_settings import ProxySettings

    documents, problems = load(value, "annotation")
    if problems or (value.strip() and not documents):
        return "it is not YAML" if value.strip() not in {"{}", ""} else ""
    data: Any = documents[0].data if documents else {}
    try:
        ProxySettings.model_validate(data)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}"
    return ""


CHECKS: Final[dict[str, Callable[[str], str]]] = {
    "sidecar.istio.io/interceptionMode": _mode,
    "status.sidecar.istio.io/port": _port,
    "readiness.status.sidecar.istio.io/initialDelaySeconds": _count,
    "readiness.status.sidecar.istio.io/periodSeconds": _count,
    "readiness.status.sidecar.istio.io/failureThreshold": _count,
    "traffic.sidecar.istio.io/includeOutboundIPRanges": _star_or(_ranges),
    "traffic.sidecar.istio.io/excludeOutboundIPRanges": _ranges,
    "traffic.sidecar.istio.io/includeInboundPorts": _star_or(_ports),
    "traffic.sidecar.istio.io/excludeInboundPorts": _ports,
    "traffic.sidecar.istio.io/excludeOutboundPorts": _ports,
    "traffic.sidecar.istio.io/excludeInterfaces": _interfaces,
    "traffic.sidecar.istio.io/kubevirtInterfaces": _interfaces,
    "istio.io/reroute-virtual-interfaces": _interfaces,
    "prometheus.istio.io/merge-metrics": _flag,
    "proxy.istio.io/config": _settings,
    "sidecar.istio.io/proxyCPU": _quantity,
    "sidecar.istio.io/proxyMemory": _quantity,
    "sidecar.istio.io/proxyCPULimit": _quantity,
    "sidecar.istio.io/proxyMemoryLimit": _quantity,
}
"""What is wrong with a value, or nothing."""
