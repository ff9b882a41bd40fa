"""Meshes of several clusters and networks (IST0126, IST0170)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from weft.analysis.objects import Object
from weft.analysis.scene import Found, Scene
from weft.analysis.tree import rows, table, word

_REGISTRIES: Final = ("Mock", "Kubernetes", "External")
_OWN: Final = "this"


def networks(scene: Scene) -> Iterator[Found]:
    """Registries that networks take endpoints from, and that nobody knows."""
    known = set(_REGISTRIES)
    for secret in scene.of("/Secret"):
        if secret.labels.get("istio/multiCluster") == "true":
            known |= {*table(secret.data, "data"), *table(secret.data, "stringData")}
    config = next((item for item in scene.of("/ConfigMap") if _settings(item, scene)), None)
    where = config.where if config is not None else _unknown
    about = Object("istio.io/MeshNetworks", scene.root, "meshnetworks", {}, lambda path: where(()))
    for name, network in table(scene.networks, "networks").items():
        for _, endpoint in rows(network, "endpoints"):
            registry = word(endpoint, "fromRegistry")
            if registry and registry not in known:
                message = f"the network {name} takes endpoints from {registry!r}, which no registry is called"
                yield Found(about, "IST0126", message)


def _settings(item: Object, scene: Scene) -> bool:
    return item.name == "istio" and item.namespace == scene.root


def _unknown(path: object) -> None:
    """Settings that stand in no ConfigMap."""


def services(scene: Scene) -> Iterator[Found]:
    """Services that are not the same in every cluster."""
    if not scene.others:
        return
    named: dict[tuple[str, str], dict[str, Object]] = {}
    for cluster, objects in ((_OWN, scene.objects), *scene.others.items()):
        for service in objects.of("/Service"):
            if not service.assumed:
                named.setdefault((service.namespace, service.name), {})[cluster] = service
    for copies in named.values():
        first = next(iter(copies.values()))
        reasons = sorted({reason for other in copies.values() for reason in _differences(first, other)})
        if reasons:
            message = f"it is not the same in the clusters {', '.join(copies)}: {'; '.join(reasons)}"
            yield Found(first, "IST0170", message)


def _differences(one: Object, other: Object) -> Iterator[str]:
    if (word(one.spec, "clusterIP") == "None") != (word(other.spec, "clusterIP") == "None"):
        yield "headless in some, with an address in others"
    if (word(one.spec, "type") or "ClusterIP") != (word(other.spec, "type") or "ClusterIP"):
        yield "types differ"
    if _ports(one) != _ports(other):
        yield "ports differ"


def _ports(service: Object) -> list[Mapping[str, Any]]:
    return sorted((row for _, row in rows(service.spec, "ports")), key=lambda row: word(row, "name"))
