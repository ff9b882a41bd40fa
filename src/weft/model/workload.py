"""Workload of weft.dev: a process that ``weft up`` runs, and its probes in Kubernetes' form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape, given, twice
from weft.model.resource import Condition, Resource
from weft.model.scalars import AnyText, DnsLabel, DnsName, HeaderName, Int, IntOrString, Port, Text
from weft.model.service import Protocol

_Count = Annotated[Int, Field(ge=1)]


class EnvVar(Shape):
    """A variable of the process's environment."""

    name: AnyText
    value: Text | None = None

    def flaws(self) -> Iterator[Flaw]:
        """A name has no '='."""
        if "=" in self.name:
            yield Flaw(("name",), f"{self.name!r} is not a variable's name", "leave '=' out")


class WorkloadPort(Shape):
    """A port that the process listens on."""

    name: DnsLabel
    """Services find the port by it; its beginning says the protocol, as 'http'."""
    port: Port
    protocol: Protocol | None = None
    """TCP unless said otherwise."""


class ExecAction(Shape):
    """Ready when the command exits with 0."""

    command: Annotated[tuple[Text, ...], Field(min_length=1)]


class ProbeHeader(Shape):
    """A header of the probe."""

    name: HeaderName
    value: Text


class HTTPGetAction(Shape):
    """Ready when a GET is answered with 200 to 399."""

    path: Text | None = None
    port: IntOrString
    """By number or name."""
    host: Text | None = None
    scheme: Literal["HTTP", "HTTPS"] | None = None
    http_headers: tuple[ProbeHeader, ...] | None = None


class TCPSocketAction(Shape):
    """Ready when the port accepts a connection."""

    port: IntOrString
    """By number or name."""
    host: Text | None = None


class GRPCAction(Shape):
    """Ready when gRPC's health service says so."""

    port: Port
    service: Text | None = None


class Probe(Shape):
    """How a process is asked; one of exec, httpGet, tcpSocket, grpc."""

    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    grpc: GRPCAction | None = None
    initial_delay_seconds: Annotated[Int, Field(ge=0)] | None = None
    """0 unless said otherwise."""
    timeout_seconds: _Count | None = None
    """1 unless said otherwise."""
    period_seconds: _Count | None = None
    """10 unless said otherwise."""
    success_threshold: _Count | None = None
    """1 unless said otherwise."""
    failure_threshold: _Count | None = None
    """3 unless said otherwise."""
    termination_grace_period_seconds: _Count | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Exactly one way to ask."""
        if given(self.exec, self.http_get, self.tcp_socket, self.grpc) != 1:
            yield Flaw((), "a probe needs exactly one of exec, httpGet, tcpSocket, grpc")


class WorkloadSpec(Shape):
    """The process: its command, its ports, who it is, and how it is known to be ready."""

    command: Annotated[tuple[Text, ...], Field(min_length=1)]
    """The program and its arguments; no shell."""
    working_dir: AnyText | None = None
    """A relative one counts from the file's folder; through the API it must be absolute."""
    env: tuple[EnvVar, ...] | None = None
    """Added to the environment of who runs it."""
    ports: tuple[WorkloadPort, ...] | None = None
    """Ports that the process listens on."""
    replicas: Annotated[Int, Field(ge=0, le=1000)] | None = None
    """1 unless said otherwise; each has an address of its own."""
    service_account: DnsName | None = None
    """Who the process is; 'default' unless said otherwise."""
    readiness_probe: Probe | None = None
    """Until it succeeds, nobody is sent there."""
    liveness_probe: Probe | None = None
    """When it fails, the process is started again."""

    def flaws(self) -> Iterator[Flaw]:
        """Ports differ in name and number."""
        ports = self.ports or ()
        for number in twice(port.name for port in ports):
            yield Flaw(("ports", number, "name"), f"the port name {ports[number].name!r} is there twice")
        for number in twice((port.port, port.protocol or "TCP") for port in ports):
            yield Flaw(("ports", number, "port"), f"port {ports[number].port} is there twice")
        names = {port.name for port in ports}
        for field, probe in (
            ("readinessProbe", self.readiness_probe),
            ("livenessProbe", self.liveness_probe),
        ):
            for way, action in (
                ("httpGet", probe.http_get if probe else None),
                ("tcpSocket", probe.tcp_socket if probe else None),
            ):
                if action and isinstance(action.port, str) and action.port not in names:
                    yield Flaw((field, way, "port"), f"no port is named {action.port!r}", "add it to ports")


class WorkloadStatus(Shape):
    """What runs of it."""

    replicas: Int | None = None
    ready_replicas: Int | None = None
    observed_generation: Int | None = None
    conditions: tuple[Condition, ...] | None = None


class Workload(Resource):
    """A process that ``weft up`` runs, as often as it says. Its labels are those of the instances."""

    spec: WorkloadSpec
    status: WorkloadStatus | None = None
