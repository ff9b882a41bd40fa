"""Envoy's matchers, evaluated on the messages that Envoy receives.

Each function says what Envoy would say of a text, a header, a query, a route or a value. Rules: the comments
of the API (envoy/config/route/v3, envoy/type/matcher/v3) and source/common/{http/header_utility,
router/config_impl,common/matchers}.cc; a property test holds them against a running Envoy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from weft.analysis.paths import query_parameters, template, without_query
from weft.analysis.pattern import matches

if TYPE_CHECKING:
    from weft.protos import core_v3, matcher_v3, route_v3

Values = dict[str, list[str]]
"""Header values by lower-case name, pseudo headers as ``:path`` included."""

MILLION: Final = 1_000_000
_DENOMINATORS: Final = (100, 10_000, MILLION)
_TOKENS: Final = "envoy.filters.http.jwt_authn"


@dataclass(slots=True, kw_only=True)
class Scene:
    """What the matchers of a request may look at.

    ``metadata``: dynamic metadata by filter name. ``peer``: the client's certificate, when it showed one.
    """

    headers: Values
    destination_ip: str = ""
    destination_port: int = 0
    source_ip: str = ""
    remote_ip: str = ""
    server_name: str = ""
    peer: tuple[str, ...] | None = None
    tls: bool = False
    internal: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)
    _parsed: tuple[str, dict[str, list[str]]] | None = None

    @property
    def path(self) -> str:
        """The path with its query; empty for a CONNECT."""
        return self.first(":path")

    @property
    def query(self) -> dict[str, list[str]]:
        """Parameters of the query, as they are written."""
        path = self.path
        if self._parsed is None or self._parsed[0] != path:
            self._parsed = (path, query_parameters(path))
        return self._parsed[1]

    def first(self, name: str) -> str:
        """A header's first value, else the empty text."""
        values = self.headers.get(name)
        return values[0] if values else ""


def text(matcher: matcher_v3.StringMatcher, value: str) -> bool:
    """A StringMatcher. ``ignore_case`` says nothing about regular expressions."""
    kind = matcher.WhichOneof("match_pattern")
    if kind == "safe_regex":
        return matches(matcher.safe_regex.regex, value)
    if kind is None or kind == "custom":
        return False
    wanted: str = getattr(matcher, kind)
    if matcher.ignore_case:
        wanted, value = wanted.lower(), value.lower()
    match kind:
        case "exact":
            return value == wanted
        case "prefix":
            return value.startswith(wanted)
        case "suffix":
            return value.endswith(wanted)
    return wanted in value


def header(matcher: route_v3.HeaderMatcher, headers: Mapping[str, Sequence[str]]) -> bool:
    """A HeaderMatcher. Of several values (lines) of a header one that fits is enough.

    A header that is absent matches nothing, inverted or not, unless it counts as empty; only a test of
    presence may hold then.
    """
    values = headers.get(matcher.name.lower())
    kind = matcher.WhichOneof("header_match_specifier")
    if kind in {None, "present_match"}:
        present = values is not None or matcher.treat_missing_header_as_empty
        wanted = matcher.present_match if kind else True
        return (present == wanted) != matcher.invert_match
    if values is None and not matcher.treat_missing_header_as_empty:
        return False
    return any(_value(matcher, kind, one) for one in values or ("",)) != matcher.invert_match


def _value(matcher: route_v3.HeaderMatcher, kind: str | None, value: str) -> bool:
    match kind:
        case "string_match":
            return text(matcher.string_match, value)
        case "exact_match":
            return not matcher.exact_match or value == matcher.exact_match
        case "safe_regex_match":
            return matches(matcher.safe_regex_match.regex, value)
        case "prefix_match":
            return value.startswith(matcher.prefix_match)
        case "suffix_match":
            return value.endswith(matcher.suffix_match)
        case "contains_match":
            return matcher.contains_match in value
        case "range_match":
            try:
                number = int(value)
            except ValueError:
                return False
            return matcher.range_match.start <= number < matcher.range_match.end
    return False


def query(matcher: route_v3.QueryParameterMatcher, parameters: Mapping[str, Sequence[str]]) -> bool:
    """A QueryParameterMatcher; of several values the first counts."""
    values = parameters.get(matcher.name)
    kind = matcher.WhichOneof("query_parameter_match_specifier")
    if kind == "present_match":
        return (values is not None) == matcher.present_match
    if values is None:
        return False
    return kind is None or text(matcher.string_match, values[0])


def path(match: route_v3.RouteMatch, scene: Scene, *, ignore_parameters: bool = False) -> bool:
    """The part of a RouteMatch that looks at the path (and at CONNECT, which has none)."""
    kind = match.WhichOneof("path_specifier")
    if kind == "connect_matcher":
        return scene.first(":method") == "CONNECT"
    value = without_query(scene.path)
    if ignore_parameters:
        value = value.partition(";")[0]
    if not value:
        return False
    if kind == "safe_regex":
        return matches(match.safe_regex.regex, value)
    if kind == "path_match_policy":
        return _path_policy(match.path_match_policy, value)
    if kind is None:
        return False
    wanted: str = getattr(match, kind)
    if match.HasField("case_sensitive") and not match.case_sensitive.value:
        wanted, value = wanted.lower(), value.lower()
    match kind:
        case "prefix":
            return value.startswith(wanted)
        case "path":
            return value == wanted
    return value.startswith(wanted) and (len(value) == len(wanted) or value[len(wanted)] == "/")


def _path_policy(policy: core_v3.TypedExtensionConfig, value: str) -> bool:
    from weft.protos import uri_template_match_v3

    if not policy.typed_config.type_url.endswith("UriTemplateMatchConfig"):
        return False
    config = uri_template_match_v3.UriTemplateMatchConfig.FromString(policy.typed_config.value)
    return template(config.path_template).fullmatch(value) is not None


def misfit(match: route_v3.RouteMatch, scene: Scene, *, ignore_parameters: bool = False) -> str:
    """Why a RouteMatch does not hold: ``path`` or more words; empty when it holds, chance apart."""
    if not path(match, scene, ignore_parameters=ignore_parameters):
        return "path"
    for test in match.headers:
        if not header(test, scene.headers):
            return "method" if test.name == ":method" else f"header {test.name}"
    for parameter in match.query_parameters:
        if not query(parameter, scene.query):
            return f"query parameter {parameter.name}"
    if match.HasField("grpc") and not _is_grpc(scene.first("content-type")):
        return "it is no gRPC"
    if match.cookies and not all(_cookie(test, scene) for test in match.cookies):
        return "cookies"
    if match.HasField("tls_context") and not _tls(match.tls_context, scene):
        return "the client's certificate"
    for fact in match.dynamic_metadata:
        if not metadata(fact, scene.metadata):
            keys = [part.key for part in fact.path]
            claim = fact.filter == _TOKENS and keys[:1] == ["payload"]
            return f"claim {'.'.join(keys[1:])}" if claim else f"metadata of {fact.filter}"
    return ""


def below(match: route_v3.RouteMatch) -> int:
    """Which draws fit, in millionths: those below this. One number is drawn for a request, for all routes."""
    if not match.HasField("runtime_fraction"):
        return MILLION
    return fraction(match.runtime_fraction.default_value)


def fraction(value: Any) -> int:
    """A FractionalPercent in millionths."""
    return int(value.numerator * (MILLION // _DENOMINATORS[value.denominator]))


def _is_grpc(content_type: str) -> bool:
    return content_type == "application/grpc" or content_type.startswith("application/grpc+")


def _cookie(test: Any, scene: Scene) -> bool:
    for part in "; ".join(scene.headers.get("cookie", ())).split(";"):
        name, _, value = part.strip().partition("=")
        if name == test.name:
            return bool(text(test.string_match, value.strip('"')) != test.invert_match)
    return bool(test.invert_match)


def _tls(options: Any, scene: Scene) -> bool:
    if options.HasField("presented") and options.presented.value != (scene.peer is not None):
        return False
    return not options.HasField("validated") or options.validated.value == (scene.peer is not None)


_ABSENT: Final = object()


def metadata(matcher: matcher_v3.MetadataMatcher, known: Mapping[str, Any]) -> bool:
    """A MetadataMatcher on metadata by filter name."""
    found: Any = known.get(matcher.filter, _ABSENT)
    for part in matcher.path:
        found = found.get(part.key, _ABSENT) if isinstance(found, dict) else _ABSENT
    return value(matcher.value, found) != matcher.invert


def value(matcher: matcher_v3.ValueMatcher, found: Any) -> bool:
    """A ValueMatcher on a JSON value; ``found`` may be absent."""
    kind = matcher.WhichOneof("match_pattern")
    match kind:
        case "present_match":
            return (found is not _ABSENT) == matcher.present_match
        case "null_match":
            return found is None
        case "string_match":
            return isinstance(found, str) and text(matcher.string_match, found)
        case "bool_match":
            return isinstance(found, bool) and found == matcher.bool_match
        case "double_match":
            if isinstance(found, bool) or not isinstance(found, int | float):
                return False
            if matcher.double_match.WhichOneof("match_pattern") == "exact":
                return bool(found == matcher.double_match.exact)
            return bool(matcher.double_match.range.start <= found < matcher.double_match.range.end)
        case "list_match":
            return isinstance(found, list) and any(value(matcher.list_match.one_of, item) for item in found)
        case "or_match":
            return any(value(one, found) for one in matcher.or_match.value_matchers)
    return False
