"""Whether a policy is for a proxy: by its selector, or by the Gateway that it is attached to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from weft.compile.service import Labels
from weft.model.catalog import GATEWAY_API
from weft.model.istio import PolicyTargetReference
from weft.model.resource import Resource
from weft.names import GATEWAY_NAME_LABEL

R = TypeVar("R", bound=Resource)

Bounds = tuple[Mapping[str, str] | None, Iterable[PolicyTargetReference] | None]
"""Of a policy: the labels that its selector asks for, and what it is attached to."""


def attached(
    policies: Iterable[R], bounds: Callable[[R], Bounds], namespace: str, labels: Labels, root: str
) -> list[R]:
    """The policies for a proxy: of its own namespace, or of the root namespace."""
    found = []
    for policy in policies:
        home = policy.metadata.namespace
        if home in {namespace, root} and attaches(home, *bounds(policy), namespace, labels):
            found.append(policy)
    return found


def attaches(
    namespace: str,
    selector: Mapping[str, str] | None,
    targets: Iterable[PolicyTargetReference] | None,
    proxy_namespace: str,
    labels: Labels,
) -> bool:
    """Whether a policy of ``namespace`` is for a proxy with these labels (Istio: policyattachment.go).

    The caller has seen to it that the policy's namespace is the proxy's own or the root namespace. Targets
    win over a selector; they are Gateways of the proxy's own namespace, and nothing of a sidecar.
    """
    borne = dict(labels)
    wanted = tuple(targets or ())
    if not wanted:
        return (selector or {}).items() <= borne.items()
    gateway = borne.get(GATEWAY_NAME_LABEL)
    return (
        gateway is not None
        and namespace == proxy_namespace
        and any(
            (target.group, target.kind, target.name) == (GATEWAY_API, "Gateway", gateway)
            and target.namespace in {None, "", namespace}
            for target in wanted
        )
    )
