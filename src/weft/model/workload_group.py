"""WorkloadGroup."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape, at_most_one, given
from weft.model.hosts import labels
from weft.model.istio import IstioResource, IstioStatus
from weft.model.scalars import Form, ProtoInt, ProtoPort, Text
from weft.model.workload_entry import WorkloadTemplate


class ObjectMeta(Shape):
    """Labels and annotations of the entries."""

    annotations: Annotated[dict[str, Text], Field(max_length=256)] | None = None
    labels: Annotated[dict[str, Text], Field(max_length=256)] | None = None


class ExecHealthCheckConfig(Shape):
    """Ready when the command exits with 0."""

    command: Annotated[tuple[Annotated[Text, Field(min_length=1)], ...], Field(min_length=1)]


class GrpcHealthCheckConfig(Shape):
    """Ready when gRPC's health service says so."""

    port: ProtoPort | None = None
    service: Text | None = None


class ProbeHeader(Shape):
    """A header of the probe."""

    name: Annotated[Text, Form("[-A-Za-z0-9]+", "a header's name: letters, digits and '-'")]
    value: Text | None = None


class HTTPHealthCheckConfig(Shape):
    """Ready when a GET is answered with 200 to 399."""

    host: Text | None = None
    http_headers: tuple[ProbeHeader, ...] | None = None
    path: Text | None = None
    port: ProtoPort
    scheme: Literal["", "HTTP", "HTTPS"] | None = None


class TCPHealthCheckConfig(Shape):
    """Ready when the port accepts a connection."""

    host: Text | None = None
    port: ProtoPort


class ReadinessProbe(Shape):
    """How it is known that a workload is ready."""

    exec: ExecHealthCheckConfig | None = None
    failure_threshold: Annotated[ProtoInt, Field(ge=0)] | None = None
    grpc: GrpcHealthCheckConfig | None = None
    http_get: HTTPHealthCheckConfig | None = None
    initial_delay_seconds: Annotated[ProtoInt, Field(ge=0)] | None = None
    period_seconds: Annotated[ProtoInt, Field(ge=0)] | None = None
    success_threshold: Annotated[ProtoInt, Field(ge=0)] | None = None
    tcp_socket: TCPHealthCheckConfig | None = None
    timeout_seconds: Annotated[ProtoInt, Field(ge=0)] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """One way to ask."""
        yield from at_most_one(self, "http_get", "tcp_socket", "exec", "grpc")
        if given(self.http_get, self.tcp_socket, self.exec, self.grpc) == 0:
            yield Flaw((), "the probe asks nothing", "add httpGet, tcpSocket, exec or grpc")
        if self.grpc is not None:
            message = "weft asks by gRPC, but Istio refuses such a probe"
            yield Flaw(("grpc",), message, "write httpGet, tcpSocket or exec for both", warns=True)


class WorkloadGroupSpec(Shape):
    """A template for workloads that register."""

    metadata: ObjectMeta | None = None
    probe: ReadinessProbe | None = None
    template: WorkloadTemplate

    def flaws(self) -> Iterator[Flaw]:
        """Labels as they can be."""
        if self.metadata is not None:
            for key, wrong in labels(self.metadata.labels):
                yield Flaw(("metadata", "labels", key), wrong)


class WorkloadGroup(IstioResource):
    """A template for workloads that register."""

    spec: WorkloadGroupSpec
    status: IstioStatus | None = None
