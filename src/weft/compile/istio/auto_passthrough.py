"""AUTO_PASSTHROUGH servers: TLS between workloads that a gateway hands on to the service its SNI names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from weft import ir
from weft.compile.hosts import covers
from weft.compile.inbound import MESH_ANY
from weft.compile.outbound import tcp_handler
from weft.compile.protocol import Protocol
from weft.compile.rules import Clusters, Rules
from weft.compile.server import Server
from weft.compile.service import Resolution, Service
from weft.compile.view import View
from weft.names import ClusterName, outbound_sni

_TCP_ONLY = ir.UpstreamProtocol.TCP


def chains_of(server: Server, view: View, rules: Rules) -> Iterator[ir.FilterChain]:
    """A chain for every port and subset of the mesh's services that the server is for.

    Only what a sidecar speaks is let through: nobody reaches a workload without mTLS.
    """
    for service in view.services:
        if _led_to(service, (server,)):
            for port in service.ports:
                for subset in ("", *(subset.name for subset in rules.of(service.host).subsets)):
                    if port.protocol is not Protocol.UDP:
                        yield _chain(outbound_sni(service.host, port.number, subset))


def _chain(name: str) -> ir.FilterChain:
    match = ir.ChainMatch(server_names=(name,), application_protocols=MESH_ANY)
    return ir.FilterChain(name=name, match=match, handler=tcp_handler(name))


def clusters_of(sending: Clusters, servers: tuple[Server, ...], view: View) -> tuple[ir.Cluster, ...]:
    """What those chains lead to: the services' clusters, handing on the bytes as they come."""
    automatic = tuple(server for server in servers if server.automatic)
    if not automatic:
        return ()
    found: list[ir.Cluster] = []
    for cluster in sending.all:
        name = ClusterName.parse(cluster.name)
        service = view.by_host.get(name.host) if name is not None else None
        if name is not None and service is not None and _led_to(service, automatic):
            sni = outbound_sni(name.host, name.port, name.subset)
            found.append(replace(cluster, name=sni, protocol=_TCP_ONLY, tls=None, mutual=ir.MutualTls.ALWAYS))
    return tuple(found)


def _led_to(service: Service, servers: Iterable[Server]) -> bool:
    if service.external or service.resolution is Resolution.ALIAS:
        return False
    return any(covers(host, service.host) for server in servers for _, host in server.hosts)
