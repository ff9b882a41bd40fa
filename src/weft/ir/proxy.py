"""A whole proxy: what one Envoy shall do."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from weft.ir.cluster import Cluster
from weft.ir.endpoint import NOWHERE, Locality
from weft.ir.listener import Listener
from weft.ir.patch import Patch
from weft.ir.placement import Standpoint
from weft.ir.route import RouteTable
from weft.ir.telemetry import Telemetry
from weft.names import INBOUND_PORT, NODE_LABEL, OUTBOUND_PORT, TRUST_DOMAIN, ProxyName
from weft.spiffe import SpiffeId


class Capture(StrEnum):
    """How an application's traffic reaches its sidecar.

    ``REDIRECT``: nft, in a network namespace or on the host. ``SECCOMP``: connects are steered to the
    outbound port with a PROXY v2 header, binds moved to ``app_address``, and the sidecar listens on the
    ports the application meant to. ``PROXY_ENV``: the application uses ``http_proxy``.
    ``NONE``: a gateway, or a proxy that only listens.
    """

    REDIRECT = "redirect"
    SECCOMP = "seccomp"
    PROXY_ENV = "proxy_env"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """Where a sidecar's own ports are and where its application listens.

    Of a gateway only two count: its listeners are at ``inbound_address``, and by ``shared_ports`` others have
    the same ports at other addresses.

    ``outbound_address`` is where captured connections arrive (loopback on a shared host). ``app_address``
    is where inbound traffic is sent: empty means the original destination. ``inbound_ports`` maps an
    application port to the port where the sidecar receives for it (``SECCOMP``, ``PROXY_ENV``);
    ``http_proxy_port`` serves ``PROXY_ENV``.
    """

    capture: Capture = Capture.REDIRECT
    outbound_address: str = "0.0.0.0"
    outbound_port: int = OUTBOUND_PORT
    inbound_address: str = "0.0.0.0"
    inbound_port: int = INBOUND_PORT
    app_address: str = ""
    inbound_ports: tuple[tuple[int, int], ...] = ()
    http_proxy_port: int | None = None
    shared_ports: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyIdentity:
    """Who asks: what the stream's node id and metadata say, checked against its certificate.

    ``metadata`` are the texts in the node's metadata, which an EnvoyFilter may ask for.
    """

    name: ProxyName
    service_account: str = "default"
    labels: tuple[tuple[str, str], ...] = ()
    locality: Locality = NOWHERE
    network: str = ""
    trust_domain: str = TRUST_DOMAIN
    attachment: Attachment = Attachment()
    port_map: tuple[tuple[int, int], ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()

    @property
    def standpoint(self) -> Standpoint:
        """Where it is, as far as its choice of endpoints may depend on that."""
        return Standpoint(
            locality=self.locality,
            network=self.network,
            node=next((value for name, value in self.labels if name == NODE_LABEL), ""),
            labels=self.labels,
        )

    @property
    def spiffe(self) -> SpiffeId:
        """The identity in its certificate."""
        return SpiffeId(self.trust_domain, self.name.namespace, self.service_account)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """Everything but endpoints. Equal inputs give the very same objects, so that bytes are shared.

    ``peers``: the cluster whose endpoints are the replicas of this proxy; empty where it needs no such thing.
    """

    identity: ProxyIdentity
    listeners: tuple[Listener, ...]
    routes: tuple[RouteTable, ...]
    clusters: tuple[Cluster, ...]
    telemetry: Telemetry = field(default_factory=Telemetry)
    patches: tuple[Patch, ...] = ()
    peers: str = ""
