"""Route configurations: from a request's host and path to what becomes of it."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from weft.emit.filters.table import per_route
from weft.emit.packed import Once
from weft.emit.request import JWT_FILTER, PAYLOAD, header
from weft.emit.scalars import (
    boolean,
    duration,
    fraction,
    headers_to_add,
    maybe_duration,
    regex,
    shares,
    source_metadata,
    text,
    uint32,
)
from weft.ir.match import ClaimMatch, PathMatch, PathTest, QueryMatch, RequestMatch, TextTest
from weft.ir.route import (
    NO_EDIT,
    Destination,
    Forward,
    HashOn,
    HostRewriteFrom,
    Mirror,
    Redirect,
    Respond,
    Retry,
    Rewrite,
    Route,
    RouteTable,
    VirtualHost,
)
from weft.protos import (
    core_v3,
    matcher_v3,
    previous_hosts_v3,
    previous_priorities_v3,
    route_v3,
    uri_template_match_v3,
)
from weft.protos.wire import pack

CONNECT: Final = "CONNECT"
_NEVER: Final = timedelta(0)
_HOST_SELECTIONS: Final = 5  # Istio's host_selection_retry_max_attempts
_PRIORITY_UPDATES: Final = 2  # Istio's: other localities after every second try
_MISSING: Final = {404: "NOT_FOUND", 500: "INTERNAL_SERVER_ERROR", 503: "SERVICE_UNAVAILABLE"}
_CODE: Final = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}


def _query(test: QueryMatch) -> route_v3.QueryParameterMatcher:
    if test.match.test is TextTest.PRESENT:
        return route_v3.QueryParameterMatcher(name=test.name, present_match=True)
    return route_v3.QueryParameterMatcher(name=test.name, string_match=text(test.match))


def _claim(test: ClaimMatch) -> matcher_v3.MetadataMatcher:
    """A claim may be a text or a list of them, in what the JWT filter leaves behind."""
    segment = matcher_v3.MetadataMatcher.PathSegment
    made = matcher_v3.MetadataMatcher(
        filter=JWT_FILTER, path=[segment(key=key) for key in (PAYLOAD, *test.path)], invert=test.invert
    )
    if test.match.test is TextTest.PRESENT:
        made.value.present_match = True
        return made
    value = matcher_v3.ValueMatcher(string_match=text(test.match))
    members = matcher_v3.ListMatcher(one_of=value)
    made.value.or_match.value_matchers.extend((matcher_v3.ValueMatcher(list_match=members), value))
    return made


def _path(made: route_v3.RouteMatch, test: PathMatch) -> None:
    match test.test:
        case PathTest.EXACT:
            made.path = test.value
        case PathTest.PATH_PREFIX if test.value.rstrip("/"):
            made.path_separated_prefix = test.value.rstrip("/")
        case PathTest.PREFIX | PathTest.PATH_PREFIX:
            made.prefix = test.value or "/"
        case PathTest.REGEX:
            made.safe_regex.CopyFrom(regex(test.value))
        case PathTest.TEMPLATE:
            made.path_match_policy.name = "envoy.path.match.uri_template.uri_template_matcher"
            template = uri_template_match_v3.UriTemplateMatchConfig(path_template=test.value)
            made.path_match_policy.typed_config.CopyFrom(pack(template))
    if test.ignore_case:
        made.case_sensitive.CopyFrom(boolean(False))


def _match(test: RequestMatch) -> route_v3.RouteMatch:
    made = route_v3.RouteMatch(
        headers=[header(one) for one in test.headers],
        query_parameters=[_query(query) for query in test.query],
        dynamic_metadata=[_claim(claim) for claim in test.claims],
    )
    if test.connect:
        made.connect_matcher.SetInParent()
    else:
        _path(made, test.path)
    if test.grpc:
        made.grpc.SetInParent()
    if test.below is not None:
        made.runtime_fraction.default_value.CopyFrom(fraction(test.below))
    return made


def _substitute(pattern: str, substitution: str) -> matcher_v3.RegexMatchAndSubstitute:
    return matcher_v3.RegexMatchAndSubstitute(pattern=regex(pattern), substitution=substitution)


def _literal(text: str) -> str:
    """``text`` as a substitution that means itself: RE2 reads backslashes in one."""
    return text.replace("\\", "\\\\")


def _prefix_to_root(path: PathMatch, prefix: str) -> matcher_v3.RegexMatchAndSubstitute | None:
    """``/shop`` -> ``/`` must make ``/cart`` of ``/shop/cart``, where plain replacement makes ``//cart``."""
    if path.test is not PathTest.PATH_PREFIX or not prefix.endswith("/"):
        return None
    case = "(?i)" if path.ignore_case else ""
    pattern = f"{case}^{re.escape(path.value.rstrip('/'))}(/?)(.*)"
    return _substitute(pattern, f"{_literal(prefix)}\\2")


def _rewrite(made: route_v3.RouteAction, rewrite: Rewrite, path: PathMatch) -> None:
    if rewrite.full is not None:
        made.regex_rewrite.CopyFrom(_substitute("^.*$", _literal(rewrite.full)))
    elif rewrite.regex is not None:
        made.regex_rewrite.CopyFrom(_substitute(*rewrite.regex))
    elif rewrite.prefix is not None:
        to_root = _prefix_to_root(path, rewrite.prefix)
        if to_root is not None:
            made.regex_rewrite.CopyFrom(to_root)
        else:
            made.prefix_rewrite = rewrite.prefix


def _retry(retry: Retry) -> route_v3.RetryPolicy:
    made = route_v3.RetryPolicy(
        retry_on=",".join(retry.on),
        num_retries=uint32(retry.attempts),
        retriable_status_codes=retry.codes,
        per_try_timeout=maybe_duration(retry.per_try_timeout),
    )
    if retry.avoid_previous_hosts:
        made.retry_host_predicate.add(
            name="envoy.retry_host_predicates.previous_hosts",
            typed_config=pack(previous_hosts_v3.PreviousHostsPredicate()),
        )
        made.host_selection_retry_max_attempts = _HOST_SELECTIONS
    if retry.other_localities:
        made.retry_priority.name = "envoy.retry_priorities.previous_priorities"
        priorities = previous_priorities_v3.PreviousPrioritiesConfig(update_frequency=_PRIORITY_UPDATES)
        made.retry_priority.typed_config.CopyFrom(pack(priorities))
    if retry.back_off is not None:
        made.retry_back_off.base_interval.CopyFrom(duration(retry.back_off.base))
        if retry.back_off.maximum is not None:
            made.retry_back_off.max_interval.CopyFrom(duration(retry.back_off.maximum))
    return made


def _weighted(target: Destination, weight: int) -> route_v3.WeightedCluster.ClusterWeight:
    made = route_v3.WeightedCluster.ClusterWeight(
        name=target.cluster,
        weight=uint32(weight),
        request_headers_to_add=headers_to_add(target.request_headers),
        request_headers_to_remove=target.request_headers.remove,
        response_headers_to_add=headers_to_add(target.response_headers),
        response_headers_to_remove=target.response_headers.remove,
    )
    if target.host_rewrite is not None:
        made.host_rewrite_literal = target.host_rewrite
    return made


def _hash(on: HashOn) -> route_v3.RouteAction.HashPolicy:
    made = route_v3.RouteAction.HashPolicy(terminal=on.terminal)
    if on.header is not None:
        made.header.header_name = on.header
    elif on.query is not None:
        made.query_parameter.name = on.query
    elif on.cookie is not None:
        made.cookie.name = on.cookie
        made.cookie.path = on.cookie_path
        if on.cookie_ttl is not None:
            made.cookie.ttl.CopyFrom(duration(on.cookie_ttl))
        for name, value in on.cookie_attributes:
            made.cookie.attributes.add(name=name, value=value)
    else:
        made.connection_properties.source_ip = on.source_ip
    return made


def _mirror(mirror: Mirror) -> route_v3.RouteAction.RequestMirrorPolicy:
    return route_v3.RouteAction.RequestMirrorPolicy(
        cluster=mirror.cluster,
        trace_sampled=boolean(False),  # a copy is no part of the caller's trace
        disable_shadow_host_suffix_append=True,  # Istio's: a copy names the same host
        runtime_fraction=core_v3.RuntimeFractionalPercent(default_value=fraction(mirror.fraction)),
    )


def _forward(action: Forward, path: PathMatch) -> route_v3.RouteAction:
    # max_stream_duration stays unset: with it, Envoy forgets `timeout`.
    made = route_v3.RouteAction(
        timeout=duration(action.timeout or _NEVER),
        idle_timeout=maybe_duration(action.idle_timeout),
        append_x_forwarded_host=action.append_forwarded_host,
        hash_policy=[_hash(on) for on in action.hash_on],
        request_mirror_policies=[_mirror(mirror) for mirror in action.mirrors],
    )
    if not action.tunnel:
        # A gRPC client's own deadline counts, up to the route's. Deprecated, and as Istio's: what took its
        # place lets Envoy forget `timeout`.
        made.max_grpc_timeout.CopyFrom(made.timeout)
    match action.destinations:
        case (
            Destination(request_headers=request, response_headers=response, host_rewrite=None) as only,
        ) if request == NO_EDIT and response == NO_EDIT:
            made.cluster = only.cluster
        case several:
            weights = shares([target.weight for target in several])
            made.weighted_clusters.clusters.extend(map(_weighted, several, weights))
    if action.retry is not None:
        made.retry_policy.CopyFrom(_retry(action.retry))
    if action.rewrite is not None:
        _rewrite(made, action.rewrite, path)
    if action.host_rewrite is not None:
        made.host_rewrite_literal = action.host_rewrite
    elif action.host_rewrite_from is HostRewriteFrom.BACKEND:
        made.auto_host_rewrite.CopyFrom(boolean(True))
    if action.missing_status is not None:
        code = route_v3.RouteAction.ClusterNotFoundResponseCode
        made.cluster_not_found_response_code = code.Value(_MISSING[action.missing_status])
    if action.tunnel:
        made.upgrade_configs.add(upgrade_type=CONNECT).connect_config.SetInParent()
    if not action.websocket:
        made.upgrade_configs.add(upgrade_type="websocket", enabled=boolean(False))
    return made


def _redirect(action: Redirect, path: PathMatch) -> route_v3.RedirectAction:
    code = route_v3.RedirectAction.RedirectResponseCode.Value(_CODE[action.code])
    made = route_v3.RedirectAction(response_code=code)
    if action.scheme is not None:
        made.scheme_redirect = action.scheme
    if action.host is not None:
        made.host_redirect = action.host
    if action.port is not None:
        made.port_redirect = action.port
    if action.path is not None:
        made.path_redirect = action.path
    elif action.regex is not None:
        made.regex_rewrite.CopyFrom(_substitute(*action.regex))
    elif action.prefix is not None:
        to_root = _prefix_to_root(path, action.prefix)
        if to_root is not None:
            made.regex_rewrite.CopyFrom(to_root)
        else:
            made.prefix_rewrite = action.prefix
    return made


def _respond(action: Respond) -> route_v3.DirectResponseAction:
    made = route_v3.DirectResponseAction(status=action.status)
    if action.body is not None:
        made.body.inline_bytes = action.body
    return made


def _route(unit: Route) -> route_v3.Route:
    made = route_v3.Route(
        name=unit.name,
        stat_prefix=unit.stat_prefix,
        match=_match(unit.match),
        metadata=source_metadata(unit.source),
        request_headers_to_add=headers_to_add(unit.request_headers),
        request_headers_to_remove=unit.request_headers.remove,
        response_headers_to_add=headers_to_add(unit.response_headers),
        response_headers_to_remove=unit.response_headers.remove,
    )
    match unit.action:
        case Forward() as action:
            made.route.CopyFrom(_forward(action, unit.match.path))
        case Redirect() as action:
            made.redirect.CopyFrom(_redirect(action, unit.match.path))
        case Respond() as action:
            made.direct_response.CopyFrom(_respond(action))
    if unit.operation:
        made.decorator.operation = unit.operation
    for name, config in per_route(unit):
        made.typed_per_filter_config[name].CopyFrom(config)
    return made


def _virtual_host(unit: VirtualHost) -> route_v3.VirtualHost:
    tls = route_v3.VirtualHost.TlsRequirementType
    return route_v3.VirtualHost(
        name=unit.name,
        domains=unit.domains,
        routes=[_route(route) for route in unit.routes],
        request_headers_to_add=headers_to_add(unit.request_headers),
        request_headers_to_remove=unit.request_headers.remove,
        response_headers_to_add=headers_to_add(unit.response_headers),
        response_headers_to_remove=unit.response_headers.remove,
        require_tls=tls.ALL if unit.require_tls else tls.NONE,
        include_request_attempt_count=unit.count_attempts,
    )


def route_configuration(unit: RouteTable) -> route_v3.RouteConfiguration:
    """One route table. Virtual hosts that another table had, too, are not built again."""
    made = route_v3.RouteConfiguration(
        name=unit.name,
        internal_only_headers=unit.internal_only_headers,
        ignore_port_in_host_matching=unit.ignore_port_in_host,
        validate_clusters=boolean(False),
        max_direct_response_body_size_bytes=uint32(unit.max_direct_response_body_bytes),
        response_headers_to_add=headers_to_add(unit.response_headers),
        response_headers_to_remove=unit.response_headers.remove,
    )
    made.MergeFromString(b"".join([_hosts(host) for host in unit.virtual_hosts]))
    return made


def _table_of_one(unit: VirtualHost) -> bytes:
    """A virtual host as a part of a serialised table: such parts may simply be strung together."""
    return route_v3.RouteConfiguration(virtual_hosts=[_virtual_host(unit)]).SerializeToString(
        deterministic=True
    )


_hosts: Final = Once(_table_of_one)
