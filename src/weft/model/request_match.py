"""What requests and connections must be like for a rule of a VirtualService to hold."""

from __future__ import annotations

from collections.abc import Iterator

from weft.model import headers
from weft.model.base import Flaw, Shape, at_most_one, each, inside
from weft.model.gateway_names import gateways
from weft.model.hosts import is_label, labels, subnet
from weft.model.patterns import pattern
from weft.model.scalars import Bool, Text, UInt


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

    def read(self, *, empty_prefix: bool = False) -> Iterator[Flaw]:
        """What RE2 cannot read, and a beginning of nothing; where ``*`` is allowed, this is not called."""
        if self.prefix == "" and not empty_prefix:
            yield Flaw(("prefix",), "a prefix must not be empty", "leave the match out to match everything")
        if self.regex is not None:
            yield from each(("regex",), [pattern(self.regex)])


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

    def flaws(self) -> Iterator[Flaw]:
        """Names and patterns that can be read; a regex '*' asks only that the header is absent."""
        if self.uri is not None:
            yield from inside(("uri",), self.uri.read(empty_prefix=True))
        for field, match in (("scheme", self.scheme), ("method", self.method), ("authority", self.authority)):
            if match is not None:
                yield from inside((field,), match.read())
        for field, matches in (("headers", self.headers), ("withoutHeaders", self.without_headers)):
            for name, match in (matches or {}).items():
                yield from each((field, name), [headers.matched(name)])
                if field == "headers" or match.regex != "*":
                    yield from inside((field, name), match.read())
        for name, match in (self.query_params or {}).items():
            yield from inside(("queryParams", name), match.read())
        if self.source_namespace and not is_label(self.source_namespace):
            yield Flaw(("sourceNamespace",), f"{self.source_namespace!r} is not a namespace")
        yield from _caller(self.port, self.source_labels, self.gateways)


def _caller(
    port: int | None, source_labels: dict[str, str] | None, names: tuple[str, ...] | None
) -> Iterator[Flaw]:
    """What all matches have: the port that is called, and who calls."""
    if port and port > 65535:
        yield Flaw(("port",), f"{port} is not a port: write 1 to 65535")
    for key, wrong in labels(source_labels):
        yield Flaw(("sourceLabels", key), wrong)
    yield from gateways(names or ())


class L4MatchAttributes(Shape):
    """What a connection must be like; all demands must hold."""

    destination_subnets: tuple[Text, ...] | None = None
    gateways: tuple[Text, ...] | None = None
    port: UInt | None = None
    source_labels: dict[str, Text] | None = None
    source_namespace: Text | None = None
    source_subnet: Text | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Addresses, port and labels as they can be."""
        yield from _networks(self.destination_subnets)
        yield from _caller(self.port, self.source_labels, self.gateways)


def _networks(subnets: tuple[str, ...] | None) -> Iterator[Flaw]:
    for number, text in enumerate(subnets or ()):
        yield from each(("destinationSubnets", number), [subnet(text)])


class TLSMatchAttributes(Shape):
    """What a TLS connection must be like; all demands must hold."""

    destination_subnets: tuple[Text, ...] | None = None
    gateways: tuple[Text, ...] | None = None
    port: UInt | None = None
    sni_hosts: tuple[Text, ...]
    source_labels: dict[str, Text] | None = None
    source_namespace: Text | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Addresses, port and labels as they can be; there is a name."""
        if not self.sni_hosts:
            yield Flaw(("sniHosts",), "a match of TLS needs a server name", "add the hosts")
        yield from _networks(self.destination_subnets)
        yield from _caller(self.port, self.source_labels, self.gateways)
