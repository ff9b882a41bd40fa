"""Istio's Sidecar: what of the mesh some workloads are told about, and how they are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from weft import ir
from weft.compile.age import precedence
from weft.compile.hosts import is_named
from weft.compile.istio.gateway import server_tls
from weft.compile.istio.traffic_policy import connections
from weft.compile.protocol import Protocol, parse_protocol
from weft.compile.server import Speaks
from weft.compile.service import Labels
from weft.compile.settings import Settings
from weft.compile.sources import source
from weft.compile.view import Limits
from weft.model.resource import Key
from weft.model.sidecar import (
    IstioEgressListener,
    IstioIngressListener,
    OutboundTrafficPolicy,
    Sidecar,
)
from weft.names import expand_host, outbound_cluster

HTTP_PROXY: Final = "HTTP_PROXY"
UNIX: Final = "unix://"


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """What applications see through some listeners; ``limits`` None: all that is exported.

    ``port`` None: listeners at the services' own ports; 0: at the socket ``bind``. ``bound``: they are real
    ports, where nothing is redirected to. ``explicit``: clients name the host that they want (HTTP_PROXY).
    """

    limits: Limits | None = None
    port: int | None = None
    protocol: Protocol = Protocol.AUTO
    bind: str = ""
    bound: bool = False
    explicit: bool = False

    @property
    def only(self) -> int | None:
        """The port without which a service is not seen here."""
        return None if self.explicit or not self.port else self.port


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingress:
    """A port of the application. ``endpoint``: where it really listens, ``IP:PORT`` or ``unix://…``."""

    owner: str
    port: int
    protocol: Protocol
    bind: str = ""
    bound: bool = False
    endpoint: str = ""
    connections: ir.Connections | None = None
    tls: ir.DownstreamTls | None = None
    source: ir.Source | None = None


WHOLE: Final = Egress()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """``ingress`` None: the ports of the workload's services. ``connections`` limit what reaches it.

    ``outbound_any`` None: as the mesh says. ``elsewhere``: the cluster for what nobody knows, if not its own
    destination.
    """

    egress: tuple[Egress, ...] = (WHOLE,)
    ingress: tuple[Ingress, ...] | None = None
    outbound_any: bool | None = None
    elsewhere: str = ""
    connections: ir.Connections | None = None


NO_SCOPE: Final = Scope()


def scope_of(resources: Mapping[Key, Sidecar], namespace: str, labels: Labels, settings: Settings) -> Scope:
    """The oldest Sidecar for a workload, else its namespace's, else the root namespace's."""
    chosen = chosen_of(resources, namespace, labels, settings.root_namespace)
    if chosen is None:
        return NO_SCOPE
    spec = chosen.spec
    pool = spec.inbound_connection_pool
    outbound = spec.outbound_traffic_policy
    return Scope(
        egress=tuple(_egress(part, namespace) for part in spec.egress or ()) or (WHOLE,),
        ingress=tuple(_ingress(chosen, part, settings) for part in spec.ingress) if spec.ingress else None,
        # A policy that is given without a mode has the first one (protobuf's default): REGISTRY_ONLY.
        outbound_any=None if outbound is None else outbound.mode == "ALLOW_ANY",
        elsewhere=_elsewhere(outbound, chosen, settings),
        connections=connections(pool, settings) if pool is not None else None,
    )


def chosen_of(resources: Mapping[Key, Sidecar], namespace: str, labels: Labels, root: str) -> Sidecar | None:
    """Which Sidecar holds for a workload; None: none does."""
    ordered = sorted(resources.values(), key=lambda resource: precedence(resource.metadata))
    bearer = set(labels)
    own = [resource for resource in ordered if resource.metadata.namespace == namespace]
    named = [r for r in own if (wanted := _selector(r)) and bearer.issuperset(wanted.items())]
    whole = [r for r in own if not _selector(r)]
    mesh = [r for r in ordered if r.metadata.namespace == root and not _selector(r)]
    return next(iter((*named, *whole, *mesh)), None)


def _selector(resource: Sidecar) -> Mapping[str, str]:
    return (resource.spec.workload_selector.labels if resource.spec.workload_selector else None) or {}


def _egress(part: IstioEgressListener, namespace: str) -> Egress:
    bind = part.bind or ""
    if is_named(bind):  # without a port nobody has looked at it: nothing can listen there
        bind = ""
    protocol = (part.port.protocol if part.port else None) or ""
    return Egress(
        limits=tuple(sorted({_limit(host, namespace) for host in part.hosts})),
        port=None if part.port is None else part.port.number or 0,
        protocol=parse_protocol(protocol),
        bind=bind,
        bound=part.capture_mode == "NONE" or bind.startswith(UNIX),
        explicit=protocol.upper() == HTTP_PROXY,
    )


def _limit(text: str, namespace: str) -> tuple[str, str]:
    """``namespace/host``; ``.`` is the workload's own namespace, whose Sidecar it may not be.

    ``~namespace/host`` hides what other entries let through; ``~/host`` does in every namespace.
    """
    space, _, host = text.partition("/")
    hidden, space = ("~", space[1:] or "*") if space.startswith("~") else ("", space)
    return (hidden + (namespace if space == "." else space), host.lower())


def _ingress(owner: Sidecar, part: IstioIngressListener, settings: Settings) -> Ingress:
    protocol = parse_protocol(part.port.protocol or "")
    tls: ir.DownstreamTls | None = None
    if part.tls is not None:
        ended = Speaks.HTTPS if protocol in {Protocol.HTTPS, *_HTTP} else Speaks.TLS
        tls = server_tls(part.tls, ended, owner.metadata.namespace, settings)
        protocol = _ENDED.get(protocol, protocol)
    return Ingress(
        owner=f"{owner.metadata.name}.{owner.metadata.namespace}",
        port=part.port.number or 0,
        protocol=protocol,
        bind=part.bind or "",
        bound=part.capture_mode == "NONE",
        endpoint=part.default_endpoint or "",
        connections=connections(part.connection_pool, settings) if part.connection_pool is not None else None,
        tls=tls,
        source=source(owner.key),
    )


_HTTP: Final = frozenset(protocol for protocol in Protocol if protocol.is_http)
_ENDED: Final = {Protocol.HTTPS: Protocol.HTTP, Protocol.TLS: Protocol.TCP}


def _elsewhere(policy: OutboundTrafficPolicy | None, owner: Sidecar, settings: Settings) -> str:
    """The cluster of an egress proxy. Its port must be said: nothing else tells it (Istio)."""
    to = policy.egress_proxy if policy is not None else None
    if to is None or policy is None or policy.mode != "ALLOW_ANY":
        return ""
    host = expand_host(to.host, owner.metadata.namespace, settings.domain).lower()
    return outbound_cluster(host, (to.port.number if to.port else None) or 0, to.subset or "")
