"""UDPRoute: datagrams of a listener, and the clusters they need, which no other proxy has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from weft import ir
from weft.compile.clusters import Peers, service_cluster
from weft.compile.gatewayapi.backends import UNKNOWN, backend_of
from weft.compile.gatewayapi.facts import Facts
from weft.compile.gatewayapi.layer4 import backends, weighted
from weft.compile.policy import NO_RULE, ClientTls, ClientTlsMode
from weft.compile.protocol import Protocol
from weft.compile.rules import Rules
from weft.compile.service import Port, Resolution, Service
from weft.compile.sources import source
from weft.model.route import BackendRef
from weft.model.udp_route import UDPRoute
from weft.names import outbound_udp_cluster

_PLAIN = ClientTls(mode=ClientTlsMode.DISABLE)


def handler(route: UDPRoute, facts: Facts) -> ir.UdpHandler:
    """A UDP proxy to the backends of a route; datagrams for those that are lost are dropped."""
    return ir.UdpHandler(
        stat_prefix=f"{route.metadata.name}.{route.metadata.namespace}",
        destinations=weighted((_cluster(ref, route, facts), ref.weight) for ref in backends(route)),
        source=source(route.key, 0),
    )


def _cluster(ref: BackendRef, route: UDPRoute, facts: Facts) -> str:
    found = target(ref, route, facts)
    return UNKNOWN if found is None else outbound_udp_cluster(found[0].host, found[1].number)


def target(ref: BackendRef, route: UDPRoute, facts: Facts) -> tuple[Service, Port] | None:
    """The service and its UDP port that a reference leads to."""
    backend = backend_of(ref, route.metadata.namespace, facts, "UDPRoute")
    if backend.cluster == UNKNOWN:
        return None
    for service in facts.services.by_host.get(backend.host, ()):
        for port in service.ports:
            if port.number == backend.port and port.protocol is Protocol.UDP:
                return service, port
    return None


def clusters(
    route: UDPRoute, facts: Facts, rules: Rules, peers: Mapping[tuple[str, str], Peers]
) -> tuple[ir.Cluster, ...]:
    """A cluster for each backend: sidecars take no datagrams, so these go to the workloads themselves."""
    made: dict[str, ir.Cluster] = {}
    for ref in backends(route):
        found = target(ref, route, facts)
        if found is None or found[0].resolution is Resolution.ALIAS:
            continue
        service, port = found
        rule = rules.by_host.get(service.host, NO_RULE).default
        policy = replace(rule.policy(port.number), tls=_PLAIN)
        known = peers.get((service.namespace, service.host), Peers())
        cluster = service_cluster(service, port, rule, policy, known, facts.settings, True, "")
        name = outbound_udp_cluster(service.host, port.number)
        made[name] = replace(cluster, name=name)
    return tuple(made.values())
