"""Tests of a request that routes and rate limits have in common."""

from __future__ import annotations

from typing import Final

from weft.emit.scalars import text
from weft.ir.match import HeaderMatch, TextTest
from weft.protos import route_v3

# Where the JWT filter leaves the claims of a verified token.
JWT_FILTER: Final = "envoy.filters.http.jwt_authn"
PAYLOAD: Final = "payload"


def header(test: HeaderMatch) -> route_v3.HeaderMatcher:
    """A test of a header."""
    made = route_v3.HeaderMatcher(
        name=test.name,
        invert_match=test.invert,
        treat_missing_header_as_empty=test.missing_as_empty,
    )
    if test.match.test is TextTest.PRESENT:
        made.present_match = True
    else:
        made.string_match.CopyFrom(text(test.match))
    return made
