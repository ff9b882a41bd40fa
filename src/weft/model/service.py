"""Service of Kubernetes 1.32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape, twice
from weft.model.resource import Condition, Resource
from weft.model.scalars import (
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
    node_port: Int | None = None


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
        """Kubernetes' rules on ports (apis/core/validation)."""
        ports = self.ports or ()
        headless = self.cluster_ip == "None"
        if not ports and not headless and self.type != "ExternalName":
            yield Flaw(("ports",), "a Service needs ports", "add ports, or write 'clusterIP: None'")
        given: list[tuple[tuple[str | int, ...], str | None]] = [(("clusterIP",), self.cluster_ip)]
        given += [(("clusterIPs", number), address) for number, address in enumerate(self.cluster_ips or ())]
        for path, address in given:
            if address and address != "None" and not is_ip(address):
                yield Flaw(path, f"{address!r} is not an IP address", "leave it out, or write 'None'")
        if self.type == "ExternalName" and not self.external_name:
            yield Flaw(("externalName",), "a Service of type ExternalName needs externalName")
        if len(ports) > 1:
            for number, port in enumerate(ports):
                if not port.name:
                    yield Flaw(("ports", number, "name"), "each of several ports needs a name", "as 'http'")
        for number in twice(port.name for port in ports if port.name):
            yield Flaw(("ports", number, "name"), f"the port name {ports[number].name!r} is there twice")
        for number in twice((port.port, port.protocol or "TCP") for port in ports):
            yield Flaw(("ports", number, "port"), f"port {ports[number].port} is there twice")


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
    conditions: tuple[Condition, ...] | None = None


class Service(Resource):
    """A name for the workloads that bear some labels."""

    spec: ServiceSpec
    status: ServiceStatus | None = None
