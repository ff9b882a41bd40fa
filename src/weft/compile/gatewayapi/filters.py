"""``filters`` of HTTPRoutes and GRPCRoutes: what happens to a request on its way, and to its answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from weft import ir
from weft.model.http_route import (
    HTTPCORSFilter,
    HTTPExternalAuthFilter,
    HTTPPathModifier,
    HTTPRequestRedirectFilter,
    HTTPRouteFilter,
    HTTPURLRewriteFilter,
)
from weft.model.route import HTTPHeader, HTTPHeaderFilter, HTTPRequestMirrorFilter, RouteFilter
from weft.units import MILLIONTHS

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_MAX_AGE: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """The filters of a rule or a backend, at most one of each kind, but for mirrors and authorizers.

    ``host`` is a Host set among the request's headers, which Envoy changes elsewhere. ``unknown``: one that
    is none of ours; whoever meets it must get an error.
    """

    request: ir.HeaderEdit = ir.NO_EDIT
    response: ir.HeaderEdit = ir.NO_EDIT
    host: str | None = None
    redirect: HTTPRequestRedirectFilter | None = None
    rewrite: HTTPURLRewriteFilter | None = None
    mirrors: tuple[HTTPRequestMirrorFilter, ...] = ()
    cors: HTTPCORSFilter | None = None
    external: tuple[HTTPExternalAuthFilter, ...] = ()
    unknown: bool = False

    @property
    def beyond_weights(self) -> bool:
        """Whether a backend with these needs a route of its own: its share of a route has headers only."""
        path = self.rewrite is not None and self.rewrite.path is not None
        answers = self.redirect is not None or self.cors is not None
        return path or answers or bool(self.mirrors) or bool(self.external)


NO_FILTERS: Final = Filters()


def filters_of(filters: Iterable[RouteFilter] | None) -> Filters:
    """Sort them by kind."""
    if not filters:
        return NO_FILTERS
    request = response = ir.NO_EDIT
    host: str | None = None
    redirect: HTTPRequestRedirectFilter | None = None
    rewrite: HTTPURLRewriteFilter | None = None
    mirrors: list[HTTPRequestMirrorFilter] = []
    cors: HTTPCORSFilter | None = None
    external: list[HTTPExternalAuthFilter] = []
    unknown = False
    for item in filters:
        if item.request_header_modifier is not None:
            request, host = header_edit(item.request_header_modifier), host_of(item.request_header_modifier)
        elif item.response_header_modifier is not None:
            response = header_edit(item.response_header_modifier)
        elif item.request_mirror is not None:
            mirrors.append(item.request_mirror)
        elif not isinstance(item, HTTPRouteFilter) or item.extension_ref is not None:
            unknown = True
        elif item.request_redirect is not None:
            redirect = item.request_redirect
        elif item.url_rewrite is not None:
            rewrite = item.url_rewrite
        elif item.cors is not None:
            cors = item.cors
        elif item.external_auth is not None:
            external.append(item.external_auth)
        else:
            unknown = True
    return Filters(
        request=request,
        response=response,
        host=(rewrite.hostname if rewrite is not None else None) or host,
        redirect=redirect,
        rewrite=rewrite,
        mirrors=tuple(mirrors),
        cors=cors,
        external=tuple(external),
        unknown=unknown,
    )


def header_edit(header: HTTPHeaderFilter) -> ir.HeaderEdit:
    """``set``, ``add``, ``remove``. Of a name written twice the first holds; Host is no header to Envoy."""
    return ir.HeaderEdit(
        set=_values(header.set),
        add=_values(header.add),
        remove=tuple(name for name in header.remove or () if name.lower() != "host"),
    )


def host_of(header: HTTPHeaderFilter) -> str | None:
    """The value of a Host that is set."""
    headers = (*(header.set or ()), *(header.add or ()))
    return next((item.value for item in headers if item.name.lower() == "host"), None)


def _values(headers: tuple[HTTPHeader, ...] | None) -> tuple[tuple[str, str], ...]:
    """Names and values. A ``%`` is doubled: Envoy would read a command in it."""
    found: dict[str, tuple[str, str]] = {}
    for item in headers or ():
        found.setdefault(item.name.lower(), (item.name, item.value.replace("%", "%%")))
    found.pop("host", None)
    return tuple(found.values())


def then(first: ir.HeaderEdit, second: ir.HeaderEdit) -> ir.HeaderEdit:
    """One edit that does what ``first`` and then ``second`` do."""
    if second == ir.NO_EDIT:
        return first
    gone = {name.lower() for name in second.remove}
    over = gone | {name.lower() for name, _ in second.set}
    return ir.HeaderEdit(
        set=(*(pair for pair in first.set if pair[0].lower() not in over), *second.set),
        add=(*(pair for pair in first.add if pair[0].lower() not in over), *second.add),
        remove=tuple(dict.fromkeys((*first.remove, *second.remove))),
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
    if full is None and prefix is None and regex is None:
        return None
    return ir.Rewrite(prefix=prefix, full=full, regex=regex)


def _path(
    modifier: HTTPPathModifier | None, path: ir.PathMatch
) -> tuple[str | None, str | None, tuple[str, str] | None]:
    """(full, prefix, regex). Elements of a path are replaced: no slash is lost, and none stands twice."""
    if modifier is None:
        return None, None, None
    if str(modifier.type) == "ReplaceFullPath":
        return modifier.replace_full_path or "/", None, None
    new = (modifier.replace_prefix_match or "").rstrip("/")
    if path.test is ir.PathTest.PREFIX:  # every path: its own slash follows what is put in front
        return None, f"{new}/" if new else None, None
    if not new:
        return None, None, (f"^{quoted(path.value)}/*", "/")
    return None, new, None


def quoted(text: str) -> str:
    """Text as an RE2 pattern."""
    return "".join(f"\\{char}" if not (char.isalnum() or char in "_/-") else char for char in text)


def mirror_fraction(mirror: HTTPRequestMirrorFilter) -> int:
    """The share of requests in millionths; everything unless said otherwise."""
    if mirror.percent is not None:
        return mirror.percent * MILLIONTHS // 100
    if mirror.fraction is not None:
        return mirror.fraction.numerator * MILLIONTHS // (mirror.fraction.denominator or 100)
    return MILLIONTHS


def cors_of(rule: HTTPCORSFilter | None) -> ir.Cors | None:
    """Cross-origin rules; a ``*`` in an origin stands for any text.

    With credentials no answer may bear a ``*``. Envoy names the method and the headers that were asked for;
    of what is exposed nothing was asked, so there a ``*`` is left out.
    """
    if rule is None:
        return None
    expose = tuple(str(header) for header in rule.expose_headers or ())
    return ir.Cors(
        origins=tuple(_origin(str(origin)) for origin in rule.allow_origins or ()),
        methods=tuple(str(method) for method in rule.allow_methods or ()),
        headers=tuple(str(header) for header in rule.allow_headers or ()),
        expose=tuple(name for name in expose if name != "*") if rule.allow_credentials else expose,
        max_age=timedelta(seconds=rule.max_age) if rule.max_age else _MAX_AGE,
        credentials=rule.allow_credentials,
        forward_unmatched_preflights=False,
    )


def _origin(origin: str) -> ir.TextMatch:
    if "*" not in origin:
        return ir.TextMatch(test=ir.TextTest.EXACT, value=origin)
    pattern = ".*".join(quoted(part) for part in origin.split("*"))
    return ir.TextMatch(test=ir.TextTest.REGEX, value=pattern)
