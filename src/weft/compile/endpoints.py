"""Endpoints of EDS clusters: a lane of its own, so that no view and no cluster sees them come and go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from weft import ir
from weft.compile.clusters import listed_endpoint
from weft.compile.hosts import is_named
from weft.compile.inbound import PeerMode
from weft.compile.istio.peer_authentication import PeerModes, modes_of
from weft.compile.istio.rule_index import find_subset
from weft.compile.memo import Memo
from weft.compile.networks import Networks
from weft.compile.service import Instance, Labels, Port, Resolution, Service
from weft.compile.world import World
from weft.model.peer_authentication import PeerAuthentication
from weft.model.resource import Key
from weft.names import ClusterName


def endpoint_set(world: World, cluster: str) -> ir.EndpointSet:
    """All endpoints of a cluster, in a stable order; none for a name that nothing stands behind.

    Where several namespaces have a service of the host, those of all: each client's placement takes its own.
    The same object as long as none of them differs.
    """
    name = ClusterName.parse(cluster)
    sealed = name is not None and name.sealed
    found: dict[str, ir.EndpointSet] = {}
    for service, port, labels in _meant(world, name) if name is not None else ():
        members = world.backends(service)
        if service.namespace in found or not members:
            continue
        rules, root = world.clients_peers, world.settings.root_namespace
        refusing = world.memo(_refusing, members, port, rules, root, world.memo)
        networks = world.networks
        found[service.namespace] = world.memo(
            _endpoint_set, cluster, members, service, port, labels, refusing, sealed, networks
        )
    return world.memo(_together, cluster, tuple(found.values()))


def has_endpoints(world: World, cluster: str) -> bool:
    """Whether a cluster is one of endpoints, be there none now: its service, port and subset exist."""
    name = ClusterName.parse(cluster)
    return name is not None and next(_meant(world, name), None) is not None


def _meant(world: World, name: ClusterName) -> Iterator[tuple[Service, Port, Labels]]:
    """The services that a cluster's name may mean, each with the port and the labels of the subset."""
    for service in world.services.by_host.get(name.host, ()):
        port = service.port(name.port, udp=name.udp)
        if port is None or service.resolution in _ELSEWHERE:
            continue
        labels = subset_labels(world, service, name.subset)
        if labels is not None:
            yield service, port, labels


_ELSEWHERE: Final = {Resolution.ALIAS, Resolution.DNS, Resolution.DNS_ROUND_ROBIN, Resolution.NAMED}
"""Services whose endpoints their clusters know by themselves."""


def _together(cluster: str, parts: tuple[ir.EndpointSet, ...]) -> ir.EndpointSet:
    if len(parts) == 1:
        return parts[0]
    endpoints = tuple(endpoint for part in parts for endpoint in part.endpoints)
    gateways = parts[0].gateways if parts else ()
    return ir.EndpointSet(cluster=cluster, endpoints=endpoints, gateways=gateways)


def subset_labels(world: World, service: Service, subset: str) -> Labels | None:
    """Labels of a service's subset; None when no rule defines it.

    Where rules differ, all workloads: the name of a cluster does not say whose rule it was made by, so that
    the client's placement picks its own.
    """
    if not subset:
        return ()
    return world.memo(find_subset, world.rule_index, service.host, subset)


def _endpoint_set(
    cluster: str,
    members: tuple[Instance, ...],
    service: Service,
    port: Port,
    labels: Labels,
    refusing: tuple[int, ...],
    sealed: bool,
    networks: Networks,
) -> ir.EndpointSet:
    """``sealed``: only those that take mTLS, for what comes is inside it already.

    Those that drain are left out, unless sessions lead to them. Without an address only a gateway can.
    Those that are named by a host are, too: only clusters that ask DNS connect to names.
    """
    wanted = set(labels)
    found: list[ir.Endpoint] = []
    gateways = () if sealed else networks.gateways
    for number, member in enumerate(members):
        leaves = member.health is ir.Health.DRAINING and service.session is None
        closed = sealed and (number in refusing or not member.mesh)
        if leaves or closed or not wanted <= set(member.labels):
            continue
        endpoint = listed_endpoint(port, member)
        if endpoint is None or not (endpoint.address or gateways) or is_named(endpoint.address):
            continue
        if number in refusing:
            endpoint = replace(endpoint, mesh_tls=False)
        if service.unready_too and endpoint.health is ir.Health.UNHEALTHY:
            endpoint = replace(endpoint, health=ir.Health.HEALTHY)
        if not endpoint.network and (network := networks.of(endpoint.address)):
            endpoint = replace(endpoint, network=network)
        found.append(replace(endpoint, owner=service.namespace) if service.contested else endpoint)
    found.sort(key=lambda endpoint: (endpoint.address, endpoint.port))
    return ir.EndpointSet(cluster=cluster, endpoints=tuple(found), gateways=gateways)


def _refusing(
    members: tuple[Instance, ...],
    port: Port,
    rules: Mapping[Key, PeerAuthentication],
    root: str,
    memo: Memo,
) -> tuple[int, ...]:
    """The places of members that take no mTLS at a port at all: PeerAuthentication may turn it off."""
    return tuple(
        number
        for number, member in enumerate(members)
        if member.mesh
        and _plain(port, member, memo(modes_of, rules, member.namespace, member.labels, root, memo))
    )


def _plain(port: Port, member: Instance, modes: PeerModes) -> bool:
    if not modes.ports:
        return modes.default is PeerMode.DISABLE
    endpoint = listed_endpoint(port, member)
    return endpoint is not None and modes.of(endpoint.port) is PeerMode.DISABLE
