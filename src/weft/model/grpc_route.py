"""GRPCRoute."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape, twice, union
from weft.model.resource import Resource
from weft.model.route import (
    BackendRef,
    HTTPHeaderFilter,
    HTTPRequestMirrorFilter,
    LocalObjectReference,
    ParentReference,
    RouteStatus,
    SessionPersistence,
    parents,
)
from weft.model.scalars import (
    HeaderName,
    Hostname,
    SectionName,
    Text,
)

_SERVICE: Final = re.compile(r"\.?[A-Za-z_][A-Za-z_0-9]*(?:\.[A-Za-z_][A-Za-z_0-9]*)*")
_METHOD: Final = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")


class GRPCRouteFilter(Shape):
    """Something that is done with calls; the type says which field holds it."""

    extension_ref: LocalObjectReference | None = None
    request_header_modifier: HTTPHeaderFilter | None = None
    request_mirror: HTTPRequestMirrorFilter | None = None
    response_header_modifier: HTTPHeaderFilter | None = None
    type: Literal["ResponseHeaderModifier", "RequestHeaderModifier", "RequestMirror", "ExtensionRef"]

    def flaws(self) -> Iterator[Flaw]:
        """The field that the type names is there, and no other."""
        yield from union(self, self.type)


class GRPCBackendRef(BackendRef):
    """A service and its share of the calls."""

    filters: Annotated[tuple[GRPCRouteFilter, ...], Field(max_length=16)] | None = None


class GRPCHeaderMatch(Shape):
    """What a header must be."""

    name: HeaderName
    type: Literal["Exact", "RegularExpression"] | None = None
    value: Annotated[Text, Field(min_length=1, max_length=4096)]


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

    headers: Annotated[tuple[GRPCHeaderMatch, ...], Field(max_length=16)] | None = None
    method: GRPCMethodMatch | None = None


class GRPCRouteRule(Shape):
    """Calls that match, what is done with them, and where they go."""

    backend_refs: Annotated[tuple[GRPCBackendRef, ...], Field(max_length=16)] | None = None
    filters: Annotated[tuple[GRPCRouteFilter, ...], Field(max_length=16)] | None = None
    matches: Annotated[tuple[GRPCRouteMatch, ...], Field(max_length=64)] | None = None
    name: SectionName | None = None
    session_persistence: SessionPersistence | None = None


class GRPCRouteSpec(Shape):
    """Calls to some hosts, and what becomes of them."""

    hostnames: Annotated[tuple[Hostname, ...], Field(max_length=16)] | None = None
    parent_refs: Annotated[tuple[ParentReference, ...], Field(max_length=32)] | None = None
    rules: Annotated[tuple[GRPCRouteRule, ...], Field(max_length=16)] | None = None
    use_default_gateways: Literal["All", "None"] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Not more than 128 matches; parents and rule names differ."""
        yield from parents(self.parent_refs or ())
        rules = self.rules or ()
        if sum(len(rule.matches or ()) for rule in rules) > 128:
            yield Flaw(("rules",), "a route has 128 matches at most", "divide it")
        for number in twice(rule.name for rule in rules if rule.name):
            yield Flaw(("rules", number, "name"), "the name is there twice")


class GRPCRoute(Resource):
    """Routes gRPC calls."""

    spec: GRPCRouteSpec = Field(default_factory=lambda: GRPCRouteSpec())
    status: RouteStatus | None = None
