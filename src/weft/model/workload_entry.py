"""WorkloadEntry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from weft.model.base import Flaw, Shape
from weft.model.istio import IstioStatus
from weft.model.resource import Resource
from weft.model.scalars import ProtoPort, Text, UInt


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


class WorkloadEntrySpec(WorkloadTemplate):
    """A workload: its address, its labels, and who it is."""

    def flaws(self) -> Iterator[Flaw]:
        """An address or a network; a socket is absolute and has no ports."""
        if self.address is None and self.network is None:
            yield Flaw(("address",), "an address is missing", "add address")
        address = self.address or ""
        if address.startswith("unix://"):
            if self.ports:
                yield Flaw(("ports",), "a Unix socket has no ports", "remove them")
            if address[7:8] not in {"/", "@"} or address.endswith("/"):
                yield Flaw(
                    ("address",), f"{address!r} is not a socket", "write 'unix:///path' or 'unix://@name'"
                )


class WorkloadEntry(Resource):
    """One workload that runs outside Kubernetes."""

    spec: WorkloadEntrySpec = Field(default_factory=lambda: WorkloadEntrySpec())
    status: IstioStatus | None = None
