"""Patches of clusters (Istio: cluster_patch.go)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from weft.emit.patches.merge import MERGES, merge_value, merged_any
from weft.emit.patches.sorted import Patches, applied
from weft.emit.patches.value import PatchError, value_of
from weft.ir.patch import Context, Operation, Patch, Target

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from weft.protos import cluster_v3


def patch_cluster(cluster: cluster_v3.Cluster, patches: Patches, context: Context) -> bool:
    """Apply to a cluster what is for it, in place. False when it is to be removed."""
    for patch in patches.of(Target.CLUSTER, context):
        if not _is_about(cluster, patch):
            continue
        if patch.operation is Operation.REMOVE:
            return False
        if patch.operation in MERGES:
            applied(patch, _merge, cluster, patch)
    return True


def added(patches: Patches, target: Target, contexts: tuple[Context, ...]) -> Iterator[tuple[Message, str]]:
    """Whole new clusters or listeners, each with its EnvoyFilter.

    Without a context they belong to the outbound side of a sidecar.
    """
    for context in contexts:
        for patch in patches.of(target, context):
            if patch.operation is not Operation.ADD:
                continue
            if patch.context is Context.ANY and context is Context.SIDECAR_INBOUND:
                continue
            try:
                value = value_of(patch)
            except PatchError:
                continue  # told when it was written
            if value is not None and value.name:  # type: ignore[attr-defined]
                yield value, patch.origin


def _merge(cluster: cluster_v3.Cluster, patch: Patch) -> None:
    value: Any = value_of(patch)
    if value is None:
        return
    if value.HasField("transport_socket"):
        _merge_socket(cluster, value)
    else:
        merge_value(cluster, patch)


def _merge_socket(cluster: cluster_v3.Cluster, value: Any) -> None:
    """Only the transport socket is changed by such a patch: the one of the same name, else the whole one."""
    wanted = value.transport_socket
    matches = cluster.transport_socket_matches
    if matches:
        found = next(
            (one.transport_socket for one in matches if one.transport_socket.name == wanted.name), None
        )
        if found is None:
            return
    elif cluster.transport_socket.name == wanted.name:
        found = cluster.transport_socket
    else:
        cluster.transport_socket.CopyFrom(wanted)
        return
    if found.HasField("typed_config") and wanted.HasField("typed_config"):
        found.typed_config.CopyFrom(merged_any(found.typed_config, wanted.typed_config))


def _is_about(cluster: cluster_v3.Cluster, patch: Patch) -> bool:
    match = patch.match
    if match.cluster:
        return match.cluster == cluster.name
    direction, port, subset, host = _parts(cluster.name)
    hosts = _hosts(cluster) if direction == "inbound" else {host}
    return (
        (not match.cluster_subset or match.cluster_subset == subset)
        and (not match.cluster_service or match.cluster_service in hosts)
        and match.cluster_port in {0, port}
    )


def _parts(name: str) -> tuple[str, int, str, str]:
    parts = name.split("|")
    if len(parts) != 4:
        return "", 0, "", ""
    direction, port, subset, host = parts
    return direction, int(port) if port.isdecimal() else 0, subset, host


def _hosts(cluster: cluster_v3.Cluster) -> set[str]:
    """The services behind an inbound cluster, as its metadata has them."""
    if "istio" not in cluster.metadata.filter_metadata:
        return set()
    fields = cluster.metadata.filter_metadata["istio"].fields
    services = fields["services"].list_value.values if "services" in fields else ()
    return {service.struct_value.fields["host"].string_value for service in services}
