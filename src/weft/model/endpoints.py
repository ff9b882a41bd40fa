"""EndpointSlice and Endpoints of Kubernetes 1.32."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape, twice
from weft.model.core import ObjectReference
from weft.model.resource import Resource
from weft.model.scalars import LABEL, SUBDOMAIN, AnyText, Bool, DnsLabel, Form, IpAddress, Port, Text
from weft.model.service import Protocol

_NAME: Final = re.compile(SUBDOMAIN)
PortName = Annotated[Text, Form(f"(?:{LABEL})?", "the name of a Service's port", longest=63, shortest=0)]


class EndpointConditions(Shape):
    """Whether an endpoint may be called."""

    ready: Bool | None = None
    """Whether it takes new connections; true unless said otherwise."""
    serving: Bool | None = None
    """As ready, but also while it goes."""
    terminating: Bool | None = None
    """Whether it is going."""


class ForZone(Shape):
    """A zone whose clients shall prefer an endpoint."""

    name: Text


class EndpointHints(Shape):
    """Who shall prefer an endpoint."""

    for_zones: tuple[ForZone, ...] | None = None


class Endpoint(Shape):
    """One workload of a service."""

    addresses: Annotated[tuple[AnyText, ...], Field(min_length=1, max_length=100)]
    """Where it is reached; the addresses stand for the same workload."""
    conditions: EndpointConditions | None = None
    hostname: DnsLabel | None = None
    target_ref: ObjectReference | None = None
    """The object that stands behind it, as a Pod."""
    deprecated_topology: dict[str, Text] | None = None
    node_name: Text | None = None
    zone: Text | None = None
    hints: EndpointHints | None = None


class EndpointPort(Shape):
    """A port of all endpoints of a slice; its name is that of the Service's port."""

    name: PortName | None = None
    port: Port | None = None
    protocol: Protocol | None = None
    app_protocol: Text | None = None


class EndpointSlice(Resource):
    """Some of the endpoints of the service that the label kubernetes.io/service-name names."""

    address_type: Literal["IPv4", "IPv6", "FQDN"]
    """What the addresses are."""
    endpoints: Annotated[tuple[Endpoint, ...], Field(max_length=1000)] | None = None
    """None is what Kubernetes writes where there is none."""
    ports: Annotated[tuple[EndpointPort, ...], Field(max_length=100)] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Addresses are of the type that the slice states; ports differ in name."""
        yield from super().flaws()
        for number, endpoint in enumerate(self.endpoints or ()):
            for place, address in enumerate(endpoint.addresses):
                path = ("endpoints", number, "addresses", place)
                if self.address_type == "FQDN" and not _NAME.fullmatch(address.removesuffix(".")):
                    yield Flaw(path, f"{address!r} is not a host name", "lower-case, as 'db.example.com'")
                elif self.address_type != "FQDN" and not _is(self.address_type, address):
                    yield Flaw(path, f"{address!r} is not an {self.address_type} address")
        names = [port.name or "" for port in self.ports or ()]
        for number in twice(names):
            yield Flaw(("ports", number, "name"), f"the name {names[number]!r} is there twice", "as 'http'")


def _is(kind: str, address: str) -> bool:
    import ipaddress

    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return found.version == (4 if kind == "IPv4" else 6)


class EndpointAddress(Shape):
    """Where one workload is reached."""

    ip: IpAddress
    hostname: Text | None = None
    node_name: Text | None = None
    target_ref: ObjectReference | None = None


class EndpointsPort(Shape):
    """A port of the workloads of a subset."""

    name: Text | None = None
    port: Port
    protocol: Protocol | None = None
    app_protocol: Text | None = None


class EndpointSubset(Shape):
    """Workloads that have the same ports."""

    addresses: tuple[EndpointAddress, ...] | None = None
    not_ready_addresses: tuple[EndpointAddress, ...] | None = None
    ports: tuple[EndpointsPort, ...] | None = None


class Endpoints(Resource):
    """The endpoints of the service of the same name, in the form that EndpointSlice replaced."""

    subsets: tuple[EndpointSubset, ...] | None = None
