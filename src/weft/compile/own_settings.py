"""What one proxy was told for itself: by annotations of its workload, its group, or its Gateway."""

from __future__ import annotations

from collections.abc import Mapping

from weft import ir
from weft.compile.gatewayapi.gateway import gateway_named
from weft.compile.gatewayapi.infrastructure import annotations_of
from weft.compile.handling import Handling
from weft.compile.istio.proxy_config import ANNOTATION, settings_in
from weft.compile.istio.proxy_settings import handling_of, merged
from weft.compile.mesh import said
from weft.compile.world import World
from weft.model.core import ConfigMap
from weft.model.gateway import Gateway
from weft.model.mesh_config import MeshConfig
from weft.model.proxy_settings import ProxySettings
from weft.model.resource import Key
from weft.model.workload import Workload
from weft.model.workload_entry import WorkloadEntry
from weft.model.workload_group import WorkloadGroup
from weft.names import GROUP_ANNOTATION, REPLICA, WORKLOAD_LABEL

_ENTRY = "networking.istio.io/WorkloadEntry"
_GROUP = "networking.istio.io/WorkloadGroup"
_WORKLOAD = "weft.dev/Workload"


def handling(world: World, identity: ir.ProxyIdentity) -> Handling:
    """How a proxy treats connections, requests and headers."""
    memo = world.memo
    defaults = memo(_defaults, world.all(MeshConfig), world.all(ConfigMap))
    own = memo(settings_in, annotated(world, identity))
    if defaults is None and own is None:
        return ORDINARY
    return memo(_handling, defaults, own, identity.name.kind == "router")


def annotated(world: World, identity: ir.ProxyIdentity) -> str:
    """The text of ``proxy.istio.io/config`` for a proxy; empty where there is none."""
    labels, namespace = identity.labels, identity.name.namespace
    if identity.name.kind == "router":
        facts = world.gateway_facts
        gateway = world.memo(gateway_named, facts, namespace, labels)
        if gateway is not None:
            maps, root = facts.config_maps, world.settings.root_namespace
            return world.memo(_of_gateway, gateway, maps, root)
    own = identity.name.name
    name = dict(labels).get(WORKLOAD_LABEL, "")
    workloads = world.all(Workload)
    workload = next(
        (
            found
            for one in filter(None, (name, own, REPLICA.sub("", own)))
            if (found := workloads.get(Key(_WORKLOAD, namespace, one))) is not None
        ),
        None,
    )
    entry = world.all(WorkloadEntry).get(Key(_ENTRY, namespace, own))
    noted = entry.metadata.annotations or {} if entry is not None else {}
    group = world.all(WorkloadGroup).get(Key(_GROUP, namespace, noted.get(GROUP_ANNOTATION, "")))
    said_last = [noted, (workload.metadata.annotations or {}) if workload is not None else {}]
    if group is not None:
        template = group.spec.metadata
        said_last += [(template.annotations or {}) if template is not None else {}]
        said_last += [group.metadata.annotations or {}]
    return next((texts[ANNOTATION] for texts in said_last if ANNOTATION in texts), "")


ORDINARY = Handling()


def _defaults(configs: Mapping[Key, MeshConfig], maps: Mapping[Key, ConfigMap]) -> ProxySettings | None:
    mesh = said(configs, maps)
    return mesh.default_config if mesh is not None else None


def _handling(defaults: ProxySettings | None, own: ProxySettings | None, gateway: bool) -> Handling:
    return handling_of(merged(defaults, own), gateway)


def _of_gateway(gateway: Gateway, maps: Mapping[Key, ConfigMap], root: str) -> str:
    return annotations_of(gateway, maps, root).get(ANNOTATION, "")
