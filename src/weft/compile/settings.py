"""What holds for the whole mesh, with Istio's defaults filled in (MeshConfig)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network

from weft import ir
from weft.compile.nearness import MESH_DEFAULT, Nearness
from weft.compile.policy import ClientTls
from weft.compile.reporting import Reporting
from weft.model.extension_provider import ExtensionProvider
from weft.model.mesh_config import ServiceEntryVisibility
from weft.model.resource import LabelSelector
from weft.names import CLUSTER_DOMAIN, PASSTHROUGH_CLUSTER, ROOT_NAMESPACE, TRUST_DOMAIN

DEFAULT_RETRY = ir.Retry(
    attempts=2,
    on=("connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes"),
)


MESH_REPORTING = Reporting()
NO_LIMITS = ir.TlsLimits()
# Istio's COMPLIANCE_POLICY=pqc (pkg/model/fips.go). Without it Envoy prefers this group, and takes others.
POST_QUANTUM = ir.TlsLimits(minimum=ir.TlsVersion.V1_3, groups=("X25519MLKEM768",))


INBOUND_RETRY = ir.Retry(attempts=2, on=("reset-before-request",), avoid_previous_hosts=False)


class Delivery(StrEnum):
    """How a sidecar gets its clusters: all at once, or each when a request needs it. ``AUTO``: by number."""

    AUTO = "auto"
    EAGER = "eager"
    ON_DEMAND = "onDemand"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignTrust:
    """Roots that vouch for these trust domains and no others: PEM, or where a SPIFFE bundle is published.

    No domains: the own one, and its aliases.
    """

    domains: tuple[str, ...] = ()
    pem: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``detection_timeout`` zero: a silent client is waited for, however long it takes.

    ``export_*`` are what a resource without ``exportTo`` is exported to. ``trust_domains`` are other
    domains whose identities are taken for own ones; ``foreign``: who vouches for those of others.
    ``controllers`` name the GatewayClasses that are ours.
    ``flow_share``: of requests that succeed, so many in a million are told to the telemetry store; failures
    and denials always are.
    ``nearness``: what holds of near and far endpoints; None: nothing. ``default_pool``, ``default_outlier``,
    ``default_upgrade`` and ``default_client_protocol`` are for connections of which no rule says anything.
    ``mesh_limits``: what TLS within the mesh may use; ``tls_limits``: any other, where nobody says more.
    ``post_quantum``: all TLS has post-quantum key exchange, whatever anybody says.
    ``lookup``: HTTP for hosts that nobody knows goes to the address that DNS has for them, with
    ``lookup_tls`` (ALLOW_ANY_DYNAMIC_DNS). ``elsewhere``: where other connections
    to what nobody knows go, if they may. ``localhost``: applications listen there only.
    ``trusted_hops``, ``edge_certificate``, ``edge_proxy_protocol``: what stands in front of gateways, and is
    believed (gatewayTopology).
    ``key_networks``: keys of issuers may be fetched there though it is not public; with ``key_plaintext``
    over plain HTTP.
    ``*_stat_name``: patterns of what statistics call clusters.
    ``discovery``: which namespaces are looked at; none: all. ``entry_visibility``: how far ServiceEntries
    may be seen.
    ``providers`` are what proxies may use of outside the mesh, by name.
    ``upgrade``: HTTP/2 to every ``http`` port (True), to none (False), or between sidecars (None).
    """

    trust_domain: str = TRUST_DOMAIN
    trust_domains: tuple[str, ...] = ()
    foreign: tuple[ForeignTrust, ...] = ()
    domain: str = CLUSTER_DOMAIN
    root_namespace: str = ROOT_NAMESPACE
    outbound_any: bool = True
    elsewhere: str = PASSTHROUGH_CLUSTER
    lookup: bool = False
    lookup_tls: ClientTls | None = None
    localhost: bool = False
    upgrade: bool | None = None
    dns_refresh: timedelta = timedelta(seconds=60)
    path_normalization: ir.PathNormalization = ir.PathNormalization.BASE
    auto_mtls: bool = True
    delivery: Delivery = Delivery.AUTO
    connect_timeout: timedelta = timedelta(seconds=10)
    keepalive: ir.Keepalive | None = None
    nearness: Nearness | None = MESH_DEFAULT
    default_pool: ir.Connections | None = None
    default_outlier: ir.OutlierDetection | None = None
    default_upgrade: bool | None = None
    default_client_protocol: bool = False
    detection_timeout: timedelta = timedelta(0)
    retry: ir.Retry | None = DEFAULT_RETRY
    inbound_retry: ir.Retry | None = INBOUND_RETRY
    trusted_hops: int = 0
    edge_certificate: ir.ClientCertificate = ir.ClientCertificate.SANITIZE_SET
    edge_proxy_protocol: bool = False
    reporting: Reporting = MESH_REPORTING
    flow_share: int = 100_000
    key_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    key_plaintext: bool = False
    export_services: tuple[str, ...] = ("*",)
    export_virtual_services: tuple[str, ...] = ("*",)
    export_destination_rules: tuple[str, ...] = ("*",)
    inbound_stat_name: str = ""
    outbound_stat_name: str = ""
    tls_limits: ir.TlsLimits = NO_LIMITS
    mesh_limits: ir.TlsLimits = NO_LIMITS
    providers: tuple[ExtensionProvider, ...] = ()
    post_quantum: bool = False
    discovery: tuple[LabelSelector, ...] = ()
    entry_visibility: ServiceEntryVisibility | None = None
    controllers: frozenset[str] = frozenset({"weft.dev/gateway-controller", "istio.io/gateway-controller"})

    def enforced(self, limits: ir.TlsLimits) -> ir.TlsLimits:
        """What TLS may really use, where ``limits`` were asked for. The last word, as Istio has it."""
        return POST_QUANTUM if self.post_quantum else limits

    def signed_in(self, trust_domain: str) -> Settings:
        """These, where an authority signs identities of ``trust_domain``; the empty one says nothing.

        What a MeshConfig names changes no certificate: to believe it would have every peer refused.
        """
        if not trust_domain or trust_domain == self.trust_domain:
            return self
        return replace(self, trust_domain=trust_domain)

    @property
    def peer_trust_domains(self) -> tuple[str, ...]:
        """Domains that a client may be of at all: other ones are foreign, and never taken for own ones."""
        others = (domain for one in self.foreign for domain in one.domains)
        return tuple(dict.fromkeys((*self.accepted_trust_domains, *others)))

    @property
    def accepted_trust_domains(self) -> tuple[str, ...]:
        """Domains whose identities a peer may have, the own one first."""
        return tuple(dict.fromkeys((self.trust_domain, *self.trust_domains)))
