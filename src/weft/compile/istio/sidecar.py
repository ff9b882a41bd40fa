"""Istio's Sidecar: what of the mesh the sidecars of some workloads are told about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from weft.compile.age import age
from weft.compile.service import Labels
from weft.compile.view import Limits
from weft.model.resource import Key
from weft.model.sidecar import Sidecar


@dataclass(frozen=True, slots=True)
class Scope:
    """``limits`` None: all that is exported. ``outbound_any`` None: as the mesh says."""

    limits: Limits | None = None
    outbound_any: bool | None = None


def scope_of(resources: Mapping[Key, Sidecar], namespace: str, labels: Labels, root: str) -> Scope:
    """The oldest Sidecar for a workload, else its namespace's, else the root namespace's."""
    ordered = sorted(resources.values(), key=lambda resource: age(resource.metadata))
    bearer = set(labels)
    own = [resource for resource in ordered if resource.metadata.namespace == namespace]
    named = [r for r in own if (wanted := _selector(r)) and bearer.issuperset(wanted.items())]
    whole = [r for r in own if not _selector(r)]
    mesh = [r for r in ordered if r.metadata.namespace == root and not _selector(r)]
    chosen = next(iter((*named, *whole, *mesh)), None)
    if chosen is None:
        return Scope()
    egress, outbound = chosen.spec.egress, chosen.spec.outbound_traffic_policy
    limits: Limits | None = None
    if egress is not None:
        limits = tuple(sorted({_limit(host, namespace) for part in egress for host in part.hosts}))
    return Scope(limits, None if outbound is None or outbound.mode is None else outbound.mode == "ALLOW_ANY")


def _selector(resource: Sidecar) -> Mapping[str, str]:
    return (resource.spec.workload_selector.labels if resource.spec.workload_selector else None) or {}


def _limit(text: str, namespace: str) -> tuple[str, str]:
    """``namespace/host``; ``.`` is the workload's own namespace, whose Sidecar it may not be."""
    space, _, host = text.partition("/")
    return (namespace if space == "." else space, host.lower())
