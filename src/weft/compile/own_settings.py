"""What one proxy was told for itself: by annotations of its workload, its group, or its Gateway."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from weft import ir
from weft.compile.gatewayapi.gateway import gateway_named
from weft.compile.gatewayapi.infrastructure import annotations_of
from weft.compile.handling import Handling
from weft.compile.istio.proxy_config import ANNOTATION, settings_in, start_of
from weft.compile.istio.proxy_settings import handling_of, merged
from weft.compile.istio.proxy_start import told
from weft.compile.mesh import said
from weft.compile.world import World
from weft.model.core import ConfigMap
from weft.model.mesh_config import MeshConfig
from weft.model.proxy_config import ProxyConfig
from weft.model.proxy_settings import ProxySettings
from weft.model.resource import Key
from weft.model.workload import Workload
from weft.model.workload_entry import WorkloadEntry
from weft.model.workload_group import WorkloadGroup
from weft.names import GROUP_ANNOTATION, REPLICA, WORKLOAD_LABEL
from weft.start import ProxyStart

_ENTRY: Final = "networking.istio.io/WorkloadEntry"
_GROUP: Final = "networking.istio.io/WorkloadGroup"
_WORKLOAD: Final = "weft.dev/Workload"
_ORDINARY: Final = Handling()


def handling(world: World, identity: ir.ProxyIdentity) -> Handling:
    """How a proxy treats connections, requests and headers."""
    memo = world.memo
    defaults = memo(_defaults, world.all(MeshConfig), world.all(ConfigMap))
    own = memo(settings_in, notes(world, identity).get(ANNOTATION, ""))
    if defaults is None and own is None:
        return _ORDINARY
    return memo(_handling, defaults, own, identity.name.kind == "router")


def proxy_settings(world: World, identity: ir.ProxyIdentity) -> ProxySettings | None:
    """The mesh's settings of proxies with a proxy's own over them; None where there are neither."""
    memo = world.memo
    defaults = memo(_defaults, world.all(MeshConfig), world.all(ConfigMap))
    own = memo(settings_in, notes(world, identity).get(ANNOTATION, ""))
    return memo(merged, defaults, own)


def start(world: World, identity: ir.ProxyIdentity) -> ProxyStart:
    """What a proxy is to be started with, patches of its bootstrap apart."""
    noted = notes(world, identity)
    defaults, own = (
        _defaults(world.all(MeshConfig), world.all(ConfigMap)),
        settings_in(noted.get(ANNOTATION, "")),
    )
    name, root = identity.name, world.settings.root_namespace
    configs = world.all(ProxyConfig).values()
    made = start_of(defaults, configs, name.namespace, dict(identity.labels), root, own)
    return told(made, merged(defaults, own), noted, (name.address,))


def notes(world: World, identity: ir.ProxyIdentity) -> Mapping[str, str]:
    """What is noted on a proxy's group, workload and entry, the last word last; or on its Gateway."""
    labels, namespace = identity.labels, identity.name.namespace
    if identity.name.kind == "router":
        facts = world.gateway_facts
        gateway = world.memo(gateway_named, facts, namespace, labels)
        if gateway is not None:
            return world.memo(annotations_of, gateway, facts.config_maps, world.settings.root_namespace)
    own = identity.name.name
    names = (dict(labels).get(WORKLOAD_LABEL, ""), own, REPLICA.sub("", own))
    known = world.all(Workload)
    workload = next((known[key] for one in names if (key := Key(_WORKLOAD, namespace, one)) in known), None)
    entry = world.all(WorkloadEntry).get(Key(_ENTRY, namespace, own))
    noted = (entry.metadata.annotations or {}) if entry is not None else {}
    group = world.all(WorkloadGroup).get(Key(_GROUP, namespace, noted.get(GROUP_ANNOTATION, "")))
    template = group.spec.metadata if group is not None else None
    return {
        **((group.metadata.annotations or {}) if group is not None else {}),
        **((template.annotations or {}) if template is not None else {}),
        **((workload.metadata.annotations or {}) if workload is not None else {}),
        **noted,
    }


def _defaults(configs: Mapping[Key, MeshConfig], maps: Mapping[Key, ConfigMap]) -> ProxySettings | None:
    mesh = said(configs, maps)
    return mesh.default_config if mesh is not None else None


def _handling(defaults: ProxySettings | None, own: ProxySettings | None, gateway: bool) -> Handling:
    return handling_of(merged(defaults, own), gateway)
