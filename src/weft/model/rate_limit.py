"""RateLimit: how many requests are taken."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import Field

from weft.model import headers as names
from weft.model.base import Flaw, Shape, at_most_one, each, twice
from weft.model.istio import LabelsSelector, PolicyTargetReference
from weft.model.request_match import StringMatch
from weft.model.resource import Resource
from weft.model.scalars import Bool, PositiveDuration, Text, UInt

_SHORTEST: Final = timedelta(milliseconds=50)


class LimitKey(Shape):
    """What tells callers apart: each value has a count of its own. One field is given."""

    source: Literal["PRINCIPAL", "IP"] | None = None
    """The caller's identity (of its certificate), or its address."""
    header: Annotated[Text, Field(min_length=1, max_length=253)] | None = None
    """The value of a header; requests without it are one caller."""
    claim: Annotated[Text, Field(min_length=1, max_length=253)] | None = None
    """A claim of the request's token that is text, ``a.b`` for b in a; requests without it are one caller."""

    def flaws(self) -> Iterator[Flaw]:
        """One of them."""
        if self.source is None and self.header is None and self.claim is None:
            yield Flaw((), "says nothing", "write source, header or claim")
        yield from at_most_one(self, "source", "header", "claim")
        if self.header is not None:
            yield from each(("header",), [names.plain(self.header)])


class LimitMatch(Shape):
    """The requests that are counted; all demands must hold."""

    path: StringMatch | None = None
    """The path, without the query."""
    methods: Annotated[tuple[Text, ...], Field(min_length=1, max_length=16)] | None = None
    """One of these methods."""
    headers: dict[str, StringMatch] | None = None
    """Headers by name; an empty match asks only that it is there."""

    def flaws(self) -> Iterator[Flaw]:
        """Patterns that can be read."""
        tests = [(("path",), self.path)] if self.path is not None else []
        for name, test in (*tests, *((("headers", key), one) for key, one in (self.headers or {}).items())):
            for flaw in test.read():
                yield Flaw((*name, *flaw.path), flaw.message, flaw.hint)


class Limit(Shape):
    """So many requests in so long."""

    name: Annotated[Text, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    """What it is called in this resource."""
    requests: Annotated[UInt, Field(ge=1)]
    """How many, on average."""
    interval: PositiveDuration | None = None
    """In how long; one second unless given, 50 ms at the least."""
    burst: Annotated[UInt, Field(ge=1)] | None = None
    """How many may come at once; as many as ``requests`` unless given."""
    match: LimitMatch | None = None
    """Which requests; all unless given."""
    per: Annotated[tuple[LimitKey, ...], Field(min_length=1, max_length=4)] | None = None
    """Whose; all callers together unless given."""

    def flaws(self) -> Iterator[Flaw]:
        """Not too often."""
        if self.interval is not None and self.interval < _SHORTEST:
            yield Flaw(("interval",), "is too short", "write 50ms or more")


class RateLimitService(Shape):
    """A service that counts (Envoy's rate limit service, gRPC): it is asked about each request."""

    host: Annotated[Text, Field(min_length=1, max_length=253)]
    """Its host, as in a VirtualService's destination."""
    port: Annotated[UInt, Field(ge=1, le=65535)]
    """Its port, of protocol gRPC."""
    domain: Annotated[Text, Field(min_length=1, max_length=253)]
    """The domain of its configuration."""
    timeout: PositiveDuration | None = None
    """How long it is waited for; 20 ms unless given."""
    fail_open: Bool | None = None
    """Whether requests are taken when it does not answer; so unless false."""


# envoy.type.v3.StatusCode, from 400 on.
_STATUSES: Final = frozenset(
    {*range(400, 418), *range(421, 425), 426, 428, 429, 431, *range(500, 509), 510, 511}
)


class RateLimitSpec(Shape):
    """How many requests workloads or a gateway take."""

    selector: LabelsSelector | None = None
    """Workloads of the namespace that are meant; all of them unless given. The root namespace is all."""
    target_refs: Annotated[tuple[PolicyTargetReference, ...], Field(max_length=16)] | None = None
    """Gateways of the namespace that are meant instead."""
    limits: Annotated[tuple[Limit, ...], Field(min_length=1, max_length=64)]
    """A request is refused when one of those that count it is used up."""
    scope: Literal["SERVICE", "PROXY"] | None = None
    """Whether the limits are for all replicas together (SERVICE, the default) or for each."""
    mode: Literal["ENFORCE", "SHADOW"] | None = None
    """SHADOW only counts what ENFORCE, the default, would refuse."""
    status: Annotated[UInt, Field(ge=400, le=599)] | None = None
    """What a refused request is answered with; 429 unless given."""
    headers: Literal["STANDARD", "NONE"] | None = None
    """Whether answers tell the limit and what is left of it (x-ratelimit-*, retry-after); so unless NONE."""
    service: RateLimitService | None = None
    """Who counts; the proxies themselves unless given."""

    def flaws(self) -> Iterator[Flaw]:
        """Names are told apart; a limit is for workloads or for gateways."""
        yield from at_most_one(self, "selector", "target_refs")
        for position in twice(limit.name for limit in self.limits):
            yield Flaw(("limits", position, "name"), "is there already", "give each limit a name of its own")
        if self.service is not None and self.scope is not None:
            yield Flaw(("scope",), "a service that counts knows all proxies", "remove it")
        if self.status is not None and self.status not in _STATUSES:
            message = f"no proxy limits requests with the status {self.status}"
            yield Flaw(("status",), message, "write 429, 503 or another one that is registered")


class RateLimit(Resource):
    """How many requests workloads or a gateway take."""

    spec: RateLimitSpec
