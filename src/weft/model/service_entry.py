"""ServiceEntry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape, at_most_one, each, inside, twice
from weft.model.hosts import fqdn, is_address, is_label, partial_wildcard, subnet, wildcard
from weft.model.istio import IstioResource, IstioStatus, WorkloadSelector, exported
from weft.model.protocols import HINT, is_http, is_known, is_tcp, is_tls
from weft.model.scalars import ProtoPort, Text
from weft.model.workload_entry import WorkloadEntrySpec


class ServicePort(Shape):
    """A port of the service."""

    name: Annotated[Text, Field(max_length=256)]
    number: ProtoPort
    protocol: Annotated[Text, Field(max_length=256)] | None = None
    """HTTP, HTTPS, HTTP2, GRPC, TLS, TCP, MONGO, …"""
    target_port: ProtoPort | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Name and protocol as they can be."""
        if not is_label(self.name):
            yield Flaw(("name",), f"{self.name!r} cannot be a port's name", "letters, digits and '-'")
        if not is_known(self.protocol):
            yield Flaw(("protocol",), f"{self.protocol!r} is not a protocol", HINT)


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
        """Hosts, ports and endpoints fit the resolution (the rules of the CRD and Istio's validation)."""
        yield from at_most_one(self, "workload_selector", "endpoints")
        resolution = self.resolution or "NONE"
        for number, host in enumerate(self.hosts):
            path: tuple[str | int, ...] = ("hosts", number)
            if host == "*":
                yield Flaw(path, "a service cannot be '*'", "write a name, as '*.example.com'")
                continue
            yield from each(path, [wildcard(host)])
            if resolution != "DYNAMIC_DNS" and (wrong := partial_wildcard(host)):
                yield Flaw(path, wrong, "write '*.example.com'", warns=True)
        for number, address in enumerate(self.addresses or ()):
            yield from each(("addresses", number), [subnet(address)])
            if resolution not in {"NONE", "STATIC"} and "/" in address:
                message = f"a range of addresses does not fit resolution {resolution}"
                yield Flaw(("addresses", number), message, "write an address")
        yield from self._ports()
        if resolution == "NONE":
            if self.endpoints is not None:
                hint = "write 'resolution: STATIC' or 'DNS'"
                yield Flaw(("endpoints",), "resolution NONE has no endpoints", hint)
            if self.workload_selector is not None:
                path = ("workloadSelector",)
                yield Flaw(
                    path, "resolution NONE looks at no workloads", "write 'resolution: STATIC'", warns=True
                )
        elif resolution == "DYNAMIC_DNS":
            yield from self._dynamic()
        else:
            yield from self._endpoints(resolution)
        if resolution != "NONE" and len(self.hosts) > 1:
            for number, port in enumerate(self.ports or ()):
                if not is_http(port.protocol) and not is_tls(port.protocol):
                    message = "its bytes do not tell which of the hosts is meant"
                    hint = "write a ServiceEntry for each host, or declare HTTP or TLS"
                    yield Flaw(("ports", number, "protocol"), message, hint)
                    break

    def _ports(self) -> Iterator[Flaw]:
        ports = self.ports or ()
        for number in twice(port.number for port in ports):
            yield Flaw(("ports", number, "number"), f"port {ports[number].number} is there twice")
        for number in twice(port.name for port in ports):
            yield Flaw(("ports", number, "name"), f"the port name {ports[number].name!r} is there twice")

    def _dynamic(self) -> Iterator[Flaw]:
        """Whatever name under the wildcard is called is looked up."""
        for number, host in enumerate(self.hosts):
            if not host.startswith("*"):
                path = ("hosts", number)
                yield Flaw(path, "resolution DYNAMIC_DNS is for wildcards", "write '*.example.com', or DNS")
        for name in ("addresses", "endpoints"):
            if getattr(self, name):
                yield Flaw((name,), f"resolution DYNAMIC_DNS has no {name}", "remove them")
        for number, port in enumerate(self.ports or ()):
            if (port.protocol or "").lower() not in {"http", "tls", "grpc", "http2"}:
                place = ("ports", number, "protocol")
                yield Flaw(place, "the name that is called must be seen", "write HTTP, HTTP2, GRPC or TLS")

    def _endpoints(self, resolution: str) -> Iterator[Flaw]:
        endpoints = self.endpoints or ()
        names = {port.name for port in self.ports or ()}
        if resolution != "STATIC" and not endpoints:
            for number, host in enumerate(self.hosts):
                if fqdn(host):
                    path = ("hosts", number)
                    yield Flaw(
                        path, f"{host!r} cannot be resolved", "add endpoints, or write resolution NONE"
                    )
                    break
        if resolution == "DNS_ROUND_ROBIN" and len(endpoints) > 1:
            yield Flaw(("endpoints", 1), "resolution DNS_ROUND_ROBIN has one endpoint at most", "write DNS")
        shared = resolution != "STATIC" and self.addresses and len(self.hosts) > 1
        if shared and any(is_tcp(port.protocol) for port in self.ports or ()):
            message = "several hosts share these addresses: TCP does not tell which is meant"
            yield Flaw(("hosts",), message, "write a ServiceEntry for each", warns=True)
        for number, endpoint in enumerate(endpoints):
            path = ("endpoints", number)
            address = endpoint.address or ""
            if resolution == "STATIC":
                yield from inside(path, endpoint.addressed(static=True))
                if address.startswith("unix://") and len(names) != 1:
                    yield Flaw((*path, "address"), "a Unix socket needs exactly one port of the service")
            elif not is_address(address) and (wrong := fqdn(address)):
                yield Flaw((*path, "address"), wrong, "write a host name or an IP address")
            for name in endpoint.ports or ():
                if name not in names:
                    yield Flaw(
                        (*path, "ports", name), f"the service has no port {name!r}", "name one of its ports"
                    )


class ServiceEntryAddress(Shape):
    """An address that was given to a host."""

    host: Text | None = None
    value: Text | None = None


class ServiceEntryStatus(IstioStatus):
    """What became of the resource, and the addresses that it was given."""

    addresses: tuple[ServiceEntryAddress, ...] | None = None


class ServiceEntry(IstioResource):
    """A service that no Service describes: outside the mesh, or on machines."""

    spec: ServiceEntrySpec
    status: ServiceEntryStatus | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Who sees it, and how clients find it."""
        yield from super().flaws()
        spec, labels = self.spec, self.metadata.labels or {}
        yield from inside(("spec",), exported(spec.export_to, self.metadata.namespace, hidden=True))
        resolution = spec.resolution or "NONE"
        off = labels.get("networking.istio.io/enable-autoallocate-ip", "").lower() == "false"
        for number, port in enumerate(spec.ports or () if not spec.addresses else ()):
            if (resolution == "NONE" or off) and port.protocol in {None, "", "TCP"}:
                path = ("spec", "ports", number)
                message = "TCP is told apart by addresses, and this service has none"
                yield Flaw(path, message, "add addresses, or another resolution", warns=True)
        waypoint = labels.get("istio.io/use-waypoint", "")
        within = resolution == "DYNAMIC_DNS" and spec.location == "MESH_INTERNAL"
        if within and waypoint and waypoint.lower() != "none":
            message = "resolution DYNAMIC_DNS within the mesh does not work with waypoints"
            yield Flaw(("spec", "location"), message, "write MESH_EXTERNAL")
