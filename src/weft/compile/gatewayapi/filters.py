"""HTTPRoute ``filters``: what happens to a request on its way, and to the answer on its way back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from weft import ir
from weft.model.http_route import (
    HTTPCORSFilter,
    HTTPPathModifier,
    HTTPRequestRedirectFilter,
    HTTPRouteFilter,
    HTTPURLRewriteFilter,
)
from weft.model.route import HTTPHeaderFilter, HTTPRequestMirrorFilter
from weft.units import MILLIONTHS

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """The filters of a rule or a backend, at most one of each kind, but for mirrors."""

    request: ir.HeaderEdit = ir.NO_EDIT
    response: ir.HeaderEdit = ir.NO_EDIT
    redirect: HTTPRequestRedirectFilter | None = None
    rewrite: HTTPURLRewriteFilter | None = None
    mirrors: tuple[HTTPRequestMirrorFilter, ...] = ()
    cors: HTTPCORSFilter | None = None
    unknown: bool = False


def filters_of(filters: Iterable[HTTPRouteFilter] | None) -> Filters:
    """Sort them by kind. ``unknown``: one that is none of ours; such a rule must answer 500."""
    request = response = ir.NO_EDIT
    redirect: HTTPRequestRedirectFilter | None = None
    rewrite: HTTPURLRewriteFilter | None = None
    mirrors: list[HTTPRequestMirrorFilter] = []
    cors: HTTPCORSFilter | None = None
    unknown = False
    for item in filters or ():
        match str(item.type):
            case "RequestHeaderModifier":
                request = header_edit(item.request_header_modifier)
            case "ResponseHeaderModifier":
                response = header_edit(item.response_header_modifier)
            case "RequestRedirect":
                redirect = item.request_redirect
            case "URLRewrite":
                rewrite = item.url_rewrite
            case "RequestMirror" if item.request_mirror is not None:
                mirrors.append(item.request_mirror)
            case "CORS":
                cors = item.cors
            case _:
                unknown = True
    return Filters(
        request=request,
        response=response,
        redirect=redirect,
        rewrite=rewrite,
        mirrors=tuple(mirrors),
        cors=cors,
        unknown=unknown,
    )


def header_edit(header: HTTPHeaderFilter | None) -> ir.HeaderEdit:
    """``set``, ``add`` and ``remove``."""
    if header is None:
        return ir.NO_EDIT
    return ir.HeaderEdit(
        set=tuple((item.name, item.value) for item in header.set or ()),
        add=tuple((item.name, item.value) for item in header.add or ()),
        remove=tuple(header.remove or ()),
    )


def redirect_of(rule: HTTPRequestRedirectFilter, path: ir.PathMatch, port: int, tls: bool) -> ir.Redirect:
    """Another address. Without a port: the scheme's own if a scheme is given, else the listener's."""
    scheme = str(rule.scheme) if rule.scheme else None
    number = rule.port
    if number is None:
        number = _DEFAULT_PORTS.get(scheme, port) if scheme else port
    if number == _DEFAULT_PORTS[scheme or ("https" if tls else "http")]:
        number = None
    full, prefix, regex = _path(rule.path, path)
    return ir.Redirect(
        code=rule.status_code or 302,
        scheme=scheme,
        host=rule.hostname or None,
        port=number,
        path=full,
        prefix=prefix,
        regex=regex,
    )


def rewrite_of(rule: HTTPURLRewriteFilter | None, path: ir.PathMatch) -> ir.Rewrite | None:
    """How the path changes; the host name is the route's business."""
    if rule is None or rule.path is None:
        return None
    full, prefix, regex = _path(rule.path, path)
    return ir.Rewrite(prefix=prefix, full=full, regex=regex)


def _path(
    modifier: HTTPPathModifier | None, path: ir.PathMatch
) -> tuple[str | None, str | None, tuple[str, str] | None]:
    """(full, prefix, regex). A prefix replaced by ``/`` or nothing must not leave ``//`` behind."""
    if modifier is None:
        return None, None, None
    if str(modifier.type) == "ReplaceFullPath":
        return modifier.replace_full_path or "/", None, None
    new = (modifier.replace_prefix_match or "/").rstrip("/")
    if path.test is ir.PathTest.PATH_PREFIX and not new:
        return None, None, (f"^{_quoted(path.value)}/*", "/")
    return None, new or "/", None


def _quoted(text: str) -> str:
    """Text as an RE2 pattern."""
    return "".join(f"\\{char}" if not (char.isalnum() or char in "_/-") else char for char in text)


def mirror_fraction(mirror: HTTPRequestMirrorFilter) -> int:
    """The share of requests in millionths; everything unless said otherwise."""
    if mirror.percent is not None:
        return mirror.percent * (MILLIONTHS // 100)
    if mirror.fraction is not None:
        return mirror.fraction.numerator * MILLIONTHS // (mirror.fraction.denominator or 100)
    return MILLIONTHS


def cors_of(rule: HTTPCORSFilter | None) -> ir.Cors | None:
    """Cross-origin rules; a ``*`` in an origin stands for any text."""
    if rule is None:
        return None
    return ir.Cors(
        origins=tuple(_origin(str(origin)) for origin in rule.allow_origins or ()),
        methods=tuple(str(method) for method in rule.allow_methods or ()),
        headers=tuple(str(header) for header in rule.allow_headers or ()),
        expose=tuple(str(header) for header in rule.expose_headers or ()),
        max_age=timedelta(seconds=rule.max_age if rule.max_age is not None else 5),
        credentials=rule.allow_credentials,
        forward_unmatched_preflights=False,
    )


def _origin(origin: str) -> ir.TextMatch:
    if "*" not in origin:
        return ir.TextMatch(test=ir.TextTest.EXACT, value=origin)
    pattern = ".*".join(_quoted(part) for part in origin.split("*"))
    return ir.TextMatch(test=ir.TextTest.REGEX, value=pattern)
