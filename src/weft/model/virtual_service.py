"""VirtualService."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from weft.model.base import Flaw, Shape, at_most_one, given, twice
from weft.model.istio import Destination, IstioStatus
from weft.model.resource import Resource
from weft.model.scalars import Bool, Float, PositiveDuration, ProtoInt, Text, UInt


class StringMatch(Shape):
    """A text: whole, by its beginning, or by a regular expression (RE2)."""

    exact: Text | None = None
    """The whole text."""
    prefix: Text | None = None
    """Its beginning."""
    regex: Text | None = None
    """A regular expression that matches the whole text."""

    def flaws(self) -> Iterator[Flaw]:
        """One way to match."""
        yield from at_most_one(self, "exact", "prefix", "regex")


class CorsPolicy(Shape):
    """Which web pages of other origins may call."""

    allow_credentials: Bool | None = None
    allow_headers: tuple[Text, ...] | None = None
    allow_methods: tuple[Text, ...] | None = None
    allow_origin: tuple[Text, ...] | None = None
    allow_origins: tuple[StringMatch, ...] | None = None
    expose_headers: tuple[Text, ...] | None = None
    max_age: PositiveDuration | None = None
    unmatched_preflights: Literal["UNSPECIFIED", "FORWARD", "IGNORE"] | None = None


class Delegate(Shape):
    """The VirtualService whose rules go on from here."""

    name: Text | None = None
    namespace: Text | None = None


class HTTPBody(Shape):
    """What is answered."""

    bytes_: Text | None = Field(default=None, alias="bytes")
    string: Text | None = None

    def flaws(self) -> Iterator[Flaw]:
        """One form."""
        yield from at_most_one(self, "string", "bytes_")


class HTTPDirectResponse(Shape):
    """An answer that the proxy gives itself."""

    body: HTTPBody | None = None
    status: UInt
    """The status that is answered."""


class Percent(Shape):
    """A share, from 0 to 100."""

    value: Float | None = None

    def flaws(self) -> Iterator[Flaw]:
        """From 0 to 100."""
        if self.value is not None and not 0 <= self.value <= 100:
            yield Flaw(("value",), f"{self.value:g} is not a percentage: write 0 to 100")


class HTTPFaultAbort(Shape):
    """Answers an error in the place of the service."""

    grpc_status: Text | None = None
    http2_error: Text | None = None
    http_status: ProtoInt | None = None
    """The status that is answered."""
    percentage: Percent | None = None
    """The share that is refused."""

    def flaws(self) -> Iterator[Flaw]:
        """One kind of error, with a status of HTTP."""
        yield from at_most_one(self, "http_status", "grpc_status", "http2_error")
        if self.http_status is not None and not 200 <= self.http_status <= 599:
            yield Flaw(("httpStatus",), f"{self.http_status} is not a status: write 200 to 599")


class HTTPFaultDelay(Shape):
    """Makes requests wait."""

    exponential_delay: PositiveDuration | None = None
    fixed_delay: PositiveDuration | None = None
    """How long requests wait."""
    percent: ProtoInt | None = None
    percentage: Percent | None = None
    """The share that waits."""

    def flaws(self) -> Iterator[Flaw]:
        """One kind of delay."""
        yield from at_most_one(self, "fixed_delay", "exponential_delay")
        if self.percent is not None and not 0 <= self.percent <= 100:
            yield Flaw(("percent",), f"{self.percent} is not a percentage: write 0 to 100")


class HTTPFaultInjection(Shape):
    """Failures on purpose."""

    abort: HTTPFaultAbort | None = None
    delay: HTTPFaultDelay | None = None


class HeaderOperations(Shape):
    """Changes to headers."""

    add: dict[str, Text] | None = None
    """Values that are added to headers."""
    remove: tuple[Text, ...] | None = None
    """Headers that are taken away."""
    set: dict[str, Text] | None = None
    """Headers that are given a value."""


class Headers(Shape):
    """Changes to the headers of requests and answers."""

    request: HeaderOperations | None = None
    response: HeaderOperations | None = None


class HTTPMatchRequest(Shape):
    """What a request must be like; all demands must hold."""

    authority: StringMatch | None = None
    gateways: tuple[Text, ...] | None = None
    headers: dict[str, StringMatch] | None = None
    """Headers by lower-case name; an empty match asks only that it is there."""
    ignore_uri_case: Bool | None = None
    """Whether upper and lower case are the same in the path."""
    method: StringMatch | None = None
    name: Text | None = None
    port: UInt | None = None
    """The port that was called."""
    query_params: dict[str, StringMatch] | None = None
    scheme: StringMatch | None = None
    source_labels: dict[str, Text] | None = None
    """Labels of the calling workload; not at gateways."""
    source_namespace: Text | None = None
    stat_prefix: Text | None = None
    uri: StringMatch | None = None
    """The path, without the query."""
    without_headers: dict[str, StringMatch] | None = None
    """Headers that must not match."""


class HTTPMirrorPolicy(Shape):
    """A service that gets a copy of the requests."""

    destination: Destination
    percentage: Percent | None = None


class HTTPRedirect(Shape):
    """Sends the client elsewhere."""

    authority: Text | None = None
    """The new host."""
    derive_port: Literal["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"] | None = None
    port: UInt | None = None
    prefix_rewrite: Text | None = None
    redirect_code: UInt | None = None
    """301 unless said otherwise."""
    scheme: Text | None = None
    uri: Text | None = None
    """The new path."""

    def flaws(self) -> Iterator[Flaw]:
        """One way to find the port; a status that redirects."""
        yield from at_most_one(self, "port", "derive_port")
        yield from at_most_one(self, "uri", "prefix_rewrite")
        if self.redirect_code and not 300 <= self.redirect_code <= 399:
            yield Flaw(
                ("redirectCode",),
                f"{self.redirect_code} does not redirect",
                "write 301, 302, 303, 307 or 308",
            )


class HTTPRetry(Shape):
    """When and how often a request is tried again."""

    attempts: ProtoInt | None = None
    """How often a request is tried again; 0 for never."""
    backoff: PositiveDuration | None = None
    """The least wait before the first new try."""
    per_try_timeout: PositiveDuration | None = None
    """How long one try may take."""
    retry_ignore_previous_hosts: Bool | None = None
    retry_on: Text | None = None
    """Conditions, separated by commas, as '5xx,reset,503'."""
    retry_remote_localities: Bool | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Not fewer than none."""
        if self.attempts is not None and self.attempts < 0:
            yield Flaw(("attempts",), f"{self.attempts} is too small: at least 0")


class RegexRewrite(Shape):
    """Rewrites the path by a regular expression (RE2)."""

    match: Text | None = None
    rewrite: Text | None = None


class HTTPRewrite(Shape):
    """Changes the request before it is sent on."""

    authority: Text | None = None
    """What the host becomes."""
    uri: Text | None = None
    """What the path, or the prefix that matched, becomes."""
    uri_regex_rewrite: RegexRewrite | None = None


class HTTPRouteDestination(Shape):
    """A destination and its share of the requests."""

    destination: Destination
    headers: Headers | None = None
    weight: ProtoInt | None = None
    """Relative to the other destinations."""


class HTTPRoute(Shape):
    """A rule: requests that match, and what becomes of them."""

    cors_policy: CorsPolicy | None = None
    delegate: Delegate | None = None
    direct_response: HTTPDirectResponse | None = None
    fault: HTTPFaultInjection | None = None
    headers: Headers | None = None
    match: tuple[HTTPMatchRequest, ...] | None = None
    """Any of these; every request unless given."""
    mirror: Destination | None = None
    """A service that gets a copy; its answers are dropped."""
    mirror_percent_: UInt | None = Field(default=None, alias="mirror_percent")
    mirror_percent: UInt | None = None
    mirror_percentage: Percent | None = None
    """The share that is copied; all unless given."""
    mirrors: tuple[HTTPMirrorPolicy, ...] | None = None
    name: Text | None = None
    """Shown in access logs."""
    redirect: HTTPRedirect | None = None
    retries: HTTPRetry | None = None
    rewrite: HTTPRewrite | None = None
    route: tuple[HTTPRouteDestination, ...] | None = None
    """Where requests go, by weight."""
    timeout: PositiveDuration | None = None
    """How long the answer may take, tries and all; no limit unless given."""

    def flaws(self) -> Iterator[Flaw]:
        """Exactly one thing becomes of a request (Istio's validation of VirtualService)."""
        if given(self.route or None, self.redirect, self.direct_response, self.delegate) == 0:
            yield Flaw(
                (), "the rule does not say what becomes of requests", "add route, redirect or directResponse"
            )
        yield from at_most_one(self, "route", "redirect", "direct_response", "delegate")
        for name, wire in (("redirect", "redirect"), ("direct_response", "directResponse")):
            if getattr(self, name) is None:
                continue
            for other in ("fault", "rewrite"):
                if getattr(self, other) is not None:
                    yield Flaw((other,), f"{other} has no effect with {wire}", "remove one of them")
        yield from at_most_one(self, "mirror", "mirrors")
        for name, share in (("mirrorPercent", self.mirror_percent), ("mirror_percent", self.mirror_percent_)):
            if share is not None and share > 100:
                yield Flaw((name,), f"{share} is not a percentage: write 0 to 100")
        weights = [route.weight for route in self.route or ()]
        if len(weights) > 1 and not any(weights):
            yield Flaw(("route",), "no destination has a weight", "give each its share, as 'weight: 90'")
        for number, weight in enumerate(weights):
            if weight is not None and weight < 0:
                yield Flaw(("route", number, "weight"), f"{weight} is too small: at least 0")
        for number in twice(match.name for match in self.match or () if match.name):
            yield Flaw(("match", number, "name"), "the name is there twice")


class L4MatchAttributes(Shape):
    """What a connection must be like; all demands must hold."""

    destination_subnets: tuple[Text, ...] | None = None
    gateways: tuple[Text, ...] | None = None
    port: UInt | None = None
    source_labels: dict[str, Text] | None = None
    source_namespace: Text | None = None
    source_subnet: Text | None = None


class RouteDestination(Shape):
    """A destination and its share of the connections."""

    destination: Destination
    weight: ProtoInt | None = None


class TCPRoute(Shape):
    """A rule for connections: which match, and where they go."""

    match: tuple[L4MatchAttributes, ...] | None = None
    route: tuple[RouteDestination, ...] | None = None


class TLSMatchAttributes(Shape):
    """What a TLS connection must be like; all demands must hold."""

    destination_subnets: tuple[Text, ...] | None = None
    gateways: tuple[Text, ...] | None = None
    port: UInt | None = None
    sni_hosts: tuple[Text, ...]
    source_labels: dict[str, Text] | None = None
    source_namespace: Text | None = None


class TLSRoute(Shape):
    """A rule for TLS connections that are passed through."""

    match: tuple[TLSMatchAttributes, ...]
    route: tuple[RouteDestination, ...] | None = None


class VirtualServiceSpec(Shape):
    """Where requests to some hosts go."""

    export_to: tuple[Text, ...] | None = None
    """Namespaces that see it: '.' its own, '*' all; all unless said otherwise."""
    gateways: tuple[Text, ...] | None = None
    """'mesh' for sidecars, else Gateways as 'namespace/name'; 'mesh' unless said otherwise."""
    hosts: tuple[Text, ...] | None = None
    """Names that clients call: a service, a full name, or '*.example.com'."""
    http: tuple[HTTPRoute, ...] | None = None
    """Rules for HTTP; the first that matches holds."""
    tcp: tuple[TCPRoute, ...] | None = None
    """Rules for other connections; the first that matches holds."""
    tls: tuple[TLSRoute, ...] | None = None
    """Rules for TLS that is passed through; the first that matches holds."""

    def flaws(self) -> Iterator[Flaw]:
        """At least one rule; hosts differ."""
        if not (self.http or self.tcp or self.tls):
            yield Flaw((), "the VirtualService has no rules", "add http, tls or tcp")
        for number in twice(host.lower() for host in self.hosts or ()):
            yield Flaw(("hosts", number), f"the host {(self.hosts or ())[number]!r} is there twice")


class VirtualService(Resource):
    """Where requests to some hosts go."""

    spec: VirtualServiceSpec = Field(default_factory=lambda: VirtualServiceSpec())
    status: IstioStatus | None = None
