"""What a request must look like. Values are compared exactly as Envoy will compare them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class TextTest(StrEnum):
    """How a text is compared; ``REGEX`` is RE2, matched against the whole value."""

    EXACT = "exact"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    CONTAINS = "contains"
    REGEX = "regex"
    PRESENT = "present"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextMatch:
    """A test of one text. ``value`` is empty for ``PRESENT``."""

    test: TextTest
    value: str = ""
    ignore_case: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderMatch:
    """A test of one header (lower-case name, ``:method`` and ``:authority`` included).

    ``invert`` negates the test. With ``missing_as_empty`` an absent header counts as the empty
    string, so that an inverted test also matches when the header is absent (Istio's withoutHeaders).
    """

    name: str
    match: TextMatch
    invert: bool = False
    missing_as_empty: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryMatch:
    """A test of one query parameter."""

    name: str
    match: TextMatch


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimMatch:
    """A test of a claim in the request's verified token; a list matches when one of its members does.

    ``path`` leads to the claim, outermost first. ``invert`` also matches where there is no such claim.
    """

    path: tuple[str, ...]
    match: TextMatch
    invert: bool = False


class PathTest(StrEnum):
    """``PREFIX`` is plain text; ``PATH_PREFIX`` ends at a ``/`` (Gateway API PathPrefix)."""

    EXACT = "exact"
    PREFIX = "prefix"
    PATH_PREFIX = "path_prefix"
    REGEX = "regex"
    TEMPLATE = "template"


@dataclass(frozen=True, slots=True, kw_only=True)
class PathMatch:
    """A test of the path without its query. ``/`` as ``PREFIX`` matches everything."""

    test: PathTest
    value: str
    ignore_case: bool = False


EVERY_PATH = PathMatch(test=PathTest.PREFIX, value="/")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestMatch:
    """All tests must hold. ``connect``: it is a CONNECT, which has no path; others never match it.

    ``below``: the request's draw, in millionths, is below this. There is one draw a request: routes that
    follow each other with growing bounds share the requests.
    """

    path: PathMatch = EVERY_PATH
    headers: tuple[HeaderMatch, ...] = ()
    query: tuple[QueryMatch, ...] = ()
    claims: tuple[ClaimMatch, ...] = ()
    grpc: bool = False
    connect: bool = False
    below: int | None = None
