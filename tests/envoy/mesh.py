"""A small mesh in the words of the IR: sidecars and a gateway as compile would describe them.

Only what the tests of emit need; what compile makes of resources is tested by the golden cases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from tests.support.backend import HttpBackend, TcpBackend, serving
from tests.support.certificates import TestAuthority
from tests.support.dial import Connection
from tests.support.envoy import Envoy, running_envoy, short_directory
from tests.support.ports import free_port
from weft import ir
from weft.card import Card
from weft.compile.endpoints import endpoint_set
from weft.compile.proxy import compile_proxy
from weft.compile.world import World
from weft.emit.bootstrap import Settings, environment
from weft.emit.bundle import emit
from weft.emit.static import static_bootstrap
from weft.names import (
    BLACKHOLE_CLUSTER,
    LOCAL_CLUSTER,
    ProxyName,
    inbound_cluster,
    outbound_cluster,
    outbound_sni,
)

CERTIFICATE: Final = ir.SecretRef(source=ir.SecretFrom.FILE, name="default")
TRUST: Final = ir.SecretRef(source=ir.SecretFrom.FILE, name="ROOTCA")
LOGGED: Final = ir.Reports(logs=(ir.AccessLog(to=ir.FileLog(path="access.log")),))
TELEMETRY: Final = ir.Telemetry(client=LOGGED, server=LOGGED)
HTTP_PORT: Final = 9080
TCP_PORT: Final = 9000
VIP: Final = "240.240.0.1"


def spiffe(account: str) -> str:
    """The identity of a service account in ``default``."""
    return f"spiffe://cluster.local/ns/default/sa/{account}"


def host(service: str) -> str:
    """``reviews`` -> ``reviews.default.svc.cluster.local``."""
    return f"{service}.default.svc.cluster.local"


@dataclass(frozen=True, slots=True)
class Running:
    """A proxy that runs: its Envoy and the address where it listens."""

    envoy: Envoy
    address: tuple[str, int]


@contextmanager
def run_proxy(
    name: str,
    listeners: Sequence[ir.Listener],
    routes: Sequence[ir.RouteTable] = (),
    clusters: Sequence[ir.Cluster] = (),
    endpoints: Sequence[ir.EndpointSet] = (),
    *,
    authority: TestAuthority,
    secrets: dict[str, Any] | None = None,
    kept_stats: tuple[str, ...] = (),
    telemetry: ir.Telemetry = TELEMETRY,
) -> Iterator[Envoy]:
    """A proxy as ``name``, with a certificate of its own in the file where a workload's is."""
    identity = ir.ProxyIdentity(name=ProxyName("sidecar", "127.0.0.1", name, "default"), service_account=name)
    proxy = ir.Proxy(
        identity=identity,
        listeners=tuple(listeners),
        routes=tuple(routes),
        clusters=tuple(clusters),
        telemetry=telemetry,
    )
    labels = {"app": name, "version": "v1"}
    settings = Settings(name=identity.name, metadata={"LABELS": labels}, kept_stats=kept_stats)
    bootstrap = static_bootstrap(emit(proxy), endpoints, settings, secrets)
    with short_directory(f"weft-{name}-") as directory:
        authority.write_identity(directory, spiffe(name), str(Card.of(name, labels)))
        with running_envoy(directory, bootstrap, environment(settings)) as envoy:
            yield envoy


@contextmanager
def run_compiled(
    world: World,
    identity: ir.ProxyIdentity,
    authority: TestAuthority,
    *,
    faulty: bool = False,
    kept_stats: tuple[str, ...] = (),
    replicas: Sequence[str | ir.Endpoint] = (),
) -> Iterator[Envoy]:
    """The proxy of an identity, as the world has it.

    ``faulty``: something cannot be honoured, on purpose. ``replicas``: where it and its like are, as
    addresses, or with their places.
    """
    proxy, problems = compile_proxy(world, identity)
    assert bool(problems) == faulty, [str(problem) for problem in problems]
    endpoints = [
        endpoint_set(world, cluster.name)
        for cluster in proxy.clusters
        if cluster.discovery is ir.Discovery.EDS
    ]
    peers = tuple(
        ir.Endpoint(address=replica, port=1) if isinstance(replica, str) else replica for replica in replicas
    )
    endpoints.append(ir.EndpointSet(cluster=LOCAL_CLUSTER, endpoints=peers))
    metadata = {"LABELS": dict(identity.labels)}
    at = proxy.identity.locality
    place = (at.region, at.zone, at.subzone)
    settings = Settings(name=identity.name, metadata=metadata, kept_stats=kept_stats, locality=place)
    with short_directory("weft-yaml-") as directory:
        authority.write_identity(directory, spiffe(identity.service_account))
        bootstrap = static_bootstrap(emit(proxy), endpoints, settings, None, proxy)
        with running_envoy(directory, bootstrap, environment(settings)) as envoy:
            yield envoy


def mesh_cluster(
    service: str, port: int = HTTP_PORT, *, subset: str = "", account: str | None = None, **changes: Any
) -> ir.Cluster:
    """A service behind sidecars: mTLS where an endpoint has one, its identity verified."""
    http = port == HTTP_PORT
    tls = ir.UpstreamTls(
        sni=outbound_sni(host(service), port, subset),
        certificate=CERTIFICATE,
        trust=TRUST,
        peer_names=(ir.TextMatch(test=ir.TextTest.EXACT, value=spiffe(account or service)),),
        alpn=("istio-h2", "istio", "h2") if http else ("istio",),
    )
    cluster = ir.Cluster(
        name=outbound_cluster(host(service), port, subset),
        discovery=ir.Discovery.EDS,
        protocol=ir.UpstreamProtocol.HTTP2 if http else ir.UpstreamProtocol.TCP,
        service=ir.ServiceRef(host=host(service), name=service, namespace="default"),
        subset=subset,
        tls=tls,
    )
    return replace(cluster, **changes)


def endpoints(cluster: ir.Cluster, *addresses: tuple[str, int], mesh_tls: bool = True) -> ir.EndpointSet:
    """Where a cluster's workloads are."""
    service = cluster.service.name if cluster.service else ""
    return ir.EndpointSet(
        cluster=cluster.name,
        endpoints=tuple(
            ir.Endpoint(
                address=address,
                port=port,
                mesh_tls=mesh_tls,
                workload=f"{service}-{index}",
                namespace="default",
                labels=(("app", service), ("version", cluster.subset or "v1")),
            )
            for index, (address, port) in enumerate(addresses)
        ),
    )


def blackhole() -> ir.Cluster:
    """Where nothing answers."""
    return ir.Cluster(
        name=BLACKHOLE_CLUSTER, discovery=ir.Discovery.BLACK_HOLE, protocol=ir.UpstreamProtocol.TCP
    )


def tcp_to(cluster: str, **changes: Any) -> ir.TcpHandler:
    """All bytes to one cluster."""
    handler = ir.TcpHandler(stat_prefix=cluster, destinations=(ir.Destination(cluster=cluster),))
    return replace(handler, **changes)


def client_listeners(port: int, table: str, tcp: ir.TcpHandler | None = None) -> tuple[ir.Listener, ...]:
    """The outbound side of a rootless sidecar: PROXY v2 at ``port``, then the destination's listener."""

    def handed_over(name: str, address: str, number: int, chain: ir.FilterChain) -> ir.Listener:
        return ir.Listener(
            name=name,
            direction=ir.Direction.OUTBOUND,
            address=address,
            port=number,
            receive=ir.Receive.HANDED_OVER,
            chains=(chain,),
        )

    handler = ir.HttpHandler(stat_prefix=table, routes=table)
    http = ir.FilterChain(name=table, match=ir.ChainMatch(), handler=handler)
    refuse = ir.FilterChain(name="rest", match=ir.ChainMatch(), handler=tcp_to(BLACKHOLE_CLUSTER))
    listeners = [
        ir.Listener(
            name="virtualOutbound",
            direction=ir.Direction.OUTBOUND,
            address="127.0.0.1",
            port=port,
            receive=ir.Receive.PROXY_PROTOCOL,
            chains=(),
            default_chain=refuse,
            hand_over=True,
        ),
        handed_over(f"0.0.0.0_{HTTP_PORT}", "0.0.0.0", HTTP_PORT, http),
    ]
    if tcp is not None:
        chain = ir.FilterChain(name="tcp", match=ir.ChainMatch(), handler=tcp)
        listeners.append(handed_over(f"{VIP}_{TCP_PORT}", VIP, TCP_PORT, chain))
    return tuple(listeners)


def server_listener(port: int, application: int, *, strict: bool, http: bool = True) -> ir.Listener:
    """The inbound side: mTLS of the mesh, and without ``strict`` plain connections too."""
    cluster = inbound_cluster(application)
    destination = (ir.Destination(cluster=cluster),)
    route = ir.Route(name="default", match=ir.RequestMatch(), action=ir.Forward(destinations=destination))
    table = ir.RouteTable(
        name=cluster, virtual_hosts=(ir.VirtualHost(name="inbound", domains=("*",), routes=(route,)),)
    )
    handler: ir.HttpHandler | ir.TcpHandler = tcp_to(cluster)
    if http:
        handler = ir.HttpHandler(
            stat_prefix=cluster, routes=table, client_certificate=ir.ClientCertificate.APPEND_FORWARD
        )
    tls = ir.DownstreamTls(
        certificates=(CERTIFICATE,),
        trust=TRUST,
        require_client_certificate=True,
        peer_trust_domains=("cluster.local",),
        alpn=("h2", "http/1.1") if http else ("istio",),
    )
    mesh = ir.FilterChain(name="mtls", match=ir.ChainMatch(transport="tls"), handler=handler, tls=tls)
    plain = ir.FilterChain(name="plain", match=ir.ChainMatch(transport="raw_buffer"), handler=handler)
    return ir.Listener(
        name="virtualInbound",
        direction=ir.Direction.INBOUND,
        address="127.0.0.1",
        port=port,
        receive=ir.Receive.BOUND,
        chains=(mesh,) if strict else (mesh, plain),
        inspect_tls=True,
    )


def inbound(application: int, service: str, protocol: ir.UpstreamProtocol) -> ir.Cluster:
    """The application itself."""
    return ir.Cluster(
        name=inbound_cluster(application),
        discovery=ir.Discovery.STATIC,
        protocol=protocol,
        service=ir.ServiceRef(host=host(service), name=service, namespace="default"),
        endpoints=(ir.Endpoint(address="127.0.0.1", port=application),),
        mutual=ir.MutualTls.ALWAYS,
    )


@dataclass(frozen=True, slots=True)
class Service:
    """A workload with its sidecar."""

    backend: HttpBackend
    sidecar: Running


@contextmanager
def run_service(
    name: str, authority: TestAuthority, *, account: str | None = None, strict: bool = True
) -> Iterator[Service]:
    """An HTTP application behind a sidecar of its own."""
    with ExitStack() as stack:
        application = free_port()
        backend = stack.enter_context(serving(HttpBackend("127.0.0.1", application, name)))
        port = free_port()
        sidecar = stack.enter_context(
            run_proxy(
                account or name,
                (server_listener(port, application, strict=strict),),
                clusters=(inbound(application, account or name, ir.UpstreamProtocol.HTTP1),),
                authority=authority,
            )
        )
        yield Service(backend, Running(sidecar, ("127.0.0.1", port)))


@contextmanager
def run_tcp_service(name: str, authority: TestAuthority) -> Iterator[Running]:
    """A TCP application that speaks first, behind a sidecar of its own."""
    with ExitStack() as stack:
        application = free_port()
        stack.enter_context(serving(TcpBackend("127.0.0.1", application, name)))
        port = free_port()
        sidecar = stack.enter_context(
            run_proxy(
                name,
                (server_listener(port, application, strict=True, http=False),),
                clusters=(inbound(application, name, ir.UpstreamProtocol.TCP),),
                authority=authority,
            )
        )
        yield Running(sidecar, ("127.0.0.1", port))


class Client:
    """An application whose connections a sidecar takes."""

    def __init__(self, running: Running) -> None:
        self.envoy = running.envoy
        self.address = running.address

    def open(self, port: int = HTTP_PORT) -> Connection:
        """A connection to the services' address, steered to the sidecar."""
        return Connection((VIP, port), through=self.address)


def table(*routes: ir.Route, name: str = "9080") -> ir.RouteTable:
    """A route table for every host."""
    return ir.RouteTable(
        name=name, virtual_hosts=(ir.VirtualHost(name="all", domains=("*",), routes=routes),)
    )
