"""TLSRoute."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape
from weft.model.resource import Resource
from weft.model.route import BackendRef, ParentReference, RouteStatus, parents
from weft.model.scalars import Hostname, SectionName


class TLSRouteRule(Shape):
    """Where connections go."""

    backend_refs: Annotated[tuple[BackendRef, ...], Field(min_length=1, max_length=16)]
    name: SectionName | None = None


class TLSRouteSpec(Shape):
    """TLS connections by server name, and where they go."""

    hostnames: Annotated[tuple[Hostname, ...], Field(min_length=1, max_length=1024)]
    parent_refs: Annotated[tuple[ParentReference, ...], Field(max_length=32)] | None = None
    rules: Annotated[tuple[TLSRouteRule, ...], Field(min_length=1, max_length=1)]
    use_default_gateways: Literal["All", "None"] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Parents differ."""
        yield from parents(self.parent_refs or ())


class TLSRoute(Resource):
    """Routes TLS connections by server name."""

    spec: TLSRouteSpec
    status: RouteStatus | None = None
