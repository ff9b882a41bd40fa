"""Sidecars and Telemetry resources: whom they select, and who else does.

IST0101, IST0110, IST0111, IST0157, IST0159, IST0160, IST0167.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from weft.analysis.objects import Object
from weft.analysis.scene import DATAPLANE, INJECTION, REVISION, Bearer, Found, Scene, selects, shown
from weft.analysis.tree import at, pairs, rows
from weft.yaml import Path

SIDECAR: Final = "networking.istio.io/Sidecar"
TELEMETRY: Final = "telemetry.istio.io/Telemetry"


@dataclass(frozen=True, slots=True)
class _Choice:
    """What of one kind chose which workloads: the resources by workload, and those that chose nobody."""

    by_pod: tuple[tuple[Bearer, tuple[Object, ...]], ...]
    idle: tuple[Object, ...]


def _choose(
    scene: Scene, items: Iterable[Object], selector_of: Callable[[Object], dict[str, str]]
) -> _Choice:
    pods: dict[str, list[Bearer]] = {}
    for pod in scene.pods:
        pods.setdefault(pod.namespace, []).append(pod)
    chosen: dict[Bearer, list[Object]] = {}
    idle: list[Object] = []
    for item in items:
        selector = selector_of(item)
        members = [pod for pod in pods.get(item.namespace, ()) if selects(selector, pod.labels)]
        for pod in members:
            chosen.setdefault(pod, []).append(item)
        if not members:
            idle.append(item)
    return _Choice(tuple((pod, tuple(group)) for pod, group in chosen.items()), tuple(idle))


def _idle(item: Object, selector: dict[str, str], path: Path) -> Found:
    message = f"the selector {shown(selector)} chooses no workload of {item.namespace}"
    return Found(item, "IST0101", message, (*path, *sorted(selector)[:1]))


def _names(items: Iterable[Object]) -> str:
    return ", ".join(sorted(item.name for item in items))


def _sidecar_selector(item: Object) -> dict[str, str]:
    return pairs(item.spec, "workloadSelector", "labels")


def _telemetry_selector(item: Object) -> dict[str, str]:
    return pairs(item.spec, "selector", "matchLabels")


def sidecars(scene: Scene) -> Iterator[Found]:
    """Sidecars that select nobody, or the same workloads as others, or whose workloads have no sidecar."""
    selective = [item for item in scene.of(SIDECAR) if _sidecar_selector(item)]
    choice = _choose(scene, selective, _sidecar_selector)
    for item in choice.idle:
        yield _idle(item, _sidecar_selector(item), ("spec", "workloadSelector", "labels"))
    told: set[Object] = set()
    for pod, group in choice.by_pod:
        for item in group:
            if pod.ambient:
                if item not in told:
                    told.add(item)
                    yield Found(item, "IST0167", f"it has no effect: {pod.owner.name} is in ambient mode")
            elif len(group) > 1:
                message = (
                    f"the Sidecars {_names(group)} of {item.namespace} select the workload {pod.owner.name}"
                )
                yield Found(item, "IST0110", message, ("metadata", "name"))
    for namespace, whole in _whole(scene, SIDECAR, _sidecar_selector).items():
        if _ambient(scene.find("/Namespace", "", namespace)):
            for item in whole:
                if item not in told:
                    yield Found(item, "IST0167", f"it has no effect: {namespace} is in ambient mode")
        elif len(whole) > 1:
            for item in whole:
                message = f"the Sidecars {_names(whole)} of {namespace} have no selector: one may"
                yield Found(item, "IST0111", message, ("metadata", "name"))


def _whole(
    scene: Scene, kind: str, selector_of: Callable[[Object], dict[str, str]]
) -> dict[str, list[Object]]:
    """Resources that are for their whole namespace."""
    found: dict[str, list[Object]] = {}
    for item in scene.of(kind):
        if not selector_of(item):
            found.setdefault(item.namespace, []).append(item)
    return found


def _ambient(namespace: Object | None) -> bool:
    if namespace is None or namespace.labels.get(INJECTION) == "enabled" or namespace.labels.get(REVISION):
        return False
    return namespace.labels.get(DATAPLANE) == "ambient"


def telemetries(scene: Scene) -> Iterator[Found]:
    """Telemetry resources that select nobody, or the same workloads as others."""
    selective = [item for item in scene.of(TELEMETRY) if _telemetry_selector(item)]
    choice = _choose(scene, selective, _telemetry_selector)
    for item in choice.idle:
        yield _idle(item, _telemetry_selector(item), ("spec", "selector", "matchLabels"))
    for pod, group in choice.by_pod:
        for item in group if len(group) > 1 else ():
            names = _names(group)
            message = (
                f"the Telemetry resources {names} of {item.namespace} select the workload {pod.owner.name}"
            )
            yield Found(item, "IST0159", message, ("metadata", "name"))


def default_telemetries(scene: Scene) -> Iterator[Found]:
    """Several Telemetry resources for one whole namespace."""
    spaces: dict[str, list[Object]] = {}
    for item in scene.of(TELEMETRY):
        if not isinstance(item.spec.get("selector"), dict) and not _targeted(item):
            spaces.setdefault(item.namespace, []).append(item)
    for namespace, group in spaces.items():
        for item in group if len(group) > 1 else ():
            message = f"the Telemetry resources {_names(group)} of {namespace} have no selector: one may"
            yield Found(item, "IST0160", message, ("metadata", "name"))


def _targeted(item: Object) -> bool:
    return bool(at(item.spec, "targetRef") or at(item.spec, "targetRefs"))


def providers(scene: Scene) -> Iterator[Found]:
    """Access logs that go nowhere: no provider here, and no default one in the mesh's settings."""
    if at(scene.mesh, "defaultProviders", "accessLogging"):
        return
    for item in scene.of(TELEMETRY):
        for index, log in rows(item.spec, "accessLogging"):
            if log.get("disabled") is not True and not log.get("providers"):
                message = "access logging without a provider is ignored: name one, or a default in MeshConfig"
                yield Found(item, "IST0157", message, ("spec", "accessLogging", index))
