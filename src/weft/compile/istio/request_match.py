"""VirtualService ``http[].match``: what a request must look like."""

from __future__ import annotations

from typing import Final

from weft import ir
from weft.model.virtual_service import HTTPMatchRequest, StringMatch

_CLAIMS: Final = "@request.auth.claims"
_NO_CLAIM: Final[tuple[str, ...]] = ()


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
    headers: list[ir.HeaderMatch] = []
    claims: list[ir.ClaimMatch] = []
    for name, value in (match.headers or {}).items():
        if path := claim_path(name):
            claims.append(ir.ClaimMatch(path=path, match=text_match(value)))
        else:
            headers.append(ir.HeaderMatch(name=name.lower(), match=text_match(value)))
    for name, value in (match.without_headers or {}).items():
        test = text_match(value)
        if path := claim_path(name):
            claims.append(ir.ClaimMatch(path=path, match=test, invert=True))
            continue
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
        claims=tuple(sorted(claims, key=lambda claim: claim.path)),
    )


def claim_path(name: str) -> tuple[str, ...]:
    """What a header name that stands for a claim leads to; empty for other names (istio pkg/jwt).

    ``@request.auth.claims.a.b`` and ``@request.auth.claims[a][b]`` lead to ``b`` in ``a``.
    """
    if not name.lower().startswith(_CLAIMS):
        return _NO_CLAIM
    rest = name[len(_CLAIMS) :]
    if rest.startswith(".") and len(rest) > 1:
        return tuple(rest[1:].split("."))
    if rest.startswith("[") and rest.endswith("]") and len(rest) > 2:
        return tuple(rest[1:-1].split("]["))
    return _NO_CLAIM


def matches_everything(match: ir.RequestMatch) -> bool:
    """Whether no later route can be reached, as far as Istio looks (``/.*`` is no such match to it)."""
    path = match.path
    every = (path.test is ir.PathTest.PREFIX and path.value == "/") or (
        path.test is ir.PathTest.REGEX and path.value == ".*"
    )
    return every and not match.headers and not match.query and not match.claims
