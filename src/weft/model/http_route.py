"""HTTPRoute."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape, twice, union, wire_name
from weft.model.resource import Resource
from weft.model.route import (
    BackendObjectReference,
    HeaderMatch,
    RequestRouteSpec,
    RouteBackend,
    RouteFilter,
    RouteRule,
    RouteStatus,
    differ,
)
from weft.model.scalars import (
    Bool,
    CorsOrigin,
    GatewayDuration,
    HeaderName,
    HeaderValue,
    Int,
    Port,
    PreciseHostname,
    Text,
    UrlPath,
)
from weft.yaml import Path

_PATH: Final = re.compile(r"(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})+")


class HTTPCORSFilter(Shape):
    """Which web pages of other origins may call."""

    allow_credentials: Bool | None = None
    allow_headers: Annotated[tuple[HeaderName, ...], Field(max_length=64)] | None = None
    allow_methods: (
        Annotated[
            tuple[
                Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"],
                ...,
            ],
            Field(max_length=9),
        ]
        | None
    ) = None
    allow_origins: Annotated[tuple[CorsOrigin, ...], Field(max_length=64)] | None = None
    expose_headers: Annotated[tuple[HeaderName, ...], Field(max_length=64)] | None = None
    max_age: Annotated[Int, Field(ge=1, le=2**31 - 1)] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """A wildcard stands alone, and nothing stands there twice."""
        for name in ("allow_headers", "allow_methods", "allow_origins", "expose_headers"):
            values, wire = getattr(self, name) or (), wire_name(self, name)
            for number in twice(values):
                yield Flaw((wire, number), "it is there twice", "remove it")
            if "*" in values and len(values) > 1 and name != "expose_headers":
                hint = "keep '*' or the others"
                yield Flaw((wire,), "'*' stands for all: nothing may stand beside it", hint)


class ForwardBodyConfig(Shape):
    """How much of the body the authorizer sees."""

    max_size: Annotated[Int, Field(ge=0)] | None = None


class GRPCAuthConfig(Shape):
    """What an authorizer by gRPC sees."""

    allowed_headers: Annotated[tuple[Text, ...], Field(max_length=64)] | None = None


class HTTPAuthConfig(Shape):
    """What an authorizer by HTTP sees."""

    allowed_headers: Annotated[tuple[Text, ...], Field(max_length=64)] | None = None
    allowed_response_headers: Annotated[tuple[Text, ...], Field(max_length=64)] | None = None
    path: UrlPath | None = None


class HTTPExternalAuthFilter(Shape):
    """Asks an external authorizer."""

    backend_ref: BackendObjectReference
    forward_body: ForwardBodyConfig | None = None
    grpc: GRPCAuthConfig | None = None
    http: HTTPAuthConfig | None = None
    protocol: Literal["HTTP", "GRPC"]

    def flaws(self) -> Iterator[Flaw]:
        """The block of the protocol is there, and no other."""
        for protocol, wire, block in (("GRPC", "grpc", self.grpc), ("HTTP", "http", self.http)):
            if self.protocol == protocol and block is None:
                yield Flaw((wire,), f"protocol {protocol} needs {wire}")
            if self.protocol != protocol and block is not None:
                yield Flaw((wire,), f"{wire} goes with protocol {protocol} only", "remove it")


class HTTPPathModifier(Shape):
    """What the path becomes."""

    replace_full_path: Annotated[Text, Field(max_length=1024)] | None = None
    replace_prefix_match: Annotated[Text, Field(max_length=1024)] | None = None
    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"]

    def flaws(self) -> Iterator[Flaw]:
        """The field that the type names is there, and no other."""
        yield from union(self, self.type)


class HTTPRequestRedirectFilter(Shape):
    """Sends the client elsewhere."""

    hostname: PreciseHostname | None = None
    path: HTTPPathModifier | None = None
    port: Port | None = None
    scheme: Literal["http", "https"] | None = None
    status_code: Literal[301, 302, 303, 307, 308] | None = None


class HTTPURLRewriteFilter(Shape):
    """Changes the request before it is sent on."""

    hostname: PreciseHostname | None = None
    path: HTTPPathModifier | None = None


class HTTPRouteFilter(RouteFilter):
    """Something that is done with requests; the type says which field holds it."""

    cors: HTTPCORSFilter | None = None
    external_auth: HTTPExternalAuthFilter | None = None
    request_redirect: HTTPRequestRedirectFilter | None = None
    type: Literal[
        "RequestHeaderModifier",
        "ResponseHeaderModifier",
        "RequestMirror",
        "RequestRedirect",
        "URLRewrite",
        "ExtensionRef",
        "CORS",
        "ExternalAuth",
    ]
    url_rewrite: HTTPURLRewriteFilter | None = None


class HTTPBackendRef(RouteBackend):
    """A service and its share of the requests."""

    filters: Annotated[tuple[HTTPRouteFilter, ...], Field(max_length=16)] | None = None


class HTTPHeaderMatch(HeaderMatch):
    """What a header must be."""

    value: HeaderValue


class HTTPPathMatch(Shape):
    """What the path must be."""

    type: Literal["Exact", "PathPrefix", "RegularExpression"] | None = None
    """PathPrefix unless said otherwise."""
    value: Annotated[Text, Field(max_length=1024)] | None = None
    """The path, '/' unless said otherwise."""

    def flaws(self) -> Iterator[Flaw]:
        """A path that is already normal (the rules of the CRD)."""
        if self.type == "RegularExpression":
            return
        value = self.value if self.value is not None else "/"
        if not value.startswith("/"):
            yield Flaw(("value",), f"{value!r} does not begin with '/'")
        for part in ("//", "/./", "/../", "%2f", "%2F", "#"):
            if part in value:
                yield Flaw(("value",), f"a path must not contain {part!r}", "write it the short way")
        for end in ("/..", "/."):
            if value.endswith(end):
                yield Flaw(("value",), f"a path must not end with {end!r}", "write it the short way")
        if not _PATH.fullmatch(value):
            yield Flaw(("value",), f"{value!r} has characters that a path cannot have", "encode them, as %20")


class HTTPQueryParamMatch(Shape):
    """What a query parameter must be."""

    name: HeaderName
    type: Literal["Exact", "RegularExpression"] | None = None
    value: Annotated[Text, Field(min_length=1, max_length=1024)]


class HTTPRouteMatch(Shape):
    """What a request must be like; all demands must hold."""

    headers: Annotated[tuple[HTTPHeaderMatch, ...], Field(max_length=16)] | None = None
    method: Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"] | None = (
        None
    )
    path: HTTPPathMatch | None = None
    query_params: Annotated[tuple[HTTPQueryParamMatch, ...], Field(max_length=16)] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Headers differ, and so do parameters."""
        yield from differ("headers", self.headers)
        yield from differ("queryParams", self.query_params)


class HTTPRouteRetry(Shape):
    """When and how often a request is tried again."""

    attempts: Annotated[Int, Field(ge=1, le=2**31 - 1)] | None = None
    backoff: GatewayDuration | None = None
    codes: tuple[Annotated[Int, Field(ge=400, le=599)], ...] | None = None
    """Statuses that are tried again."""

    def flaws(self) -> Iterator[Flaw]:
        """Statuses differ."""
        for number in twice(self.codes or ()):
            yield Flaw(("codes", number), "the status is there twice", "remove it")


class HTTPRouteTimeouts(Shape):
    """How long a request may take."""

    backend_request: GatewayDuration | None = None
    """One try."""
    request: GatewayDuration | None = None
    """From the request to the whole answer, tries and all; 0s for no limit."""

    def flaws(self) -> Iterator[Flaw]:
        """One try is not longer than the whole."""
        if self.request and self.backend_request and self.backend_request > self.request:
            yield Flaw(("backendRequest",), "backendRequest is longer than request")


class HTTPRouteRule(RouteRule):
    """Requests that match, what is done with them, and where they go."""

    backend_refs: Annotated[tuple[HTTPBackendRef, ...], Field(max_length=16)] | None = None
    """Where requests go, by weight; none answers 500."""
    filters: Annotated[tuple[HTTPRouteFilter, ...], Field(max_length=16)] | None = None
    """What is done with requests and answers."""
    matches: Annotated[tuple[HTTPRouteMatch, ...], Field(max_length=64)] | None = None
    """Any of these; every request unless given."""
    retry: HTTPRouteRetry | None = None
    timeouts: HTTPRouteTimeouts | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Filters fit each other, the matches and the backends (the rules of the CRD)."""
        yield from super().flaws()
        yield from _filters(self.filters or (), self.matches, ("filters",))
        for number, backend in enumerate(self.backend_refs or ()):
            yield from _filters(backend.filters or (), self.matches, ("backendRefs", number, "filters"))
        if self.backend_refs and any(item.request_redirect for item in self.filters or ()):
            yield Flaw(("backendRefs",), "a rule that redirects has no backends", "remove one of them")


class HTTPRouteSpec(RequestRouteSpec):
    """Requests to some hosts, and what becomes of them."""

    rules: Annotated[tuple[HTTPRouteRule, ...], Field(min_length=1, max_length=16)] | None = None
    """The most specific match holds."""


class HTTPRoute(Resource):
    """Routes HTTP requests."""

    spec: HTTPRouteSpec
    status: RouteStatus | None = None


def _filters(
    filters: tuple[HTTPRouteFilter, ...], matches: tuple[HTTPRouteMatch, ...] | None, path: Path
) -> Iterator[Flaw]:
    """Filters that may stand once, or not beside another; a prefix is replaced where one is matched."""
    kinds = [item.type for item in filters]
    if "RequestRedirect" in kinds and "URLRewrite" in kinds:
        number = kinds.index("URLRewrite")
        yield Flaw((*path, number), "URLRewrite does not go with RequestRedirect", "keep one of them")
    for number, item in enumerate(filters):
        for wire, block in (("requestRedirect", item.request_redirect), ("urlRewrite", item.url_rewrite)):
            change = block.path if block else None
            if change is None or change.type != "ReplacePrefixMatch":
                continue
            only = matches[0] if matches is not None and len(matches) == 1 else None
            prefixed = matches is None or (
                only is not None and (only.path is None or only.path.type in {None, "PathPrefix"})
            )
            if not prefixed:
                message = "a prefix is replaced where exactly one PathPrefix is matched"
                yield Flaw((*path, number, wire, "path"), message, "write such a match, or ReplaceFullPath")
