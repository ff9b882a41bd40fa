"""``backendRefs``: the cluster of each, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from weft.compile.gatewayapi.facts import Facts
from weft.compile.service import Resolution
from weft.model.http_route import HTTPBackendRef
from weft.model.route import BackendObjectReference
from weft.names import outbound_cluster

UNKNOWN: Final = "UnknownService"
"""A cluster that never exists: a route to it answers 500."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """``reason`` is that of the condition ResolvedRefs; ``cluster`` is ``UNKNOWN`` unless it is resolved."""

    cluster: str = UNKNOWN
    reason: str = "ResolvedRefs"
    message: str = ""


def backend_of(
    ref: HTTPBackendRef | BackendObjectReference, owner: str, facts: Facts, kind: str = "HTTPRoute"
) -> Backend:
    """The cluster that a reference of a route in namespace ``owner`` leads to."""
    group, target = str(ref.group or ""), str(ref.kind or "Service")
    name, namespace = str(ref.name), str(ref.namespace or owner)
    if (group, target) != ("", "Service"):
        return Backend(reason="InvalidKind", message=f"a backend must be a Service, not {group}/{target}")
    if not facts.permits(kind, owner, "", "Service", namespace, name):
        message = f"no ReferenceGrant in {namespace} lets routes of {owner} use Service {namespace}/{name}"
        return Backend(reason="RefNotPermitted", message=message)
    service = facts.service(namespace, name)
    if service is None:
        return Backend(reason="BackendNotFound", message=f"there is no Service {namespace}/{name}")
    port = None if ref.port is None else service.port(ref.port)
    if port is None:
        return Backend(reason="BackendNotFound", message=f"Service {namespace}/{name} has no port {ref.port}")
    if service.resolution is Resolution.ALIAS:
        return Backend(cluster=outbound_cluster(service.alias_of, port.number))
    return Backend(cluster=outbound_cluster(service.host, port.number))
