"""Patches of listeners, their filter chains and filters (Istio: listener_patch.go)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError

from weft.emit.patches.lists import keep, patch_list
from weft.emit.patches.merge import MERGES, merge_value, merged_any
from weft.emit.patches.placed import PUTTING, Placed
from weft.emit.patches.routes import patch_routes
from weft.emit.patches.sorted import Patches, applied
from weft.emit.patches.value import value_of
from weft.ir.patch import Context, Operation, Patch, Target
from weft.names import VIRTUAL_INBOUND, VIRTUAL_OUTBOUND
from weft.protos import hcm_v3
from weft.protos.wire import pack, type_url

if TYPE_CHECKING:
    from weft.protos import listener_v3

_VIRTUAL: Final = frozenset({VIRTUAL_INBOUND, VIRTUAL_OUTBOUND})
_MANAGER: Final = type_url(hcm_v3.HttpConnectionManager())


def patch_listener(listener: listener_v3.Listener, patches: Patches, context: Context) -> bool:
    """Apply to a listener what is for it, in place. False when it is to be removed."""
    for patch in patches.of(Target.LISTENER, context):
        if not _is_listener(listener, patch):
            continue
        if patch.operation is Operation.REMOVE:
            return False
        if patch.operation in MERGES:
            applied(patch, merge_value, listener, patch)
    for patch in patches.of(Target.LISTENER_FILTER, context):
        if _is_listener(listener, patch):
            _patch_listener_filters(listener, patch)
    _patch_chains(_Scene(listener, patches, context))
    return True


@dataclass(frozen=True, slots=True)
class _Scene:
    listener: listener_v3.Listener
    patches: Patches
    context: Context

    def of(self, target: Target, chain: listener_v3.FilterChain) -> list[Patch]:
        """The patches for something in a chain of this listener."""
        return [
            patch
            for patch in self.patches.of(target, self.context)
            if _is_listener(self.listener, patch) and _is_chain(self.listener, chain, patch)
        ]


def _merge_filter(into: Any, patch: Patch) -> None:
    """A filter's name is replaced, its configuration merged; one without configuration stays as it is."""
    value: Any = value_of(patch)
    if value is None or not into.HasField("typed_config"):
        return
    if value.HasField("typed_config"):
        into.typed_config.CopyFrom(merged_any(into.typed_config, value.typed_config))
    if value.name:
        into.name = value.name


def _patch_listener_filters(listener: listener_v3.Listener, patch: Patch) -> None:
    name = patch.match.listener_filter
    if patch.operation is not Operation.MERGE:
        matches = (lambda part: part.name == name) if name else None
        applied(patch, patch_list, listener.listener_filters, patch, matches)
        return
    for part in listener.listener_filters if name else ():
        if part.name == name:
            applied(patch, _merge_filter, part, patch)


def _patch_chains(scene: _Scene) -> None:
    listener = scene.listener
    for chain in listener.filter_chains:
        if chain.filters:
            _patch_chain(scene, chain)
    if listener.HasField("default_filter_chain") and listener.default_filter_chain.filters:
        _patch_chain(scene, listener.default_filter_chain)
        if not listener.default_filter_chain.filters:
            listener.ClearField("default_filter_chain")
    for patch in scene.patches.of(Target.FILTER_CHAIN, scene.context):
        if patch.operation is Operation.ADD and _is_listener(listener, patch):
            applied(patch, patch_list, listener.filter_chains, patch, None)
    keep(listener.filter_chains, lambda chain: bool(chain.filters))  # type: ignore[attr-defined]


def _patch_chain(scene: _Scene, chain: listener_v3.FilterChain) -> None:
    for patch in scene.of(Target.FILTER_CHAIN, chain):
        if patch.operation is Operation.REMOVE:
            chain.ClearField("filters")
            return
        if patch.operation in MERGES:
            applied(patch, _merge_chain, chain, patch)
    filters = scene.of(Target.NETWORK_FILTER, chain)
    placed = Placed()
    for patch in filters:
        if patch.filter_class is not None and patch.match.filter is None and patch.operation in PUTTING:
            applied(patch, placed.put, chain.filters, patch)
        elif patch.operation is not Operation.MERGE:
            applied(patch, patch_list, chain.filters, patch, _by_name(patch.match.filter))
    for part in chain.filters:
        for patch in filters:
            if patch.operation is Operation.MERGE and patch.match.filter in {None, part.name}:
                applied(patch, _merge_filter, part, patch)
        if part.typed_config.type_url == _MANAGER:
            _patch_manager(scene, chain, part)


def _by_name(name: str | None) -> Any:
    return None if name is None else lambda part: part.name == name


def _merge_chain(chain: listener_v3.FilterChain, patch: Patch) -> None:
    """Of a patch with a transport socket of the same name, only that is merged."""
    value: Any = value_of(patch)
    if value is None:
        return
    own, wanted = chain.transport_socket, value.transport_socket
    if chain.HasField("transport_socket") and value.HasField("transport_socket") and own.name == wanted.name:
        if own.HasField("typed_config") and wanted.HasField("typed_config"):
            own.typed_config.CopyFrom(merged_any(own.typed_config, wanted.typed_config))
        return
    merge_value(chain, patch)


def _patch_manager(scene: _Scene, chain: listener_v3.FilterChain, part: listener_v3.Filter) -> None:
    filters = [
        patch for patch in scene.of(Target.HTTP_FILTER, chain) if patch.match.filter in {None, part.name}
    ]
    try:
        manager = hcm_v3.HttpConnectionManager.FromString(part.typed_config.value)
    except DecodeError:
        return
    before = manager.SerializeToString(deterministic=True)
    _patch_http_filters(manager, filters)
    if manager.HasField("route_config"):
        patch_routes(manager.route_config, scene.patches, scene.context)
    if manager.SerializeToString(deterministic=True) != before:
        part.typed_config.CopyFrom(pack(manager))


def _patch_http_filters(manager: hcm_v3.HttpConnectionManager, patches: Sequence[Patch]) -> None:
    placed = Placed()
    for patch in patches:
        if patch.filter_class is not None and patch.match.http_filter is None and patch.operation in PUTTING:
            applied(patch, placed.put, manager.http_filters, patch)
        elif patch.operation is not Operation.MERGE:
            applied(patch, patch_list, manager.http_filters, patch, _by_name(patch.match.http_filter))
    for part in manager.http_filters:
        for patch in patches:
            if patch.operation is Operation.MERGE and patch.match.http_filter in {None, part.name}:
                applied(patch, _merge_filter, part, patch)


def _is_listener(listener: listener_v3.Listener, patch: Patch) -> bool:
    match = patch.match
    if match.listener and match.listener != listener.name:
        return False
    # The port of a virtual listener says nothing: that of its filter chains does.
    if patch.target is not Target.LISTENER and listener.name in _VIRTUAL:
        return True
    return match.listener_port in {0, listener.address.socket_address.port_value}


def _is_chain(listener: listener_v3.Listener, chain: listener_v3.FilterChain, patch: Patch) -> bool:
    match, own = patch.match, chain.filter_chain_match
    port = own.destination_port.value
    if listener.name in _VIRTUAL and match.listener_port not in {0, port}:
        return False
    return (
        match.chain in {"", chain.name}
        and (not match.sni or match.sni in own.server_names)
        and match.transport_protocol in {"", own.transport_protocol}
        and set(match.application_protocols) <= set(own.application_protocols)
        and match.destination_port in {0, port}
    )
