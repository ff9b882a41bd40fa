"""The templates of pods in Kubernetes' workloads: what their annotations say to a sidecar.

weft runs no pods; but a template that Istio's injection would refuse is told, so that files can be checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from pydantic import ValidationError

from weft.model.base import Flaw, Shape, each
from weft.model.hosts import is_range
from weft.model.proxy_settings import ProxySettings
from weft.yaml import Path, kind_of, load

_TEMPLATES: Final[dict[tuple[str, str], Path]] = {
    ("v1", "Pod"): (),
    ("v1", "PodTemplate"): ("template",),
    ("v1", "ReplicationController"): ("spec", "template"),
    **{
        ("apps/v1", kind): ("spec", "template")
        for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")
    },
    ("batch/v1", "Job"): ("spec", "template"),
    ("batch/v1", "CronJob"): ("spec", "jobTemplate", "spec", "template"),
}
_TRUTHS: Final = frozenset({"1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"})
_MODES: Final = ("REDIRECT", "TPROXY", "NONE")
_QUANTITY: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?")
_INTERFACE: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9_.\-]{0,14}")


def is_workload(api_version: str, kind: str) -> bool:
    """Whether the kind has pods, which weft does not run."""
    return (api_version, kind) in _TEMPLATES


def flaws(data: Mapping[str, Any]) -> Iterator[Flaw]:
    """What is wrong with the annotations of a workload's pods."""
    path = _TEMPLATES[(data["apiVersion"], data["kind"])]
    found: Any = data
    for step in (*path, "metadata", "annotations"):
        found = found.get(step) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        return
    for name, value in found.items():
        place = (*path, "metadata", "annotations", name)
        if not isinstance(value, str):
            yield Flaw(place, f"must be text, not {kind_of(value)}", "put it in quotes")
        elif name == _PROXY_CONFIG:
            yield from each(place, _settings(value))
        elif name in _CHECKS:
            yield from each(place, [_CHECKS[name](value)])


def _settings(text: str) -> Iterator[str]:
    """A ProxyConfig in YAML."""
    documents, problems = load(text, "")
    if problems or not documents:
        yield from (problem.message for problem in problems)
        return
    try:
        settings = ProxySettings.model_validate(documents[0].data)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            if detail["type"] != "extra_forbidden":  # sidecars of other versions may know it
                yield f"{'.'.join(map(str, detail['loc']))}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"
        return
    yield from (flaw.message for flaw in _inner(settings) if not flaw.warns)


def _inner(value: object) -> Iterator[Flaw]:
    if isinstance(value, Shape):
        yield from value.flaws()
        for name in value.model_fields_set & type(value).model_fields.keys():
            yield from _inner(getattr(value, name))
    elif isinstance(value, tuple):
        for item in value:
            yield from _inner(item)


def _ranges(text: str) -> str:
    bad = next((part for part in text.split(",") if not is_range(part)), None) if text else None
    return "" if bad is None else f"{bad!r} is not a range of addresses, as '10.0.0.0/8'"


def _port(text: str) -> str:
    good = re.fullmatch("[0-9]{1,10}", text.strip()) and int(text) <= 65535
    return "" if good else f"{text!r} is not a port"


def _ports(text: str) -> str:
    return next((wrong for part in text.split(",") if (wrong := _port(part))), "") if text.strip() else ""


def _count(text: str) -> str:
    good = re.fullmatch("[0-9]{1,10}", text) and int(text) < 2**32
    return "" if good else f"{text!r} is not a whole number"


def _interfaces(text: str) -> str:
    parts = text.split(",") if text else []
    bad = next((part for part in parts if not _INTERFACE.fullmatch(part.strip())), None)
    return "" if bad is None else f"{bad!r} is not the name of an interface"


def _quantity(text: str) -> str:
    return "" if _QUANTITY.fullmatch(text) else f"{text!r} is not a quantity, as '100m' or '128Mi'"


def _truth(text: str) -> str:
    return "" if text in _TRUTHS else f"{text!r} is neither true nor false"


def _mode(text: str) -> str:
    return "" if text in _MODES else f"{text!r} is not known: write {', '.join(_MODES)}"


def _or_all(check: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: "" if text == "*" else check(text)


_PROXY_CONFIG: Final = "proxy.istio.io/config"
_CHECKS: Final[dict[str, Callable[[str], str]]] = {
    "sidecar.istio.io/interceptionMode": _mode,
    "status.sidecar.istio.io/port": _port,
    "readiness.status.sidecar.istio.io/initialDelaySeconds": _count,
    "readiness.status.sidecar.istio.io/periodSeconds": _count,
    "readiness.status.sidecar.istio.io/failureThreshold": _count,
    "traffic.sidecar.istio.io/includeOutboundIPRanges": _or_all(_ranges),
    "traffic.sidecar.istio.io/excludeOutboundIPRanges": _ranges,
    "traffic.sidecar.istio.io/includeInboundPorts": _or_all(_ports),
    "traffic.sidecar.istio.io/excludeInboundPorts": _ports,
    "traffic.sidecar.istio.io/excludeOutboundPorts": _ports,
    "traffic.sidecar.istio.io/excludeInterfaces": _interfaces,
    "traffic.sidecar.istio.io/kubevirtInterfaces": _interfaces,
    "istio.io/reroute-virtual-interfaces": _interfaces,
    "prometheus.istio.io/merge-metrics": _truth,
    "sidecar.istio.io/proxyCPU": _quantity,
    "sidecar.istio.io/proxyMemory": _quantity,
    "sidecar.istio.io/proxyCPULimit": _quantity,
    "sidecar.istio.io/proxyMemoryLimit": _quantity,
}
