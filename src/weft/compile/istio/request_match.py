"""VirtualService ``http[].match``: what a request must look like."""

from __future__ import annotations

from typing import Final

from weft import ir
from weft.model.virtual_service import HTTPMatchRequest, StringMatch

_CLAIMS: Final = "@request.auth.claims"


def text_match(match: StringMatch | None, ignore_case: bool = False) -> ir.TextMatch:
    """A string match. None, an empty one and the regex ``*`` mean: present, whatever the value."""
    if match is None or match.regex == "*":
        return ir.TextMatch(test=ir.TextTest.PRESENT)
    if match.exact is not None:
        return ir.TextMatch(test=ir.TextTest.EXACT, value=match.exact, ignore_case=ignore_case)
    if match.prefix is not None:
        return ir.TextMatch(test=ir.TextTest.PREFIX, value=match.prefix, ignore_case=ignore_case)
    if match.regex is not None:
        return ir.TextMatch(test=ir.TextTest.REGEX, value=match.regex)
    return ir.TextMatch(test=ir.TextTest.PRESENT)


def path_match(uri: StringMatch | None, ignore_case: bool) -> ir.PathMatch:
    """A path; None matches every one."""
    if uri is None:
        return ir.PathMatch(test=ir.PathTest.PREFIX, value="/", ignore_case=ignore_case)
    if uri.exact is not None:
        return ir.PathMatch(test=ir.PathTest.EXACT, value=uri.exact, ignore_case=ignore_case)
    if uri.regex is not None:
        return ir.PathMatch(test=ir.PathTest.REGEX, value=uri.regex)
    return ir.PathMatch(test=ir.PathTest.PREFIX, value=uri.prefix or "/", ignore_case=ignore_case)


def request_match(match: HTTPMatchRequest | None) -> ir.RequestMatch:
    """What Envoy tests of a request. Gateways, ports and source labels are decided before."""
    if match is None:
        return ir.RequestMatch()
    headers = [
        ir.HeaderMatch(name=name.lower(), match=text_match(value))
        for name, value in (match.headers or {}).items()
    ]
    for name, value in (match.without_headers or {}).items():
        test = text_match(value)
        headers.append(
            ir.HeaderMatch(
                name=name.lower(),
                match=test,
                invert=True,
                missing_as_empty=test.test is not ir.TextTest.PRESENT,
            )
        )
    headers.sort(key=lambda header: header.name)
    for name, pseudo in (
        ("method", match.method),
        ("authority", match.authority),
        ("scheme", match.scheme),
    ):
        if pseudo is not None:
            headers.append(ir.HeaderMatch(name=f":{name}", match=text_match(pseudo)))
    return ir.RequestMatch(
        path=path_match(match.uri, bool(match.ignore_uri_case)),
        headers=tuple(headers),
        query=tuple(
            ir.QueryMatch(name=name, match=text_match(value))
            for name, value in (match.query_params or {}).items()
        ),
    )


def is_claim(name: str) -> bool:
    """Whether a header name stands for a claim of the request's token."""
    return name.startswith(_CLAIMS)


def matches_everything(match: ir.RequestMatch) -> bool:
    """Whether no later route can be reached."""
    path = match.path
    every = (path.test is ir.PathTest.PREFIX and path.value == "/") or (
        path.test is ir.PathTest.REGEX and path.value in {"*", ".*", "/.*"}
    )
    return every and not match.headers and not match.query
