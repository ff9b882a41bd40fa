"""GRPCRoute."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape
from weft.model.resource import Resource
from weft.model.route import (
    HeaderMatch,
    RequestRouteSpec,
    RouteBackend,
    RouteFilter,
    RouteRule,
    RouteStatus,
    differ,
)
from weft.model.scalars import Text

_SERVICE: Final = re.compile(r"\.?[A-Za-z_][A-Za-z_0-9]*(?:\.[A-Za-z_][A-Za-z_0-9]*)*")
_METHOD: Final = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")


class GRPCRouteFilter(RouteFilter):
    """Something that is done with calls; the type says which field holds it."""

    type: Literal["ResponseHeaderModifier", "RequestHeaderModifier", "RequestMirror", "ExtensionRef"]


class GRPCBackendRef(RouteBackend):
    """A service and its share of the calls."""

    filters: Annotated[tuple[GRPCRouteFilter, ...], Field(max_length=16)] | None = None


class GRPCMethodMatch(Shape):
    """What service and method must be."""

    method: Annotated[Text, Field(max_length=1024)] | None = None
    service: Annotated[Text, Field(max_length=1024)] | None = None
    type: Literal["Exact", "RegularExpression"] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """A service or a method, in gRPC's form."""
        if self.service is None and self.method is None:
            yield Flaw((), "a service or a method is missing", "add one of them")
        if self.type != "RegularExpression":
            if self.service is not None and not _SERVICE.fullmatch(self.service):
                yield Flaw(("service",), f"{self.service!r} is not a gRPC service", "as 'shop.v1.Orders'")
            if self.method is not None and not _METHOD.fullmatch(self.method):
                yield Flaw(("method",), f"{self.method!r} is not a gRPC method", "as 'GetOrder'")


class GRPCRouteMatch(Shape):
    """What a call must be like; all demands must hold."""

    headers: Annotated[tuple[HeaderMatch, ...], Field(max_length=16)] | None = None
    method: GRPCMethodMatch | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Headers differ."""
        yield from differ("headers", self.headers)


class GRPCRouteRule(RouteRule):
    """Calls that match, what is done with them, and where they go."""

    backend_refs: Annotated[tuple[GRPCBackendRef, ...], Field(max_length=16)] | None = None
    """Where calls go, by weight; none answers UNAVAILABLE."""
    filters: Annotated[tuple[GRPCRouteFilter, ...], Field(max_length=16)] | None = None
    """What is done with calls and answers."""
    matches: Annotated[tuple[GRPCRouteMatch, ...], Field(max_length=64)] | None = None
    """Any of these; every call unless given."""


class GRPCRouteSpec(RequestRouteSpec):
    """Calls to some hosts, and what becomes of them."""

    rules: Annotated[tuple[GRPCRouteRule, ...], Field(max_length=16)] | None = None
    """The most specific match holds."""


class GRPCRoute(Resource):
    """Routes gRPC calls."""

    spec: GRPCRouteSpec
    status: RouteStatus | None = None
