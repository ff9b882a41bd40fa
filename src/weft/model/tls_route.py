"""TLSRoute."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape
from weft.model.hosts import is_address
from weft.model.resource import Resource
from weft.model.route import BackendRef, ParentReference, RouteStatus, parents, single
from weft.model.scalars import Hostname, SectionName


class TLSRouteRule(Shape):
    """Where connections go."""

    backend_refs: Annotated[tuple[BackendRef, ...], Field(min_length=1, max_length=16)]
    name: SectionName | None = None


class TLSRouteSpec(Shape):
    """TLS connections by server name, and where they go."""

    hostnames: Annotated[tuple[Hostname, ...], Field(max_length=1024)] = ()
    """Server names that are meant; only v1alpha2 may leave them out."""
    parent_refs: Annotated[tuple[ParentReference, ...], Field(max_length=32)] | None = None
    rules: Annotated[tuple[TLSRouteRule, ...], Field(min_length=1, max_length=16)]
    """One; v1alpha2 had up to 16."""
    use_default_gateways: Literal["All", "None"] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Parents differ."""
        yield from parents(self.parent_refs or ())


class TLSRoute(Resource):
    """Routes TLS connections by server name."""

    spec: TLSRouteSpec
    status: RouteStatus | None = None

    def flaws(self) -> Iterator[Flaw]:
        """One rule from v1 on, and server names."""
        yield from super().flaws()
        yield from single(self.api_version, self.spec.rules)
        if self.api_version.endswith("/v1alpha2"):
            return
        if not self.spec.hostnames:
            yield Flaw(("spec", "hostnames"), "hostnames are missing", "add the server names")
        for number, host in enumerate(self.spec.hostnames):
            if is_address(host):
                path = ("spec", "hostnames", number)
                yield Flaw(path, f"{host} is an address: clients send names", "write a host name")
