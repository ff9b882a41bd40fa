"""Deployments and their Services (IST0116, IST0137); applications of the sidecar's user (IST0144)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from weft.analysis.objects import Object
from weft.analysis.scene import Bearer, Found, Scene, is_proxy, selects
from weft.analysis.tree import at, number, pairs, rows, table, word

SIDECAR_USER: Final = 1337
_WAYPOINT: Final = "istio.io-mesh-controller"


def services(scene: Scene) -> Iterator[Found]:
    """Services that disagree about the ports of one deployment."""
    for deployment in scene.of("apps/Deployment"):
        template = table(deployment.spec, "template")
        labels = pairs(template, "metadata", "labels")
        annotations = pairs(template, "metadata", "annotations")
        pod = Bearer(deployment, labels, annotations, table(template, "spec"))
        if deployment.labels.get("gateway.istio.io/managed") == _WAYPOINT or not scene.in_mesh(pod):
            continue
        chosen = []
        for service in scene.services.get(deployment.namespace, ()):
            selector = pairs(service.spec, "selector")
            if selector and selects(selector, labels):
                chosen.append(service)
        yield from _protocols(deployment, chosen)
        yield from _targets(deployment, chosen)


def _protocols(deployment: Object, services: list[Object]) -> Iterator[Found]:
    ports: dict[int, dict[str, list[str]]] = {}
    for service in services:
        for _, row in rows(service.spec, "ports"):
            port = number(row, "port") or 0
            ports.setdefault(port, {}).setdefault(word(row, "protocol") or "TCP", []).append(
                service.full_name
            )
    for port, protocols in ports.items():
        if len(protocols) > 1:
            names = ", ".join(sorted(name for group in protocols.values() for name in group))
            message = f"its Services {names} use port {port} with different protocols"
            yield Found(deployment, "IST0116", message, ("metadata", "name"))


def _targets(deployment: Object, services: list[Object]) -> Iterator[Found]:
    targets: dict[str, dict[int, str]] = {}
    for service in services:
        for _, row in rows(service.spec, "ports"):
            port = number(row, "port") or 0
            target = word(row, "targetPort")
            target = str(port) if target in {"", "0"} else target
            targets.setdefault(target, {})[port] = service.full_name
    for target, ports in targets.items():
        if len(ports) > 1:
            names = ", ".join(sorted(ports.values()))
            numbers = ", ".join(map(str, sorted(ports)))
            message = f"its Services {names} lead the ports {numbers} to the one target port {target}"
            yield Found(deployment, "IST0137", message, ("metadata", "name"))


def users(scene: Scene) -> Iterator[Found]:
    """Applications under the uid whose traffic is taken for the sidecar's own."""
    for kind, path in (("/Pod", ("spec",)), ("apps/Deployment", ("spec", "template", "spec"))):
        for item in scene.of(kind):
            if not of_control_plane(item) and _as_sidecar(at(item.data, *path)):
                message = f"the application runs as user {SIDECAR_USER}, whose traffic passes the sidecar by"
                yield Found(item, "IST0144", message, (*path, "securityContext"))


def of_control_plane(item: Object) -> bool:
    """Whether this is a part of Istio."""
    return "istio" in item.labels or item.labels.get("release") == "istio"


def _as_sidecar(pod: Any) -> bool:
    if number(pod, "securityContext", "runAsUser") == SIDECAR_USER:
        return True
    return any(
        number(container, "securityContext", "runAsUser") == SIDECAR_USER
        for _, container in rows(pod, "containers")
        if not is_proxy(container) and word(container, "name") != "istio-operator"
    )
