"""ServiceEntry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape, at_most_one, twice
from weft.model.istio import IstioStatus, WorkloadSelector
from weft.model.resource import Resource
from weft.model.scalars import ProtoPort, Text
from weft.model.workload_entry import WorkloadEntrySpec


class ServicePort(Shape):
    """A port of the service."""

    name: Annotated[Text, Field(max_length=256)]
    number: ProtoPort
    protocol: Annotated[Text, Field(max_length=256)] | None = None
    """HTTP, HTTPS, HTTP2, GRPC, TLS, TCP, MONGO, …"""
    target_port: ProtoPort | None = None


class ServiceEntrySpec(Shape):
    """A service that the mesh shall know."""

    addresses: Annotated[tuple[Annotated[Text, Field(max_length=64)], ...], Field(max_length=256)] | None = (
        None
    )
    """Addresses that clients call; the mesh finds one unless given."""
    endpoints: Annotated[tuple[WorkloadEntrySpec, ...], Field(max_length=4096)] | None = None
    """Where it is reached."""
    export_to: tuple[Text, ...] | None = None
    """Namespaces that see it: '.' its own, '*' all; all unless said otherwise."""
    hosts: Annotated[tuple[Text, ...], Field(min_length=1, max_length=256)]
    """Names that clients call."""
    location: Literal["MESH_EXTERNAL", "MESH_INTERNAL"] | None = None
    """Whether it is part of the mesh; MESH_EXTERNAL unless said otherwise."""
    ports: Annotated[tuple[ServicePort, ...], Field(max_length=256)] | None = None
    """Ports that clients call."""
    resolution: Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"] | None = None
    """How its addresses are found; NONE sends on to where the client wanted."""
    subject_alt_names: tuple[Text, ...] | None = None
    workload_selector: WorkloadSelector | None = None
    """Workloads of the namespace that serve it."""

    def flaws(self) -> Iterator[Flaw]:
        """Endpoints fit the resolution (the rules of the CRD)."""
        yield from at_most_one(self, "workload_selector", "endpoints")
        resolution = self.resolution or "NONE"
        for number, host in enumerate(self.hosts):
            if host == "*":
                yield Flaw(("hosts", number), "a service cannot be '*'", "write a name, as '*.example.com'")
        if resolution not in {"NONE", "STATIC"}:
            for number, address in enumerate(self.addresses or ()):
                if "/" in address:
                    yield Flaw(
                        ("addresses", number), f"a range of addresses does not fit resolution {resolution}"
                    )
        if resolution == "NONE" and self.endpoints:
            yield Flaw(
                ("endpoints",), "resolution NONE has no endpoints", "write 'resolution: STATIC' or 'DNS'"
            )
        if resolution == "DNS_ROUND_ROBIN" and len(self.endpoints or ()) > 1:
            yield Flaw(("endpoints", 1), "resolution DNS_ROUND_ROBIN has one endpoint at most")
        if resolution == "DNS" and not self.endpoints:
            for number, host in enumerate(self.hosts):
                if host.startswith("*"):
                    yield Flaw(
                        ("hosts", number), f"{host!r} cannot be resolved", "add endpoints, or resolution NONE"
                    )
        ports = self.ports or ()
        for number in twice(port.number for port in ports):
            yield Flaw(("ports", number, "number"), f"port {ports[number].number} is there twice")
        for number in twice(port.name for port in ports):
            yield Flaw(("ports", number, "name"), f"the port name {ports[number].name!r} is there twice")


class ServiceEntry(Resource):
    """A service that no Service describes: outside the mesh, or on machines."""

    spec: ServiceEntrySpec
    status: IstioStatus | None = None
