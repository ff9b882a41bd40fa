"""What nodes are told of an instance as it starts: ProxyConfig, EnvoyFilters of the bootstrap, its probe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from weft.compile.gatewayapi.infrastructure import annotations_of
from weft.compile.istio.envoy_filter import patches_of
from weft.compile.istio.proxy_config import annotated, start_of
from weft.compile.istio.proxy_settings import merged
from weft.compile.istio.proxy_start import told
from weft.compile.istio.service_entry import locality
from weft.compile.mesh import said
from weft.compile.whereabouts import labelled
from weft.control.entry import GROUP_KIND
from weft.emit.patches.bootstrap import fragments_of
from weft.instance import Instance
from weft.ir import NOWHERE
from weft.model.core import ConfigMap
from weft.model.envoy_filter import EnvoyFilter
from weft.model.gateway import Gateway
from weft.model.mesh_config import MeshConfig
from weft.model.parse import parse_object
from weft.model.proxy_config import ProxyConfig
from weft.model.resource import Key, Resource
from weft.names import GATEWAY_NAME_LABEL, LOCALITY_LABEL, ROOT_NAMESPACE, WORKLOAD_LABEL
from weft.start import Json, ProxyStart
from weft.store.interface import Store

_FILTER: Final = "networking.istio.io/EnvoyFilter"
_PROXY: Final = "networking.istio.io/ProxyConfig"
_MESH: Final = "weft.dev/MeshConfig"
_WORKLOAD: Final = "weft.dev/Workload"
_GATEWAY: Final = "gateway.networking.k8s.io/Gateway"

R = TypeVar("R", bound=Resource)


async def proxy_start(store: Store, root: str, instance: Instance) -> ProxyStart:
    """For an instance that is registered now. Asked of the store: the world may not have the newest yet."""
    filters = await _all(store, _FILTER, EnvoyFilter)
    configs = await _all(store, _PROXY, ProxyConfig)
    meshes = {one.key: one for one in await _all(store, _MESH, MeshConfig)}
    maps = {one.key: one for one in await _all(store, "/ConfigMap", ConfigMap, ROOT_NAMESPACE)}
    mesh = said(meshes, maps)
    group = await _body(store, GROUP_KIND, instance, instance.group)
    workload = await _body(store, _WORKLOAD, instance, instance.labels.get(WORKLOAD_LABEL, ""))
    template = (group.get("spec") or {}).get("metadata") or {}
    annotations: dict[str, str] = {}
    for part in (group.get("metadata") or {}, template, workload.get("metadata") or {}):
        annotations |= part.get("annotations") or {}
    borne = await _of_gateway(store, root, instance, maps) if instance.kind == "router" else {}
    annotations |= borne
    defaults = mesh.default_config if mesh else None
    own = annotated(annotations)
    start = start_of(defaults, configs, instance.namespace, instance.labels, root, own)
    start = replace(start, probe=_probe(group), bootstrap=_place(instance))
    start = told(start, merged(defaults, own), annotations, (instance.address,))
    if borne:  # the Gateway's infrastructure: where nothing else is made, the proxy itself bears it
        node = {"node": {"metadata": {"ANNOTATIONS": borne}}}
        start = replace(start, bootstrap=(*start.bootstrap, node))
    if not filters:
        return start
    labels = tuple(sorted(instance.labels.items()))
    table = {one.key: one for one in filters}
    patches = fragments_of(patches_of(table, instance.namespace, labels, (), root))
    return replace(start, bootstrap=(*start.bootstrap, *patches))


async def _of_gateway(
    store: Store, root: str, instance: Instance, known: Mapping[Key, ConfigMap]
) -> dict[str, str]:
    """Annotations that the Gateway of the Gateway API, whose proxy it is, asks for."""
    name = instance.labels.get(GATEWAY_NAME_LABEL, "")
    stored = await store.get(Key(_GATEWAY, instance.namespace, name)) if name else None
    gateway = parse_object(json.loads(stored.body))[0] if stored else None
    if not isinstance(gateway, Gateway):
        return {}
    own = {one.key: one for one in await _all(store, "/ConfigMap", ConfigMap, instance.namespace)}
    return annotations_of(gateway, {**known, **own}, root)


def _place(instance: Instance) -> tuple[Json, ...]:
    """Where it is, for Envoy's balancing over zones: its node does not know of its group and its labels."""
    place = NOWHERE if LOCALITY_LABEL in instance.labels else locality(instance.locality)
    if place == NOWHERE:
        place = labelled(instance.labels)
    if place == NOWHERE:
        return ()
    return ({"node": {"locality": {"region": place.region, "zone": place.zone, "sub_zone": place.subzone}}},)


def _probe(group: Json) -> Json | None:
    """The probe of its WorkloadGroup. One that runs a command stays where it is: it would run on the host."""
    said: Json = (group.get("spec") or {}).get("probe") or {}
    return said if said and "exec" not in said else None


async def _body(store: Store, kind: str, instance: Instance, name: str) -> Json:
    """A resource of the instance's namespace as it was written; empty when there is none of that name."""
    stored = await store.get(Key(kind, instance.namespace, name)) if name else None
    body: Json = json.loads(stored.body) if stored else {}
    return body


async def _all(store: Store, kind: str, model: type[R], namespace: str | None = None) -> Sequence[R]:
    found = []
    for stored in await store.list(kind, namespace):
        resource, _ = parse_object(json.loads(stored.body))
        if isinstance(resource, model):
            found.append(resource)
    return found
