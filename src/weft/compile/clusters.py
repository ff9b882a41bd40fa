"""Clusters: one a service port and subset, and the fixed ones of every sidecar."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from weft import ir
from weft.compile.hosts import is_wildcard
from weft.compile.inbound import InboundPort
from weft.compile.nearness import NOT_PLACED, Placed, placed
from weft.compile.origination import exactly, originated
from weft.compile.policy import ClientTls, ClientTlsMode, Policy, Subset
from weft.compile.protocol import Protocol
from weft.compile.service import Instance, Port, Resolution, Service, target_port
from weft.compile.settings import Settings
from weft.compile.stat_names import stat_name
from weft.compile.vips import virtual
from weft.names import (
    ALPN_MESH_H2,
    ALPN_MESH_HTTP1,
    ALPN_MESH_TCP,
    BLACKHOLE_CLUSTER,
    INBOUND_PASSTHROUGH_CLUSTER,
    INBOUND_SOURCE,
    LOOKUP_CLUSTER,
    PASSTHROUGH_CLUSTER,
    WORKLOAD_CERTIFICATE,
    WORKLOAD_TRUST_BUNDLE,
    inbound_cluster,
    outbound_cluster,
    outbound_sni,
)

_ALPN: Final = {
    ir.UpstreamProtocol.HTTP1: (ALPN_MESH_HTTP1, ALPN_MESH_TCP, "http/1.1"),
    ir.UpstreamProtocol.HTTP2: (ALPN_MESH_H2, ALPN_MESH_TCP, "h2"),
    # Nothing that the other side could agree to: it shall see the version from the first bytes.
    ir.UpstreamProtocol.AS_RECEIVED: (ALPN_MESH_HTTP1,),
    ir.UpstreamProtocol.TCP: (ALPN_MESH_TCP,),
}


class Sidecars(StrEnum):
    """How many of a service's known workloads speak the mesh's mTLS."""

    ALL = "all"
    SOME = "some"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """What clients must know of the workloads behind a service, endpoints apart.

    ``identities`` are SPIFFE URIs, sorted; empty when no workload is known. ``members``: the workloads
    themselves, where Envoy looks up their names.
    """

    identities: tuple[str, ...] = ()
    sidecars: Sidecars = Sidecars.NONE
    members: tuple[Instance, ...] = ()


def service_cluster(
    service: Service,
    port: Port,
    subset: Subset,
    policy: Policy,
    peers: Peers,
    settings: Settings,
    router: bool,
    namespace: str,
) -> ir.Cluster:
    """The cluster of one port and subset. ``router``: a gateway, where nobody knows original destinations.

    ``namespace`` is the client's, where its Secrets are; empty when the policy names none.
    """
    discovery = _discovery(service, policy, router)
    listed = _listed(service, port, subset, peers) if discovery in _LISTED else ()
    if discovery is ir.Discovery.LOGICAL_DNS and len(listed) != 1:
        discovery = ir.Discovery.STRICT_DNS  # the other is for a single name
    tls, mutual = _tls(service, port, subset.name, policy, peers, settings, discovery, router, namespace)
    protocol = _protocol(
        port.protocol, policy, peers, settings, mesh_tls=mutual is not None and tls is not None, router=router
    )
    placed = _placed(service, subset, policy, settings)
    return ir.Cluster(
        name=outbound_cluster(service.host, port.number, subset.name),
        discovery=discovery,
        protocol=protocol,
        service=ir.ServiceRef(host=service.host, name=service.name, namespace=service.namespace),
        subset=subset.name,
        endpoints=listed,
        balancing=_balancing(policy, placed, discovery, keeps_draining=service.session is not None),
        placement=placed.placement,
        races=discovery is ir.Discovery.LOGICAL_DNS and service.races,
        dns_refresh=settings.dns_refresh,
        original_port=_moved(service, port, discovery),
        connections=policy.connections or default_connections(settings),
        outlier=policy.outlier,
        tls=tls and replace(tls, alpn=_alpn(policy.tls, protocol)),
        mutual=mutual or ir.MutualTls.ALWAYS,
        proxy_header=policy.proxy_header,
        source=policy.source,
        stat_name=stat_name(settings.outbound_stat_name, service, port, subset.name),
    )


def _moved(service: Service, port: Port, discovery: ir.Discovery) -> int | None:
    """The port of a ServiceEntry without resolution, if it is not the one that clients dial."""
    if discovery is not ir.Discovery.ORIGINAL_DST or service.kubernetes or not isinstance(port.target, int):
        return None
    return port.target if port.target != port.number else None


def _placed(service: Service, subset: Subset, policy: Policy, settings: Settings) -> Placed:
    """What places do to a cluster: the rule decides, else the service, else the mesh."""
    setting = policy.nearness or service.nearness or settings.nearness
    result = placed(setting, ejects=policy.outlier is not None) if setting else NOT_PLACED
    # Envoy sends to all when few are healthy, if that is asked for: to none that is known not to be ready.
    ready = bool(policy.outlier and policy.outlier.min_health_percent) and service.nearness is None
    select = subset.labels if subset.contested else ()
    owner = service.namespace if service.contested else ""
    if not (ready or service.same_node or select or owner):
        return result
    changed = replace(
        result.placement, healthy_only=ready, same_node=service.same_node, select=select, owner=owner
    )
    return replace(result, placement=changed)


def _balancing(
    policy: Policy, result: Placed, discovery: ir.Discovery, *, keeps_draining: bool
) -> ir.LoadBalancing:
    algorithm = policy.balancing.algorithm
    if discovery in _PROVIDED:
        algorithm = ir.Algorithm.PROVIDED
    elif algorithm is ir.Algorithm.PROVIDED:
        algorithm = ir.Algorithm.LEAST_REQUEST
    if algorithm is policy.balancing.algorithm and result is NOT_PLACED and not keeps_draining:
        return policy.balancing
    return replace(
        policy.balancing,
        algorithm=algorithm,
        locality_weighted=result.weighted,
        zone_aware=result.zone_aware,
        keeps_draining=keeps_draining,
    )


LOCALHOST: Final = "127.0.0.1"
_PROVIDED: Final = {ir.Discovery.ORIGINAL_DST, ir.Discovery.NAMED}
_LISTED: Final = {ir.Discovery.STRICT_DNS, ir.Discovery.LOGICAL_DNS}


def default_connections(settings: Settings) -> ir.Connections:
    """The pool settings where no rule says more."""
    return settings.default_pool or ir.Connections(
        connect_timeout=settings.connect_timeout, keepalive=settings.keepalive
    )


def _discovery(service: Service, policy: Policy, router: bool) -> ir.Discovery:
    """How endpoints are found. Whoever dials a host of DNS by a virtual address cannot be passed through."""
    passes = policy.passthrough and not router
    looked_up = service.resolution in {Resolution.DNS, Resolution.DNS_ROUND_ROBIN}
    if passes and looked_up and not all(map(virtual, service.addresses)):
        return ir.Discovery.ORIGINAL_DST
    match service.resolution:
        case Resolution.DNS:
            return ir.Discovery.LOGICAL_DNS if service.races else ir.Discovery.STRICT_DNS
        case Resolution.DNS_ROUND_ROBIN:
            return ir.Discovery.LOGICAL_DNS
        case Resolution.NAMED:
            return ir.Discovery.NAMED
        case Resolution.PASSTHROUGH if not router:
            return ir.Discovery.ORIGINAL_DST
    return ir.Discovery.ORIGINAL_DST if passes else ir.Discovery.EDS


def _listed(service: Service, port: Port, subset: Subset, peers: Peers) -> tuple[ir.Endpoint, ...]:
    """Endpoints of a DNS cluster: what the resource lists, else the host itself, which has no labels."""
    members = service.endpoints if service.selector is None else peers.members
    if not members:
        if is_wildcard(service.host) or service.selector is not None or subset.labels:
            return ()
        number = port.target if isinstance(port.target, int) else port.number
        return (ir.Endpoint(address=service.host, port=number),)
    wanted = set(subset.labels)
    listed = (listed_endpoint(port, instance) for instance in members if wanted <= set(instance.labels))
    return tuple(endpoint for endpoint in listed if endpoint is not None)


def listed_endpoint(port: Port, instance: Instance) -> ir.Endpoint | None:
    """An instance as an endpoint of a port; None when it does not serve it."""
    unix = instance.address.startswith("unix:")
    number = 0 if unix else target_port(port, instance)
    if number is None or (instance.serves and port.number not in instance.serves):
        return None
    return ir.Endpoint(
        address=instance.address,
        port=number,
        weight=instance.weight,
        health=instance.health,
        locality=instance.locality,
        network=instance.network,
        mesh_tls=instance.mesh,
        workload=instance.name,
        namespace=instance.namespace,
        service_account=instance.account,
        labels=instance.labels,
        hostname=instance.hostname,
        node=instance.node,
    )


def _protocol(
    declared: Protocol, policy: Policy, peers: Peers, settings: Settings, *, mesh_tls: bool, router: bool
) -> ir.UpstreamProtocol:
    """What is spoken upstream.

    Between sidecars an ``http`` port is carried by HTTP/2, if every workload known behind the service has
    one: a workload without a sidecar may not understand it. A gateway's clients choose their version by what
    the gateway offers, which says nothing of the service: there an undeclared port gets HTTP/1.1 (Istio).
    """
    if declared is Protocol.AUTO and not router:
        return ir.UpstreamProtocol.AS_RECEIVED
    if not declared.may_be_http:
        return ir.UpstreamProtocol.TCP
    if policy.client_protocol:
        return ir.UpstreamProtocol.AS_RECEIVED
    if declared.is_http2:
        return ir.UpstreamProtocol.HTTP2
    if declared is Protocol.AUTO:
        return ir.UpstreamProtocol.HTTP2 if policy.upgrade else ir.UpstreamProtocol.HTTP1
    upgrade = policy.upgrade if policy.upgrade is not None else settings.upgrade
    if upgrade is None:
        upgrade = mesh_tls and peers.sidecars is Sidecars.ALL
    return ir.UpstreamProtocol.HTTP2 if upgrade else ir.UpstreamProtocol.HTTP1


def _alpn(tls: ClientTls | None, protocol: ir.UpstreamProtocol) -> tuple[str, ...]:
    if tls is None or tls.mode is ClientTlsMode.ISTIO_MUTUAL:
        return _ALPN[protocol]
    return ("h2",) if protocol is ir.UpstreamProtocol.HTTP2 else ()


def _tls(
    service: Service,
    port: Port,
    subset: str,
    policy: Policy,
    peers: Peers,
    settings: Settings,
    discovery: ir.Discovery,
    router: bool,
    namespace: str,
) -> tuple[ir.UpstreamTls | None, ir.MutualTls | None]:
    """The TLS to speak, and for the mesh's own whether each endpoint decides."""
    tls = policy.tls
    if tls is None:
        if not settings.auto_mtls or service.external:
            return None, None
        if discovery is ir.Discovery.ORIGINAL_DST:  # no endpoint metadata could tell there
            if peers.sidecars is not Sidecars.ALL:
                return None, None
            return _mesh(service, port, subset, None, peers, settings), ir.MutualTls.ALWAYS
        return _mesh(service, port, subset, None, peers, settings), ir.MutualTls.AUTO
    if tls.mode is ClientTlsMode.DISABLE:
        return None, None
    if tls.mode is ClientTlsMode.ISTIO_MUTUAL:
        return _mesh(service, port, subset, tls, peers, settings), ir.MutualTls.ALWAYS
    if tls.credential and not router and not tls.selected:
        return None, None  # Istio: for gateways only, unless the rule names the workloads it is for
    accounts = () if service.kubernetes else service.accounts
    return originated(tls, accounts, namespace, settings.enforced(settings.tls_limits)), None


def _mesh(
    service: Service, port: Port, subset: str, tls: ClientTls | None, peers: Peers, settings: Settings
) -> ir.UpstreamTls:
    """The mesh's mTLS: our certificate, and a peer that is one of those that the service may be."""
    names: tuple[ir.TextMatch, ...]
    if tls is not None and tls.names:
        names = exactly(tls.names)
    elif peers.identities or service.accounts:
        names = exactly(tuple(sorted({*peers.identities, *service.accounts})))
    else:  # nobody known yet: an identity of the service's own namespace
        names = tuple(
            ir.TextMatch(test=ir.TextTest.PREFIX, value=f"spiffe://{domain}/ns/{service.namespace}/sa/")
            for domain in settings.accepted_trust_domains
        )
    return ir.UpstreamTls(
        sni=(tls.sni if tls else "") or outbound_sni(service.host, port.number, subset),
        certificate=ir.SecretRef(source=ir.SecretFrom.FILE, name=WORKLOAD_CERTIFICATE),
        trust=ir.SecretRef(source=ir.SecretFrom.FILE, name=WORKLOAD_TRUST_BUNDLE),
        peer_names=names,
        limits=settings.enforced(ir.TlsLimits(minimum=ir.TlsVersion.V1_2)),
    )


def passthrough_cluster(settings: Settings, *, named: bool = False) -> ir.Cluster:
    """Where the client wanted to go, unknown to the mesh. ``named``: clients use an explicit proxy."""
    return ir.Cluster(
        name=PASSTHROUGH_CLUSTER,
        discovery=ir.Discovery.NAMED if named else ir.Discovery.ORIGINAL_DST,
        protocol=ir.UpstreamProtocol.AS_RECEIVED,
        balancing=ir.LoadBalancing(algorithm=ir.Algorithm.PROVIDED),
        connections=default_connections(settings),
    )


def lookup_cluster(settings: Settings) -> ir.Cluster:
    """The host that a request names, unknown to the mesh."""
    tls = settings.lookup_tls
    outside = tls is not None and tls.mode is not ClientTlsMode.DISABLE
    return ir.Cluster(
        name=LOOKUP_CLUSTER,
        discovery=ir.Discovery.NAMED,
        protocol=ir.UpstreamProtocol.AS_RECEIVED,
        balancing=ir.LoadBalancing(algorithm=ir.Algorithm.PROVIDED),
        connections=default_connections(settings),
        tls=originated(tls, (), "", settings.enforced(settings.tls_limits))
        if tls is not None and outside
        else None,
        mutual=ir.MutualTls.ALWAYS,
    )


def blackhole_cluster() -> ir.Cluster:
    """Nowhere."""
    return ir.Cluster(
        name=BLACKHOLE_CLUSTER, discovery=ir.Discovery.BLACK_HOLE, protocol=ir.UpstreamProtocol.TCP
    )


def inbound_passthrough_cluster(settings: Settings, attachment: ir.Attachment) -> ir.Cluster:
    """A port of the application that nothing declares."""
    return ir.Cluster(
        name=INBOUND_PASSTHROUGH_CLUSTER,
        discovery=ir.Discovery.ORIGINAL_DST,
        protocol=ir.UpstreamProtocol.AS_RECEIVED,
        balancing=ir.LoadBalancing(algorithm=ir.Algorithm.PROVIDED),
        connections=default_connections(settings),
        source_address=_source(attachment),
    )


def _source(attachment: ir.Attachment) -> str:
    return INBOUND_SOURCE if attachment.capture is ir.Capture.REDIRECT else ""


def app_cluster(port: InboundPort, own: str, settings: Settings, attachment: ir.Attachment) -> ir.Cluster:
    """A declared port of the application; its protocol comes from the port, never from the connection.

    ``own`` is the workload's address.
    """
    protocol = port.protocol
    if protocol.is_http2:
        upstream = ir.UpstreamProtocol.HTTP2
    elif protocol.is_http:
        upstream = ir.UpstreamProtocol.HTTP1
    else:  # bytes, or what is looked at; and requests of connections that began while this was an HTTP port
        upstream = ir.UpstreamProtocol.AS_RECEIVED
    endpoint = _endpoint(port, own, settings, attachment)
    unix = endpoint is not None and endpoint.address.startswith("unix:")
    return ir.Cluster(
        name=inbound_cluster(port.number),
        discovery=ir.Discovery.STATIC if endpoint else ir.Discovery.ORIGINAL_DST,
        protocol=upstream,
        service=port.service,
        stat_name=port.stat_name,
        endpoints=(endpoint,) if endpoint else (),
        balancing=ir.LoadBalancing(algorithm=ir.Algorithm.ROUND_ROBIN if endpoint else ir.Algorithm.PROVIDED),
        connections=port.connections or default_connections(settings),
        source_address="" if unix else _source(attachment),
    )


def _endpoint(
    port: InboundPort, own: str, settings: Settings, attachment: ir.Attachment
) -> ir.Endpoint | None:
    """Where an application listens; None: where the connection was meant to go.

    Without network namespaces an application has an address of its own for all that it binds.
    """
    number, address = port.number, ""
    if port.endpoint.startswith("unix:"):
        return ir.Endpoint(address=port.endpoint, port=0)
    if port.endpoint:
        said, _, text = port.endpoint.rpartition(":")
        said, number = said.strip("[]"), int(text) if text.isdigit() else number
        address = own if said in {"0.0.0.0", "::"} else said
    elif settings.localhost and not port.named:
        address = LOCALHOST
    if attachment.app_address:
        address = attachment.app_address
    elif not address and (attachment.capture is not ir.Capture.REDIRECT or port.bound):
        address = LOCALHOST  # nobody knows an original destination there
    return ir.Endpoint(address=address, port=number) if address else None
