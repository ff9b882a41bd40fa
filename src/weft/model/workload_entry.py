"""WorkloadEntry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

from pydantic import Field

from weft.model.base import Flaw, Shape, inside
from weft.model.hosts import fqdn, is_address, is_label, labels
from weft.model.istio import IstioResource, IstioStatus
from weft.model.scalars import ProtoPort, Text, UInt

_LONGEST_NAME: Final = 63


class WorkloadTemplate(Shape):
    """What the entries of a group have in common."""

    address: Annotated[Text, Field(max_length=256)] | None = None
    """An IP address, a name, or unix:///path."""
    labels: Annotated[dict[str, Text], Field(max_length=256)] | None = None
    """What selectors look at."""
    locality: Annotated[Text, Field(max_length=2048)] | None = None
    """Where it runs, as 'region/zone/subzone'."""
    network: Annotated[Text, Field(max_length=2048)] | None = None
    ports: Annotated[dict[str, ProtoPort], Field(max_length=128)] | None = None
    """The workload's ports by the names of the service's ports."""
    service_account: Annotated[Text, Field(max_length=253)] | None = None
    """Who the workload proves to be."""
    weight: UInt | None = None
    """Its share beside the others."""

    def flaws(self) -> Iterator[Flaw]:
        """Names of ports as they can be; a socket is absolute and has no ports."""
        for name in self.ports or ():
            if not is_label(name) or len(name) >= _LONGEST_NAME:
                yield Flaw(("ports", name), f"{name!r} cannot be a port's name", "letters, digits and '-'")
        address = self.address or ""
        if address.startswith("unix://"):
            if self.ports is not None:
                yield Flaw(("ports",), "a Unix socket has no ports", "remove them")
            if address[7:8] not in {"/", "@"} or address.endswith("/"):
                hint = "write 'unix:///path' or 'unix://@name'"
                yield Flaw(("address",), f"{address!r} is not a socket", hint)


class WorkloadEntrySpec(WorkloadTemplate):
    """A workload: its address, its labels, and who it is."""

    def flaws(self) -> Iterator[Flaw]:
        """An address or a network; labels as they can be."""
        yield from super().flaws()
        if self.address is None and self.network is None:
            yield Flaw(("address",), "an address is missing", "add address")
        for key, wrong in labels(self.labels):
            yield Flaw(("labels", key), wrong)

    def addressed(self, *, static: bool = False) -> Iterator[Flaw]:
        """An address that can be called; ``static``: without looking up a name."""
        address = self.address or ""
        if not address and not self.network:
            yield Flaw(("address",), "an address is missing", "add address")
        elif not address:
            message = "without an address it is reached through the gateway of its network"
            yield Flaw(("address",), message, "add address if that is not meant", warns=True)
        elif not address.startswith("unix://") and not is_address(address):
            if static:
                hint = "write one, or 'resolution: DNS'"
                yield Flaw(("address",), f"{address!r} is not an IP address", hint)
            elif wrong := fqdn(address):
                yield Flaw(("address",), wrong, "write an IP address, a host name, or 'unix:///path'")


class WorkloadEntry(IstioResource):
    """One workload that runs outside Kubernetes."""

    spec: WorkloadEntrySpec = Field(default_factory=lambda: WorkloadEntrySpec())
    status: IstioStatus | None = None

    def flaws(self) -> Iterator[Flaw]:
        """An address that can be called."""
        yield from super().flaws()
        yield from inside(("spec",), self.spec.addressed())
