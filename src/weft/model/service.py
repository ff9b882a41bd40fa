"""Service of Kubernetes 1.32."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape, twice, wire_name
from weft.model.hosts import is_range
from weft.model.resource import Resource, StatusCondition
from weft.model.scalars import (
    QUALIFIED,
    SUBDOMAIN,
    AnyText,
    Bool,
    DnsLabel,
    Int,
    IntOrString,
    IpAddress,
    Labels,
    Port,
    Text,
    is_ip,
)

Protocol = Literal["TCP", "UDP", "SCTP"]
_NAME: Final = re.compile(SUBDOMAIN)
_QUALIFIED: Final = re.compile(rf"(?:{SUBDOMAIN}/)?{QUALIFIED}")
_PORT_NAME: Final = re.compile(r"(?=[^a-z]*[a-z])[a-z0-9]+(?:-[a-z0-9]+)*")


class ServicePort(Shape):
    """A port of the service."""

    name: DnsLabel | None = None
    """Needed when there are several. Its beginning says the protocol, as 'http-web'."""
    port: Port
    """The number that clients connect to."""
    protocol: Protocol | None = None
    """TCP unless said otherwise."""
    target_port: IntOrString | None = None
    """The workload's port, by number or name; the same number unless said otherwise."""
    app_protocol: AnyText | None = None
    """The protocol inside; goes before what the name says."""
    node_port: Annotated[Int, Field(ge=0, le=65535)] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """The workload's port as it can be."""
        target = self.target_port
        if isinstance(target, int) and not 1 <= target <= 65535:
            yield Flaw(("targetPort",), f"{target} is not a port: write 1 to 65535")
        if isinstance(target, str) and not is_port_name(target):
            hint = "at most 15 lower-case letters, digits and '-'; a number stands without quotes"
            yield Flaw(("targetPort",), f"{target!r} is not the name of a port", hint)
        if self.app_protocol is not None and not _QUALIFIED.fullmatch(self.app_protocol):
            yield Flaw(
                ("appProtocol",),
                f"{self.app_protocol!r} is not a protocol",
                "as 'http' or 'kubernetes.io/h2c'",
            )


def is_port_name(text: str) -> bool:
    """Whether it can be the name of a container's port (IANA's service names)."""
    return len(text) <= 15 and _PORT_NAME.fullmatch(text) is not None


class ClientIPConfig(Shape):
    """How long a client keeps its endpoint."""

    timeout_seconds: Annotated[Int, Field(ge=1, le=86400)] | None = None


class SessionAffinityConfig(Shape):
    """Details of the session affinity."""

    client_ip: ClientIPConfig | None = Field(default=None, alias="clientIP")


class ServiceSpec(Shape):
    """Which workloads serve, and at which ports."""

    ports: tuple[ServicePort, ...] | None = None
    """Ports that clients may call."""
    selector: Labels | None = None
    """Workloads of the namespace that bear all these labels serve."""
    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] | None = None
    cluster_ip: Text | None = Field(default=None, alias="clusterIP")
    """An address, 'None' for a headless service; found by the mesh unless given."""
    cluster_ips: tuple[Text, ...] | None = Field(default=None, alias="clusterIPs")
    external_ips: tuple[IpAddress, ...] | None = Field(default=None, alias="externalIPs")
    external_name: AnyText | None = None
    """Another name that this one stands for (type ExternalName)."""
    session_affinity: Literal["ClientIP", "None"] | None = None
    session_affinity_config: SessionAffinityConfig | None = None
    load_balancer_ip: Text | None = Field(default=None, alias="loadBalancerIP")
    load_balancer_source_ranges: tuple[Text, ...] | None = None
    load_balancer_class: Text | None = None
    allocate_load_balancer_node_ports: Bool | None = None
    external_traffic_policy: Literal["Cluster", "Local"] | None = None
    internal_traffic_policy: Literal["Cluster", "Local"] | None = None
    traffic_distribution: Text | None = None
    health_check_node_port: Int | None = None
    publish_not_ready_addresses: Bool | None = None
    """Whether workloads are called before they are ready."""
    ip_families: tuple[Literal["IPv4", "IPv6"], ...] | None = None
    ip_family_policy: Literal["SingleStack", "PreferDualStack", "RequireDualStack"] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Kubernetes' rules (apis/core/validation, ValidateService)."""
        ports = self.ports or ()
        if not ports and self.cluster_ip != "None" and self.type != "ExternalName":
            yield Flaw(("ports",), "a Service needs ports", "add ports, or write 'clusterIP: None'")
        if len(ports) > 1:
            for number, port in enumerate(ports):
                if not port.name:
                    yield Flaw(("ports", number, "name"), "each of several ports needs a name", "as 'http'")
        for number in twice(port.name for port in ports if port.name):
            yield Flaw(("ports", number, "name"), f"the port name {ports[number].name!r} is there twice")
        for number in twice((port.port, port.protocol or "TCP") for port in ports):
            yield Flaw(("ports", number, "port"), f"port {ports[number].port} is there twice")
        yield from self._addresses()
        yield from self._outside()
        if self.session_affinity_config is not None and self.session_affinity != "ClientIP":
            hint = "write 'sessionAffinity: ClientIP'"
            yield Flaw(("sessionAffinityConfig",), "it goes with sessionAffinity ClientIP", hint)

    def _addresses(self) -> Iterator[Flaw]:
        several = self.cluster_ips or ()
        given: list[tuple[tuple[str | int, ...], str | None]] = [(("clusterIP",), self.cluster_ip)]
        given += [(("clusterIPs", number), address) for number, address in enumerate(several)]
        for path, address in given:
            if address and address != "None" and not is_ip(address):
                yield Flaw(path, f"{address!r} is not an IP address", "leave it out, or write 'None'")
        if self.cluster_ip and several and several[0] != self.cluster_ip:
            yield Flaw(("clusterIPs", 0), "the first is not the clusterIP", "write the same in both")
        if self.type == "ExternalName":
            if not self.external_name:
                yield Flaw(("externalName",), "a Service of type ExternalName needs externalName")
            elif not _NAME.fullmatch(self.external_name.removesuffix(".")):
                wrong = f"{self.external_name!r} is not a host name"
                yield Flaw(("externalName",), wrong, "lower-case, as 'db.example.com'")
            if self.cluster_ip or several:
                yield Flaw(("clusterIP",), "a Service of type ExternalName has no address", "remove it")
        elif self.cluster_ip == "None" and self.type in {"NodePort", "LoadBalancer"}:
            yield Flaw(
                ("clusterIP",), f"a Service of type {self.type} has an address", "write type ClusterIP"
            )

    def _outside(self) -> Iterator[Flaw]:
        """What is for Services that can be called from outside."""
        outside = self.type in {"NodePort", "LoadBalancer"}
        for number, port in enumerate(self.ports or ()):
            if port.node_port and not outside:
                path = ("ports", number, "nodePort")
                yield Flaw(path, "nodePort goes with type NodePort and LoadBalancer", "remove it")
        if self.external_traffic_policy and not outside and not self.external_ips:
            message = "it goes with type NodePort and LoadBalancer"
            yield Flaw(("externalTrafficPolicy",), message, "remove it")
        if self.type == "LoadBalancer":
            for number, text in enumerate(self.load_balancer_source_ranges or ()):
                if not is_range(text.strip()):
                    place = ("loadBalancerSourceRanges", number)
                    yield Flaw(place, f"{text!r} is not a range of addresses", "as '10.0.0.0/8'")
            return
        for name in (
            "load_balancer_source_ranges",
            "load_balancer_class",
            "allocate_load_balancer_node_ports",
        ):
            if getattr(self, name) not in (None, ()):
                yield Flaw((wire_name(self, name),), "it goes with type LoadBalancer", "remove it")


class PortStatus(Shape):
    """What became of a port at a load balancer."""

    port: Int
    protocol: Protocol
    error: Text | None = None


class LoadBalancerIngress(Shape):
    """Where a load balancer is reached."""

    ip: Text | None = None
    hostname: Text | None = None
    ip_mode: Text | None = None
    ports: tuple[PortStatus, ...] | None = None


class LoadBalancerStatus(Shape):
    """What became of the load balancer."""

    ingress: tuple[LoadBalancerIngress, ...] | None = None


class ServiceStatus(Shape):
    """What became of the service."""

    load_balancer: LoadBalancerStatus | None = None
    conditions: tuple[StatusCondition, ...] | None = None


class Service(Resource):
    """A name for the workloads that bear some labels."""

    spec: ServiceSpec
    status: ServiceStatus | None = None
