"""VirtualService."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from weft.model import headers
from weft.model.base import Flaw, Shape, inside, twice
from weft.model.gateway_names import gateways
from weft.model.hosts import covers, is_address, server_name, shared, wildcard
from weft.model.http_action import (
    CorsPolicy,
    HeaderOperations,
    Headers,
    HTTPBody,
    HTTPDirectResponse,
    HTTPFaultAbort,
    HTTPFaultDelay,
    HTTPFaultInjection,
    HTTPRedirect,
    HTTPRetry,
    HTTPRewrite,
    Percent,
    RegexRewrite,
)
from weft.model.istio import Destination, IstioResource, IstioStatus, exported
from weft.model.reachability import overlapped, unreached
from weft.model.request_match import HTTPMatchRequest, L4MatchAttributes, StringMatch, TLSMatchAttributes
from weft.model.scalars import PositiveDuration, ProtoInt, Text, UInt

__all__ = [
    "CorsPolicy",
    "Delegate",
    "HTTPBody",
    "HTTPDirectResponse",
    "HTTPFaultAbort",
    "HTTPFaultDelay",
    "HTTPFaultInjection",
    "HTTPMatchRequest",
    "HTTPMirrorPolicy",
    "HTTPRedirect",
    "HTTPRetry",
    "HTTPRewrite",
    "HTTPRoute",
    "HTTPRouteDestination",
    "HeaderOperations",
    "Headers",
    "L4MatchAttributes",
    "Percent",
    "RegexRewrite",
    "RouteDestination",
    "StringMatch",
    "TCPRoute",
    "TLSMatchAttributes",
    "TLSRoute",
    "VirtualService",
    "VirtualServiceSpec",
]


class Delegate(Shape):
    """The VirtualService whose rules go on from here."""

    name: Text | None = None
    namespace: Text | None = None


class HTTPMirrorPolicy(Shape):
    """A service that gets a copy of the requests."""

    destination: Destination
    percentage: Percent | None = None


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
        yield from self._actions()
        if self.mirror_percent is not None or self.mirror_percent_ is not None:
            hint = "write mirrorPercentage"
            yield Flaw(("mirrorPercent",), "mirrorPercent is deprecated", hint, warns=True)
        for name, share in (("mirrorPercent", self.mirror_percent), ("mirror_percent", self.mirror_percent_)):
            if share is not None and share > 100:
                yield Flaw((name,), f"{share} is not a percentage: write 0 to 100")
        if self.redirect is not None and self.redirect.prefix_rewrite:
            for number, match in enumerate(self.match or ()):
                if match.uri is not None and match.uri.prefix is None:
                    path = ("match", number, "uri")
                    yield Flaw(path, "prefixRewrite needs matches by prefix", "write 'prefix: …'")
        yield from self._authority()
        weights = [route.weight for route in self.route or ()]
        if len(weights) > 1 and not any(weights):
            yield Flaw(("route",), "no destination has a weight", "give each its share, as 'weight: 90'")
        for number, weight in enumerate(weights):
            if weight is not None and weight < 0:
                yield Flaw(("route", number, "weight"), f"{weight} is too small: at least 0")
        for number in twice(match.name for match in self.match or () if match.name):
            yield Flaw(("match", number, "name"), "the name is there twice")

    def _actions(self) -> Iterator[Flaw]:
        if self.delegate is not None:
            for name, other in (("route", self.route or None), ("redirect", self.redirect)):
                if other is not None:
                    yield Flaw(
                        (name,), "another VirtualService decides: delegate is there", "keep one of them"
                    )
            return
        actions = {
            "redirect": self.redirect,
            "directResponse": self.direct_response,
            "route": self.route or None,
        }
        there = [name for name, value in actions.items() if value is not None]
        if not there:
            message = "the rule does not say what becomes of requests"
            yield Flaw((), message, "add route, redirect or directResponse")
        for name in there[1:]:
            yield Flaw((name,), f"{there[0]} is there too", "keep one of them")
        if there and there[0] != "route":
            for name, value in (("fault", self.fault), ("rewrite", self.rewrite)):
                if value is not None:
                    yield Flaw((name,), f"{name} has no effect with {there[0]}", "remove one of them")
        if self.mirror is not None and self.mirrors:
            yield Flaw(("mirrors",), "mirror is there too", "keep one of them")

    def _authority(self) -> Iterator[Flaw]:
        """The host is rewritten in one place."""
        known = bool(self.rewrite and self.rewrite.authority)
        request = self.headers.request if self.headers else None
        for field in ("set", "add"):
            for name, value in ((getattr(request, field) if request else None) or {}).items():
                if not headers.is_authority(name):
                    continue
                if known:
                    path = ("headers", "request", field, name)
                    yield Flaw(path, "the host is rewritten elsewhere in this rule too", "keep one of them")
                known = known or bool(value)


def _shares(routes: tuple[RouteDestination, ...] | None) -> Iterator[Flaw]:
    if not routes:
        yield Flaw(("route",), "the rule does not say where connections go", "add route")
    if len(routes or ()) > 1 and not any(item.weight for item in routes or ()):
        yield Flaw(("route",), "no destination has a weight", "give each its share, as 'weight: 90'")
    for number, item in enumerate(routes or ()):
        if (item.weight or 0) < 0:
            yield Flaw(("route", number, "weight"), f"{item.weight} is too small: at least 0")


class RouteDestination(Shape):
    """A destination and its share of the connections."""

    destination: Destination
    weight: ProtoInt | None = None


class TCPRoute(Shape):
    """A rule for connections: which match, and where they go."""

    match: tuple[L4MatchAttributes, ...] | None = None
    route: tuple[RouteDestination, ...] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Connections go somewhere."""
        yield from _shares(self.route)


class TLSRoute(Shape):
    """A rule for TLS connections that are passed through."""

    match: tuple[TLSMatchAttributes, ...]
    route: tuple[RouteDestination, ...] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Connections of some name go somewhere."""
        if not self.match:
            yield Flaw(("match",), "a rule of TLS needs a match", "add sniHosts")
        yield from _shares(self.route)


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
        """Hosts, gateways and rules fit each other (Istio's validation of VirtualService)."""
        if not (self.http or self.tcp or self.tls):
            yield Flaw((), "the VirtualService has no rules", "add http, tls or tcp")
        if not self.hosts:
            yield from self._delegate()
        yield from gateways(self.gateways or ())
        yield from self._names()
        yield from self._server_names()
        if not self._at_gateways:
            yield from self._claims()
        for field, rules in (("http", self.http), ("tcp", self.tcp), ("tls", self.tls)):
            yield from unreached(field, rules or ())
        yield from overlapped(self.http or ())

    @property
    def _at_gateways(self) -> bool:
        """Whether it is for gateways only."""
        return bool(self.gateways) and "mesh" not in (self.gateways or ())

    def _delegate(self) -> Iterator[Flaw]:
        """Without hosts it goes on where another VirtualService delegates."""
        for field in ("gateways", "tls", "tcp"):
            if getattr(self, field):
                yield Flaw(
                    (field,), f"a VirtualService without hosts has no {field}", "add hosts, or remove it"
                )
        for number, rule in enumerate(self.http or ()):
            if rule.delegate is not None:
                yield Flaw(("http", number, "delegate"), "delegates do not delegate", "write the route here")

    def _names(self) -> Iterator[Flaw]:
        hosts = self.hosts or ()
        broken = False
        sni = any(match.sni_hosts for rule in self.tls or () for match in rule.match)
        for number, host in enumerate(hosts):
            wrong = server_name(host) if self._at_gateways and sni else wildcard(host)
            if host == "*" and not self._at_gateways:
                wrong = "'*' is for gateways: sidecars need the names of services"
            if wrong and not is_address(host):
                broken = True
                yield Flaw(("hosts", number), wrong)
        for number, before in shared(hosts) if not broken else ():
            same = "is there twice" if before == hosts[number] else f"and {before!r} have names in common"
            yield Flaw(("hosts", number), f"the host {hosts[number]!r} {same}", "keep one of them")

    def _server_names(self) -> Iterator[Flaw]:
        for number, rule in enumerate(self.tls or ()):
            for place, match in enumerate(rule.match):
                for index, name in enumerate(match.sni_hosts):
                    path = ("tls", number, "match", place, "sniHosts", index)
                    wrong = server_name(name) if self._at_gateways else wildcard(name)
                    if wrong and is_address(name):
                        yield Flaw(path, f"{name} is an address: few clients send one", warns=True)
                    elif wrong:
                        yield Flaw(path, wrong)
                    elif not any(covers(host, name) for host in self.hosts or ()):
                        yield Flaw(path, f"{name!r} belongs to none of the hosts", "add it to hosts")

    def _claims(self) -> Iterator[Flaw]:
        for number, rule in enumerate(self.http or ()):
            for place, match in enumerate(rule.match or ()):
                for field, names in (("headers", match.headers), ("withoutHeaders", match.without_headers)):
                    for name in names or ():
                        if headers.is_claim(name):
                            path = ("http", number, "match", place, field, name)
                            yield Flaw(
                                path, "claims are matched at gateways only", "name them under gateways"
                            )


class VirtualService(IstioResource):
    """Where requests to some hosts go."""

    spec: VirtualServiceSpec = Field(default_factory=lambda: VirtualServiceSpec())
    status: IstioStatus | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Who sees it."""
        yield from super().flaws()
        yield from inside(("spec",), exported(self.spec.export_to, self.metadata.namespace))
