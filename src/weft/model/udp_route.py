"""UDPRoute."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape
from weft.model.resource import Resource
from weft.model.route import BackendRef, ParentReference, RouteStatus, parents, single
from weft.model.scalars import SectionName


class UDPRouteRule(Shape):
    """Where datagrams go."""

    backend_refs: Annotated[tuple[BackendRef, ...], Field(min_length=1, max_length=16)]
    name: SectionName | None = None


class UDPRouteSpec(Shape):
    """Datagrams of a listener, and where they go."""

    parent_refs: Annotated[tuple[ParentReference, ...], Field(max_length=32)] | None = None
    rules: Annotated[tuple[UDPRouteRule, ...], Field(min_length=1, max_length=16)]
    """One; v1alpha2 had up to 16."""
    use_default_gateways: Literal["All", "None"] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Parents differ."""
        yield from parents(self.parent_refs or ())


class UDPRoute(Resource):
    """Routes datagrams."""

    spec: UDPRouteSpec
    status: RouteStatus | None = None

    def flaws(self) -> Iterator[Flaw]:
        """One rule from v1 on."""
        yield from super().flaws()
        yield from single(self.api_version, self.spec.rules)
