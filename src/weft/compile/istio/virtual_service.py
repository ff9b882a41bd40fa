"""VirtualService ``http``: routes in their order, for one proxy's labels, port and gateways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from weft import ir
from weft.compile.destinations import Targets, cluster_of, policy_of
from weft.compile.istio.cors import cors
from weft.compile.istio.delegate import MESH, full_gateway, place_of
from weft.compile.istio.headers import Edits, header_edits, joined
from weft.compile.istio.http_action import direct_response, fault, redirect, retry_of, rewrite
from weft.compile.istio.request_match import matches_everything, request_match
from weft.compile.policy import Policy
from weft.compile.routes import NO_TIMEOUT, retry_for
from weft.compile.settings import Settings
from weft.compile.sources import source
from weft.model.istio import Destination
from weft.model.virtual_service import (
    HTTPMatchRequest,
    HTTPRoute,
    HTTPRouteDestination,
    VirtualService,
)
from weft.names import ClusterName, expand_host
from weft.units import MILLIONTHS, millionths

__all__ = ["MESH", "bound_to", "destination_hosts", "full_gateway", "http_routes", "wants_labels"]


def destination_hosts(service: VirtualService, domain: str) -> tuple[str, ...]:
    """Full names of all hosts that the rules may send to, mirrors included; sorted."""
    namespace = service.metadata.namespace
    found: set[str] = set()
    for rule in service.spec.http or ():
        found.update(part.destination.host for part in rule.route or ())
        found.update(mirror.destination.host for mirror in rule.mirrors or ())
        if rule.mirror is not None:
            found.add(rule.mirror.host)
    for tcp in service.spec.tcp or ():
        found.update(part.destination.host for part in tcp.route or ())
    for tls in service.spec.tls or ():
        found.update(part.destination.host for part in tls.route or ())
    return tuple(sorted(expand_host(host, namespace, domain).lower() for host in found))


def bound_to(service: VirtualService) -> tuple[str, ...]:
    """Gateways that a VirtualService is for, as ``namespace/name``, or ``mesh`` (the default)."""
    namespace = service.metadata.namespace
    gateways = service.spec.gateways or (MESH,)
    return tuple(full_gateway(name, namespace) for name in gateways)


def wants_labels(service: VirtualService) -> bool:
    """Whether some match looks at the caller's labels: only then do they decide what is compiled."""
    return any(match.source_labels for rule in service.spec.http or () for match in rule.match or ())


def wants_namespace(service: VirtualService) -> bool:
    """Whether some match looks at the caller's namespace."""
    return any(match.source_namespace for rule in service.spec.http or () for match in rule.match or ())


def http_routes(
    service: VirtualService,
    port: int,
    gateways: frozenset[str],
    labels: frozenset[tuple[str, str]],
    namespace: str,
    targets: Targets,
    settings: Settings,
    tls: bool,
) -> tuple[ir.Route, ...]:
    """The routes that apply at a port of a proxy.

    ``gateways``: which of them it stands for (``mesh`` for a sidecar). ``tls``: it ends TLS there, which
    redirects need to know. What follows a route that takes everything is left out.
    """
    routes: list[ir.Route] = []
    for index, rule in enumerate(service.spec.http or ()):
        matches: tuple[tuple[int | None, HTTPMatchRequest | None], ...]
        matches = tuple(enumerate(rule.match)) if rule.match else ((None, None),)
        for place, match in matches:
            if not _applies(match, port, gateways, labels, namespace, service.metadata.namespace):
                continue
            route = _route(service, index, rule, place, match, port, targets, settings, tls)
            routes.append(route)
            if matches_everything(route.match):
                return tuple(routes)
    return tuple(routes)


def _applies(
    match: HTTPMatchRequest | None,
    port: int,
    gateways: frozenset[str],
    labels: frozenset[tuple[str, str]],
    namespace: str,
    owner: str,
) -> bool:
    """What is known of the proxy itself; as in Istio, gateways of a match set aside source labels."""
    if match is None:
        return True
    if match.port and match.port != port:
        return False
    if match.gateways:
        return any(full_gateway(name, owner) in gateways for name in match.gateways)
    if not labels.issuperset((match.source_labels or {}).items()):
        return False
    return not match.source_namespace or match.source_namespace == namespace


def _route(
    service: VirtualService,
    index: int,
    rule: HTTPRoute,
    place: int | None,
    match: HTTPMatchRequest | None,
    port: int,
    targets: Targets,
    settings: Settings,
    tls: bool,
) -> ir.Route:
    edits = header_edits(rule.headers)
    action: ir.Forward | ir.Redirect | ir.Respond
    if rule.redirect is not None:
        action = redirect(rule.redirect, port, tls)
    elif rule.direct_response is not None:
        action = direct_response(rule.direct_response)
    else:
        action, edits = _forward(service, rule, edits, port, targets, settings)
    name = rule.name or ""
    if match is not None and match.name:
        name = f"{name}.{match.name}"
    tests = request_match(match)
    return ir.Route(
        name=name,
        match=tests,
        action=action,
        request_headers=edits.request,
        response_headers=edits.response,
        fault=fault(rule.fault),
        cors=cors(rule.cors_policy),
        session=_session(service, rule, targets, settings),
        operation=_operation(action, tests.path, service.metadata.name, port),
        stat_prefix=(match.stat_prefix or "") if match is not None else "",
        source=source(service.key, *place_of(rule, index, place)),
    )


def _session(
    owner: VirtualService, rule: HTTPRoute, targets: Targets, settings: Settings
) -> ir.SessionPersistence | None:
    """The sessions that the first destination asks for which asks for any."""
    for part in rule.route or ():
        host = expand_host(part.destination.host, owner.metadata.namespace, settings.domain).lower()
        service = targets.get(host).service
        if service is not None and service.session is not None:
            return service.session
    return None


def _operation(action: object, path: ir.PathMatch, name: str, port: int) -> str:
    """How a trace calls it: the destination when there is one, else the VirtualService."""
    shown = f"{path.value}*" if path.test is ir.PathTest.PREFIX else path.value
    if isinstance(action, ir.Forward) and len(action.destinations) == 1:
        cluster = ClusterName.parse(action.destinations[0].cluster)
        if cluster is not None:
            return f"{cluster.host}:{cluster.port}{shown}"
    return f"{name}:{port}{shown}"


def _forward(
    service: VirtualService,
    rule: HTTPRoute,
    edits: Edits,
    port: int,
    targets: Targets,
    settings: Settings,
) -> tuple[ir.Forward, Edits]:
    owner, domain = service.metadata.namespace, settings.domain

    def cluster(destination: Destination) -> tuple[str, Policy]:
        host = expand_host(destination.host, owner, domain).lower()
        number = destination.port.number if destination.port else None
        subset = destination.subset or ""
        target = targets.get(host)
        return cluster_of(host, number, subset, target, port), policy_of(target, number, subset, port)

    parts = [part for part in rule.route or () if part.weight or len(rule.route or ()) == 1]
    resolved = [(part, *cluster(part.destination)) for part in parts]
    hashes = tuple(dict.fromkeys(policy.hash_on for _, _, policy in resolved if policy.hash_on))
    host_rewrite = edits.authority
    if rule.rewrite is not None and rule.rewrite.authority:
        host_rewrite = rule.rewrite.authority
    if len(resolved) == 1:
        part, name, policy = resolved[0]
        own = header_edits(part.headers)
        edits = Edits(joined(edits.request, own.request), joined(edits.response, own.response))
        host_rewrite = host_rewrite or own.authority
        destinations: tuple[ir.Destination, ...] = (ir.Destination(cluster=name),)
        default = retry_for(settings.retry, policy)
    else:
        destinations = tuple(_weighted(part, name) for part, name, _ in resolved)
        default = settings.retry
    return (
        ir.Forward(
            destinations=destinations,
            timeout=rule.timeout if rule.timeout is not None else NO_TIMEOUT,
            retry=default if rule.retries is None else retry_of(rule.retries, bool(hashes)),
            rewrite=rewrite(rule.rewrite),
            host_rewrite=host_rewrite,
            hash_on=hashes,
            mirrors=_mirrors(rule, lambda destination: cluster(destination)[0]),
        ),
        replace(edits, authority=None),
    )


def _weighted(part: HTTPRouteDestination, cluster: str) -> ir.Destination:
    own = header_edits(part.headers)
    return ir.Destination(
        cluster=cluster,
        weight=part.weight or 0,
        request_headers=own.request,
        response_headers=own.response,
        host_rewrite=own.authority,
    )


def _mirrors(rule: HTTPRoute, cluster: Callable[[Destination], str]) -> tuple[ir.Mirror, ...]:
    """Copies of requests; a share of zero means none."""
    found: list[ir.Mirror] = []
    if rule.mirror is not None:
        if rule.mirror_percentage is not None:
            share = millionths(rule.mirror_percentage.value or 0)
        else:
            percent = rule.mirror_percent if rule.mirror_percent is not None else rule.mirror_percent_
            share = MILLIONTHS if percent is None else millionths(percent)
        found.append(ir.Mirror(cluster=cluster(rule.mirror), fraction=share))
    for mirror in rule.mirrors or ():
        share = MILLIONTHS if mirror.percentage is None else millionths(mirror.percentage.value or 0)
        found.append(ir.Mirror(cluster=cluster(mirror.destination), fraction=share))
    return tuple(mirror for mirror in found if mirror.fraction)
