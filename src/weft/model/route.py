"""Shapes that the routes of the Gateway API have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Literal, Protocol

from pydantic import Field

from weft.model.base import Flaw, Shape, at_most_one, twice, union, wire_name
from weft.model.headers import known
from weft.model.resource import StatusCondition, conditions_differ
from weft.model.scalars import (
    ControllerName,
    DnsLabel,
    GatewayDuration,
    GroupName,
    HeaderName,
    HeaderValue,
    Hostname,
    Int,
    KindName,
    ObjectName,
    Port,
    SectionName,
    Text,
)

GATEWAY_GROUP: Final = "gateway.networking.k8s.io"
_ONCE: Final = ("CORS", "RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite")


class LocalObjectReference(Shape):
    """An object of the same namespace."""

    group: GroupName
    kind: KindName
    name: ObjectName


class ParentReference(Shape):
    """What a route is attached to: a Gateway, a ListenerSet or a Service."""

    group: GroupName | None = None
    kind: KindName | None = None
    name: ObjectName
    namespace: DnsLabel | None = None
    port: Port | None = None
    section_name: SectionName | None = None
    """One listener of the Gateway, or one port of the Service."""


class HTTPHeader(Shape):
    """A header and its value."""

    name: HeaderName
    value: HeaderValue


class HTTPHeaderFilter(Shape):
    """Changes to headers."""

    add: Annotated[tuple[HTTPHeader, ...], Field(max_length=16)] | None = None
    remove: Annotated[tuple[Text, ...], Field(max_length=16)] | None = None
    set: Annotated[tuple[HTTPHeader, ...], Field(max_length=16)] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Headers differ."""
        yield from differ("add", self.add)
        yield from differ("set", self.set)
        for number in twice(self.remove or ()):
            yield Flaw(("remove", number), "the header is there twice", "remove it")


class _Named(Protocol):
    @property
    def name(self) -> str: ...


def differ(field: str, items: Sequence[_Named] | None) -> Iterator[Flaw]:
    """Things with names that are told apart by them."""
    for number in twice(item.name for item in items or ()):
        yield Flaw(
            (field, number, "name"), f"{(items or ())[number].name!r} is there twice", "keep one of them"
        )


class BackendObjectReference(Shape):
    """A service and its port."""

    group: GroupName | None = None
    kind: KindName | None = None
    name: ObjectName
    namespace: DnsLabel | None = None
    port: Port | None = None

    def flaws(self) -> Iterator[Flaw]:
        """A Service is called at a port."""
        if not self.group and self.kind in {None, "Service"} and self.port is None:
            yield Flaw(("port",), "a Service is called at a port", "add port")


class Fraction(Shape):
    """A share as a fraction."""

    denominator: Annotated[Int, Field(ge=1, le=2**31 - 1)] | None = None
    numerator: Annotated[Int, Field(ge=0, le=2**31 - 1)]

    def flaws(self) -> Iterator[Flaw]:
        """At most the whole."""
        if self.numerator > (self.denominator or 100):
            yield Flaw(("numerator",), "the share is more than the whole", "write a smaller numerator")


class HTTPRequestMirrorFilter(Shape):
    """Sends a copy of the requests elsewhere."""

    backend_ref: BackendObjectReference
    fraction: Fraction | None = None
    percent: Annotated[Int, Field(ge=0, le=100)] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """One form of the share."""
        yield from at_most_one(self, "percent", "fraction")


class CookieConfig(Shape):
    """The cookie of a session."""

    lifetime_type: Literal["Permanent", "Session"] | None = None
    name: HeaderName | None = None
    path: Annotated[Text, Field(max_length=1024)] | None = None


class CookieLifetime(Shape):
    """How long the cookie of a session lasts."""

    lifetime_type: Literal["Permanent", "Session"] | None = None


class HeaderConfig(Shape):
    """The header of a session."""

    name: HeaderName


class SessionPersistence(Shape):
    """Keeps a client at the same endpoint."""

    absolute_timeout: GatewayDuration | None = None
    cookie: CookieConfig | None = None
    """As versions after 1.6 write it."""
    cookie_config: CookieLifetime | None = None
    header: HeaderConfig | None = None
    """As versions after 1.6 write it."""
    session_name: Annotated[Text, Field(max_length=128)] | None = None
    """The name of the cookie or header."""
    type: Literal["Cookie", "Header"] | None = None

    @property
    def lasting(self) -> bool:
        """Whether the cookie outlives the browser's session."""
        blocks = (self.cookie, self.cookie_config)
        return any(block is not None and block.lifetime_type == "Permanent" for block in blocks)

    @property
    def token(self) -> str | None:
        """The name of the cookie or header, if one was given that can be one."""
        block = self.header if self.type == "Header" else self.cookie
        name = (block.name if block is not None else None) or self.session_name
        return name if name and not known(name) else None

    def flaws(self) -> Iterator[Flaw]:
        """The block of the type, and no other."""
        if self.lasting and self.absolute_timeout is None:
            yield Flaw(("absoluteTimeout",), "a permanent cookie needs absoluteTimeout", "add it")
        for name in ("cookie", "cookie_config"):
            if getattr(self, name) is not None and self.type == "Header":
                yield Flaw((wire_name(self, name),), "cookies do not go with type Header", "remove it")
        if self.header is not None and self.type != "Header":
            yield Flaw(("header",), "header goes with type Header only", "remove it")


class RouteParentStatus(Shape):
    """What became of a route at one of its parents."""

    conditions: Annotated[tuple[StatusCondition, ...], Field(min_length=1, max_length=8)]
    controller_name: ControllerName
    parent_ref: ParentReference

    def flaws(self) -> Iterator[Flaw]:
        """Conditions differ."""
        yield from conditions_differ(self.conditions)


class RouteStatus(Shape):
    """What became of a route at each of its parents."""

    parents: Annotated[tuple[RouteParentStatus, ...], Field(max_length=32)]


class BackendRef(BackendObjectReference):
    """A service and its share of the connections."""

    weight: Annotated[Int, Field(ge=0, le=1000000)] | None = None
    """Relative to the others; 1 unless said otherwise."""


def parents(references: tuple[ParentReference, ...]) -> Iterator[Flaw]:
    """References to one parent name different parts of it, all in the same way (the CRD's rules)."""
    whole = [
        (
            GATEWAY_GROUP if item.group is None else item.group,
            item.kind or "Gateway",
            item.namespace or None,
            item.name,
        )
        for item in references
    ]
    part = [(item.section_name or None, item.port) for item in references]
    for number in twice(zip(whole, part, strict=True)):
        yield Flaw(("parentRefs", number), "the same parent is there twice", "remove one of them")
    for number, parent in enumerate(whole):
        first = part[whole.index(parent)]
        for wire, here, there in zip(("sectionName", "port"), part[number], first, strict=True):
            if (here is None) != (there is None):
                message = "one reference to this parent names it, another does not"
                yield Flaw(("parentRefs", number, wire), message, f"write {wire} in both or in none")


class _Rule(Protocol):
    @property
    def name(self) -> str | None: ...


def single(api_version: str, rules: Sequence[_Rule]) -> Iterator[Flaw]:
    """Routes of connections have one rule from v1 on; in v1alpha2 several, told apart by their names."""
    if not api_version.endswith("/v1alpha2"):
        if len(rules) > 1:
            yield Flaw(("spec", "rules", 1), "a route of connections has one rule", "write another route")
        return
    for number in twice(rule.name or number for number, rule in enumerate(rules)):
        yield Flaw(("spec", "rules", number, "name"), "the name is there twice", "give each its own")


class HeaderMatch(Shape):
    """What a header must be."""

    name: HeaderName
    type: Literal["Exact", "RegularExpression"] | None = None
    value: Annotated[Text, Field(min_length=1, max_length=4096)]


class RouteFilter(Shape):
    """Something that is done with requests; the type says which field holds it."""

    extension_ref: LocalObjectReference | None = None
    request_header_modifier: HTTPHeaderFilter | None = None
    request_mirror: HTTPRequestMirrorFilter | None = None
    response_header_modifier: HTTPHeaderFilter | None = None
    type: str

    def flaws(self) -> Iterator[Flaw]:
        """The field that the type names is there, and no other."""
        yield from union(self, self.type)


def once(filters: Sequence[RouteFilter], *path: str | int) -> Iterator[Flaw]:
    """Filters that may stand once only."""
    kinds = [item.type for item in filters]
    for number in twice(kinds):
        if kinds[number] in _ONCE:
            yield Flaw((*path, number), f"the filter {kinds[number]} may stand once only", "join them")


class RouteBackend(BackendRef):
    """A service and its share of the requests."""

    filters: Annotated[tuple[RouteFilter, ...], Field(max_length=16)] | None = None


class RouteRule(Shape):
    """Requests that match, what is done with them, and where they go."""

    backend_refs: Annotated[tuple[RouteBackend, ...], Field(max_length=16)] | None = None
    """Where requests go, by weight; none answers with an error."""
    filters: Annotated[tuple[RouteFilter, ...], Field(max_length=16)] | None = None
    """What is done with requests and answers."""
    matches: Annotated[tuple[Shape, ...], Field(max_length=64)] | None = None
    """Any of these; every request unless given."""
    name: SectionName | None = None
    session_persistence: SessionPersistence | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Some filters may stand once."""
        yield from once(self.filters or (), "filters")
        for number, backend in enumerate(self.backend_refs or ()):
            yield from once(backend.filters or (), "backendRefs", number, "filters")


class RequestRouteSpec(Shape):
    """Requests to some hosts, and what becomes of them."""

    hostnames: Annotated[tuple[Hostname, ...], Field(max_length=16)] | None = None
    """Hosts that are meant; those of the listener unless given."""
    parent_refs: Annotated[tuple[ParentReference, ...], Field(max_length=32)] | None = None
    """Gateways or Services that the route is attached to."""
    rules: Annotated[tuple[RouteRule, ...], Field(max_length=16)] | None = None
    """The most specific match holds."""
    use_default_gateways: Literal["All", "None"] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Not more than 128 matches; parents and rule names differ."""
        yield from parents(self.parent_refs or ())
        rules = self.rules or ()
        if sum(len(rule.matches or ()) for rule in rules) > 128:
            yield Flaw(("rules",), "a route has 128 matches at most", "divide it")
        for number in twice(rule.name for rule in rules if rule.name):
            yield Flaw(("rules", number, "name"), "the name is there twice")
