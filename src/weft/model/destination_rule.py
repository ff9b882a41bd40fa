"""DestinationRule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape, each, given, inside, twice
from weft.model.client_tls import ClientTLSSettings
from weft.model.connection_pool import ConnectionPoolSettings
from weft.model.hosts import fqdn, is_address, is_label, labels, wildcard
from weft.model.istio import IstioResource, IstioStatus, LabelsSelector, PortSelector, exported
from weft.model.load_balancer import (
    ConsistentHashLB,
    CookieAttribute,
    Distribute,
    Failover,
    HTTPCookie,
    LoadBalancerSettings,
    LocalityLoadBalancerSetting,
    MagLev,
    OutlierDetection,
    RingHash,
    WarmupConfiguration,
    ZoneAwareLoadBalancerSetting,
)
from weft.model.scalars import Float, ProtoDuration, Text, UInt

__all__ = [
    "ClientTLSSettings",
    "ConsistentHashLB",
    "CookieAttribute",
    "DestinationRule",
    "DestinationRuleSpec",
    "Distribute",
    "Failover",
    "HTTPCookie",
    "LoadBalancerSettings",
    "LocalityLoadBalancerSetting",
    "MagLev",
    "OutlierDetection",
    "PortTrafficPolicy",
    "ProxyProtocol",
    "RetryBudget",
    "RingHash",
    "Subset",
    "TrafficPolicy",
    "TunnelSettings",
    "WarmupConfiguration",
    "ZoneAwareLoadBalancerSetting",
]

_PARTS: Final = "add loadBalancer, connectionPool, outlierDetection or tls"


class PortTrafficPolicy(Shape):
    """The policy of one port; it replaces the whole of the one around it."""

    connection_pool: ConnectionPoolSettings | None = None
    load_balancer: LoadBalancerSettings | None = None
    outlier_detection: OutlierDetection | None = None
    port: PortSelector | None = None
    tls: ClientTLSSettings | None = None

    def flaws(self) -> Iterator[Flaw]:
        """A port, and something that holds for it."""
        if self.port is None:
            yield Flaw(("port",), "the port is missing", "add port.number")
        if given(self.connection_pool, self.load_balancer, self.outlier_detection, self.tls) == 0:
            yield Flaw((), "the policy says nothing", _PARTS)
        if self.load_balancer is not None:
            yield from self.load_balancer.lacking(self.outlier_detection)


class ProxyProtocol(Shape):
    """Announces the client by PROXY protocol."""

    version: Literal["V1", "V2"] | None = None


class RetryBudget(Shape):
    """Bounds retries to a share of the requests."""

    budget_interval: ProtoDuration | None = None
    min_retry_concurrency: UInt | None = None
    percent: Annotated[Float, Field(ge=0, le=100)] | None = None


class TunnelSettings(Shape):
    """Wraps TCP in HTTP CONNECT or POST."""

    protocol: Text | None = None
    target_host: Text
    target_port: UInt

    def flaws(self) -> Iterator[Flaw]:
        """Where the tunnel leads, and by which method."""
        if self.protocol and self.protocol not in {"CONNECT", "POST"}:
            yield Flaw(("protocol",), f"{self.protocol!r} is not known", "write CONNECT or POST")
        if fqdn(self.target_host) and not is_address(self.target_host):
            yield Flaw(("targetHost",), f"{self.target_host!r} is neither a host name nor an address")
        if not 1 <= self.target_port <= 65535:
            yield Flaw(("targetPort",), f"{self.target_port} is not a port: write 1 to 65535")


class TrafficPolicy(Shape):
    """How connections to a service are made, and which endpoints they go to."""

    connection_pool: ConnectionPoolSettings | None = None
    load_balancer: LoadBalancerSettings | None = None
    outlier_detection: OutlierDetection | None = None
    port_level_settings: Annotated[tuple[PortTrafficPolicy, ...], Field(max_length=4096)] | None = None
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None
    tls: ClientTLSSettings | None = None
    tunnel: TunnelSettings | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Something is said, and the parts fit."""
        if all(getattr(self, name) in (None, ()) for name in type(self).model_fields):
            yield Flaw((), "the policy says nothing", _PARTS)
        if self.tunnel is not None and self.proxy_protocol is not None:
            yield Flaw(("proxyProtocol",), "tunnel is there too", "keep one of them")
        if self.load_balancer is not None:
            yield from self.load_balancer.lacking(self.outlier_detection)


class Subset(Shape):
    """A named part of a service: the workloads that bear these labels."""

    labels: dict[str, Text] | None = None
    """Workloads that belong to it."""
    name: Text
    """What routes call it."""
    traffic_policy: TrafficPolicy | None = None

    def flaws(self) -> Iterator[Flaw]:
        """A name and labels as they can be."""
        if not is_label(self.name):
            yield Flaw(("name",), f"{self.name!r} cannot be a subset's name", "letters, digits and '-'")
        for key, wrong in labels(self.labels):
            yield Flaw(("labels", key), wrong)


class DestinationRuleSpec(Shape):
    """Policies of the clients of a service."""

    export_to: tuple[Text, ...] | None = None
    """Namespaces that see it: '.' its own, '*' all; all unless said otherwise."""
    host: Text
    """The service: a short name means one of the rule's namespace."""
    subsets: tuple[Subset, ...] | None = None
    """Parts of the service, to route to by name."""
    traffic_policy: TrafficPolicy | None = None
    """Holds for all of the service."""
    workload_selector: LabelsSelector | None = None
    """Clients that obey it; all unless given."""

    def flaws(self) -> Iterator[Flaw]:
        """A host; subsets differ in name."""
        yield from each(("host",), [wildcard(self.host)], "write a service, as 'reviews'")
        subsets = self.subsets or ()
        for number in twice(subset.name for subset in subsets):
            yield Flaw(("subsets", number, "name"), f"the subset {subsets[number].name!r} is there twice")


class DestinationRule(IstioResource):
    """Policies for a service, obeyed by its clients."""

    spec: DestinationRuleSpec
    status: IstioStatus | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Who sees it, and whose certificates it uses."""
        yield from super().flaws()
        namespace = self.metadata.namespace
        yield from inside(("spec",), exported(self.spec.export_to, namespace))
        if self.spec.workload_selector is not None and set(self.spec.export_to or ()) - {".", namespace}:
            where = ("spec", "exportTo")
            yield Flaw(where, "a rule for some workloads is seen in its own namespace only", "write '.'")
        subsets = self.spec.subsets or ()
        policies: list[tuple[tuple[str | int, ...], TrafficPolicy | None]] = [
            (("spec", "trafficPolicy"), self.spec.traffic_policy),
            *(
                (("spec", "subsets", n, "trafficPolicy"), subset.traffic_policy)
                for n, subset in enumerate(subsets)
            ),
        ]
        for place, policy in policies:
            if policy is None:
                continue
            ports = policy.port_level_settings or ()
            found: list[tuple[tuple[str | int, ...], ClientTLSSettings | None]] = [
                ((*place, "tls"), policy.tls),
                *(((*place, "portLevelSettings", n, "tls"), port.tls) for n, port in enumerate(ports)),
            ]
            for path, tls in found:
                if tls is not None:
                    yield from inside(path, tls.misplaced(namespace))
