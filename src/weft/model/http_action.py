"""What a VirtualService does with requests and answers on their way."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Final, Literal

from pydantic import Field

from weft.model import headers
from weft.model.base import Flaw, Shape, at_most_one, each, given, wire_name
from weft.model.patterns import pattern
from weft.model.request_match import StringMatch
from weft.model.scalars import Base64, Bool, Float, PositiveDuration, ProtoInt, Text, UInt

_LARGE: Final = 100 << 10
_MOST: Final = 1 << 20
_METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"}
)
_STATUSES: Final = frozenset(str(status.value) for status in HTTPStatus)
_RETRY_ON: Final = frozenset(
    [
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "envoy-ratelimited",
        "http3-post-connect-failure",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    ]
)
_GRPC_STATUSES: Final = frozenset(
    [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ]
)


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

    def flaws(self) -> Iterator[Flaw]:
        """Origins say something, methods and headers exist, whole seconds."""
        for number, origin in enumerate(self.allow_origins or ()):
            if not (origin.exact or origin.prefix or origin.regex):
                yield Flaw(("allowOrigins", number), "the origin is empty", "write exact, prefix or regex")
            elif origin.regex:
                yield from each(("allowOrigins", number, "regex"), [pattern(origin.regex)])
        for number, method in enumerate(self.allow_methods or ()):
            if method not in _METHODS:
                yield Flaw(("allowMethods", number), f"{method!r} is not a method", "write it in capitals")
        for field, names in (("allowHeaders", self.allow_headers), ("exposeHeaders", self.expose_headers)):
            for number, name in enumerate(names or ()):
                yield from each((field, number), [headers.known(name) if name != "*" else ""])
        if self.max_age is not None and self.max_age.microseconds:
            yield Flaw(("maxAge",), "maxAge is in whole seconds", "write it like '24h' or '90s'")


class HTTPBody(Shape):
    """What is answered."""

    bytes_: Base64 | None = Field(default=None, alias="bytes")
    string: Text | None = None

    def flaws(self) -> Iterator[Flaw]:
        """One form, of a bearable size."""
        yield from at_most_one(self, "string", "bytes_")
        size = len((self.string or "").encode(errors="replace")) or len(self.bytes_ or "") * 3 // 4
        if size > _LARGE:
            yield Flaw(
                (), "the body is large: every proxy keeps it", "serve it from a service", size <= _MOST
            )


class HTTPDirectResponse(Shape):
    """An answer that the proxy gives itself."""

    body: HTTPBody | None = None
    status: UInt
    """The status that is answered."""

    def flaws(self) -> Iterator[Flaw]:
        """A status of HTTP."""
        if not 200 <= self.status <= 600:
            yield Flaw(("status",), f"{self.status} is not a status: write 200 to 599")


class Percent(Shape):
    """A share, from 0 to 100."""

    value: Float | None = None

    def flaws(self) -> Iterator[Flaw]:
        """From 0 to 100."""
        if self.value is not None and not 0 <= self.value <= 100:
            yield Flaw(("value",), f"{self.value:g} is not a percentage: write 0 to 100")


def _share(percentage: Percent | None) -> Iterator[Flaw]:
    """Envoy counts in millionths."""
    if percentage is not None and 0 < (percentage.value or 0) < 0.0001:
        yield Flaw(("percentage", "value"), "the share is too small: at least 0.0001")


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
        if self.http_status is not None and not 200 <= self.http_status <= 600:
            yield Flaw(("httpStatus",), f"{self.http_status} is not a status: write 200 to 599")
        if self.grpc_status is not None and self.grpc_status not in _GRPC_STATUSES:
            yield Flaw(("grpcStatus",), f"{self.grpc_status!r} is not a status of gRPC", "as 'UNAVAILABLE'")
        if self.http2_error is not None:
            yield Flaw(
                ("http2Error",), "errors of HTTP/2 cannot be injected", "write httpStatus or grpcStatus"
            )
        if given(self.http_status, self.grpc_status, self.http2_error) == 0:
            yield Flaw(
                (), "abort says no error: it has no effect", "add httpStatus or grpcStatus", warns=True
            )
        yield from _share(self.percentage)


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
        if self.exponential_delay is not None:
            yield Flaw(("exponentialDelay",), "delays that grow cannot be injected", "write fixedDelay")
        yield from _share(self.percentage)
        if self.percent is not None and not 0 <= self.percent <= 100:
            hint = "write percentage, from 0 to 100"
            yield Flaw(("percent",), f"{self.percent} is not a percentage", hint, warns=True)


class HTTPFaultInjection(Shape):
    """Failures on purpose."""

    abort: HTTPFaultAbort | None = None
    delay: HTTPFaultDelay | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Something goes wrong."""
        if self.abort is None and self.delay is None:
            yield Flaw((), "the fault says not what goes wrong", "add abort or delay")


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

    def flaws(self) -> Iterator[Flaw]:
        """Headers that may be changed, and values that Envoy can read."""
        for field, change in (("request", self.request), ("response", self.response)):
            if change is None:
                continue
            request = field == "request"
            for path, wrong in headers.operations(change.add, change.remove, change.set, request=request):
                yield Flaw((field, *path), wrong)


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
        for name in ("authority", "uri", "prefix_rewrite"):
            yield from each((wire_name(self, name),), [headers.broken(getattr(self, name) or "")])
        yield from at_most_one(self, "port", "derive_port")
        if self.uri and self.prefix_rewrite:
            yield Flaw(("prefixRewrite",), "uri is there too", "keep one of them")
        if not (self.uri or self.prefix_rewrite or self.authority or self.scheme) and (
            given(self.port, self.derive_port) == 0
        ):
            yield Flaw((), "the redirect changes nothing", "add uri, authority, scheme or port")
        if self.scheme and self.scheme not in {"http", "https"}:
            yield Flaw(("scheme",), f"{self.scheme!r} is not a scheme here", "write http or https")
        if self.port and self.port > 65535:
            yield Flaw(("port",), f"{self.port} is not a port: write 1 to 65535")
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
        """Conditions that Envoy knows; none where nothing is tried again."""
        if self.attempts is not None and self.attempts < 0:
            yield Flaw(("attempts",), f"{self.attempts} is too small: at least 0")
        said = [
            name
            for name, value in (
                ("perTryTimeout", self.per_try_timeout),
                ("retryOn", self.retry_on or None),
                ("retryRemoteLocalities", self.retry_remote_localities),
            )
            if value is not None
        ]
        if not self.attempts and said:
            yield Flaw(("attempts",), f"{said[0]} has no effect without attempts", "write 'attempts: 2'")
        for condition in self.retry_on.split(",") if self.retry_on else ():
            if condition not in _RETRY_ON and condition not in _STATUSES:
                hint = "write conditions of Envoy and statuses with commas and no spaces, as '5xx,reset,503'"
                yield Flaw(("retryOn",), f"{condition!r} is not a condition", hint)


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

    def flaws(self) -> Iterator[Flaw]:
        """One way to rewrite the path, or a new host."""
        for name in ("authority", "uri"):
            yield from each((name,), [headers.broken(getattr(self, name) or "")])
        found = self.uri_regex_rewrite
        if self.uri and found is not None:
            yield Flaw(("uriRegexRewrite",), "uri is there too", "keep one of them")
        if not (self.uri or self.authority) and found is None:
            yield Flaw((), "the rewrite changes nothing", "add uri, uriRegexRewrite or authority")
        if found is not None:
            if not found.match or not found.rewrite:
                yield Flaw(("uriRegexRewrite",), "it needs match and rewrite", "add them")
            else:
                yield from each(("uriRegexRewrite", "match"), [pattern(found.match)])
