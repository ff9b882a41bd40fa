"""EnvoyFilter: which patches a proxy gets, and in which order."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final

from weft import ir
from weft.compile.age import age
from weft.compile.attachment import Bounds, attached
from weft.compile.service import Labels
from weft.model.envoy_filter import (
    EnvoyConfigObjectMatch,
    EnvoyConfigObjectPatch,
    EnvoyFilter,
    ProxyMatch,
)
from weft.model.resource import Key
from weft.names import ISTIO_VERSION

# INSERT_* is for lists whose order counts; elsewhere it adds (Istio: convertToEnvoyFilterWrapper).
_ORDERED: Final = frozenset(
    {ir.Target.HTTP_FILTER, ir.Target.NETWORK_FILTER, ir.Target.HTTP_ROUTE, ir.Target.LISTENER_FILTER}
)
_CLASSES: Final = {kind.value: kind for kind in ir.FilterClass}
_INSERTS: Final = frozenset(
    {ir.Operation.INSERT_BEFORE, ir.Operation.INSERT_AFTER, ir.Operation.INSERT_FIRST}
)
# Longer patterns match no proxy (Istio: maxProxyVersionLen).
_PATTERN_MAX: Final = 1024


def patches_of(
    filters: Mapping[Key, EnvoyFilter],
    namespace: str,
    labels: Labels,
    metadata: tuple[tuple[str, str], ...],
    root: str,
) -> tuple[ir.Patch, ...]:
    """The patches for a proxy: by priority, those of the root namespace first, then the oldest.

    ``metadata``: what the proxy says of itself, for patches that ask for it.
    """
    found = attached(filters.values(), _bounds, namespace, labels, root)
    found.sort(key=lambda one: (one.spec.priority or 0, one.metadata.namespace != root, _by_age(one)))
    known = dict(metadata)
    return tuple(
        patch for resource in found for patch, match in _patches(resource) if _for_proxy(match, known)
    )


def _bounds(resource: EnvoyFilter) -> Bounds:
    selector = resource.spec.workload_selector
    return selector.labels if selector else None, resource.spec.target_refs


def wants_metadata(filters: Mapping[Key, EnvoyFilter]) -> bool:
    """Whether some patch asks for what proxies say of themselves."""
    return any(
        patch.match and patch.match.proxy and patch.match.proxy.metadata
        for resource in filters.values()
        for patch in resource.spec.config_patches or ()
    )


def every_patch(resource: EnvoyFilter) -> tuple[ir.Patch, ...]:
    """All patches of a resource, whichever proxies they are for."""
    return tuple(patch for patch, _ in _patches(resource))


def _by_age(resource: EnvoyFilter) -> tuple[str, str]:
    created, namespace, name = age(resource.metadata)
    return created, f"{name}.{namespace}"


def _patches(resource: EnvoyFilter) -> Iterator[tuple[ir.Patch, ProxyMatch | None]]:
    origin = f"{resource.metadata.namespace}/{resource.metadata.name}"
    for index, wanted in enumerate(resource.spec.config_patches or ()):
        patch = _patch(wanted, origin, index)
        if patch is not None:
            yield patch, wanted.match.proxy if wanted.match else None


def _patch(wanted: EnvoyConfigObjectPatch, origin: str, index: int) -> ir.Patch | None:
    """None for what weft has no room for: patches of waypoints."""
    match, change = wanted.match or EnvoyConfigObjectMatch(), wanted.patch
    if change is None or wanted.apply_to in {None, "INVALID"} or change.operation in {None, "INVALID"}:
        return None
    if match.context == "WAYPOINT":
        return None
    target, operation = ir.Target(str(wanted.apply_to)), ir.Operation(str(change.operation))
    if operation in _INSERTS and target not in _ORDERED:
        operation = ir.Operation.ADD
    return ir.Patch(
        target=target,
        operation=operation,
        context=ir.Context(match.context or "ANY"),
        match=_match(match),
        value="" if change.value is None else json.dumps(change.value, sort_keys=True, separators=(",", ":")),
        filter_class=_CLASSES.get(str(change.filter_class)),
        origin=origin,
        index=index,
    )


def _match(match: EnvoyConfigObjectMatch) -> ir.PatchMatch:
    listener, routes, cluster = match.listener, match.route_configuration, match.cluster
    chain = listener.filter_chain if listener else None
    host = routes.vhost if routes else None
    route = host.route if host else None
    named = chain.filter if chain else None
    inner = named.sub_filter if named else None
    protocols = (chain.application_protocols or "") if chain else ""
    action = (route.action or "ANY") if route else "ANY"
    return ir.PatchMatch(
        listener=(listener.name if listener else None) or "",
        listener_port=(listener.port_number if listener else None) or 0,
        listener_filter=(listener.listener_filter if listener else None) or "",
        chain=(chain.name if chain else None) or "",
        sni=(chain.sni if chain else None) or "",
        transport_protocol=(chain.transport_protocol if chain else None) or "",
        application_protocols=tuple(protocols.split(",")) if protocols else (),
        destination_port=(chain.destination_port if chain else None) or 0,
        filter=None if named is None else named.name or "",
        http_filter=None if inner is None else inner.name or "",
        routes=(routes.name if routes else None) or "",
        routes_port=(routes.port_number if routes else None) or 0,
        routes_port_name=(routes.port_name if routes else None) or "",
        routes_gateway=(routes.gateway if routes else None) or "",
        virtual_host=(host.name if host else None) or "",
        domain=(host.domain_name if host else None) or "",
        by_route=route is not None,
        route=(route.name if route else None) or "",
        route_action="" if action == "ANY" else action,
        cluster=(cluster.name if cluster else None) or "",
        cluster_service=(cluster.service if cluster else None) or "",
        cluster_port=(cluster.port_number if cluster else None) or 0,
        cluster_subset=(cluster.subset if cluster else None) or "",
    )


def _for_proxy(match: ProxyMatch | None, metadata: Mapping[str, str]) -> bool:
    if match is None:
        return True
    pattern = match.proxy_version or ""
    if pattern and not _version_matches(pattern):
        return False
    return (match.metadata or {}).items() <= metadata.items()


def _version_matches(pattern: str) -> bool:
    """Anywhere in the version, as Go's MatchString. What cannot be compiled is no condition in Istio."""
    if len(pattern) > _PATTERN_MAX:
        return False
    try:
        return re.search(pattern, ISTIO_VERSION) is not None
    except re.error:
        return True
