"""What a route does with a request: send it on changed, answer it, or point elsewhere.

Rules: envoy source/common/router/config_impl.cc (finalizeRequestHeaders, newUri).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from weft.analysis import paths
from weft.analysis.explain.answer import Action, Failure, Target
from weft.analysis.explain.configuration import without_port
from weft.analysis.explain.deadline import deadline, tell
from weft.analysis.explain.edits import edit, fill
from weft.analysis.explain.passage import Passage, Reply, duration
from weft.analysis.match import MILLION, Values, fraction
from weft.analysis.pattern import substitute
from weft.names import (
    BLACKHOLE_CLUSTER,
    BLOCK_ALL,
    INBOUND_PASSTHROUGH_CLUSTER,
    PASSTHROUGH_CLUSTER,
)

if TYPE_CHECKING:
    from weft.protos import route_v3

_REDIRECTS: Final = {0: 301, 1: 302, 2: 303, 3: 307, 4: 308}


def levels(passage: Passage) -> list[Any]:
    """Who may change headers, in the order in which they do: the route first, the whole table last."""
    found = [level for level in (passage.route, passage.host, passage.table) if level is not None]
    if passage.table is not None and passage.table.most_specific_header_mutations_wins:
        found.reverse()
    return found


def edit_response(passage: Passage, values: Values, target: Any = None) -> None:
    """Change an answer as the route, its virtual host and its table say."""
    ordered = levels(passage)
    if target is not None:
        first = ordered and ordered[0] is passage.route
        ordered = [target, *ordered] if first else [*ordered, target]
    for level in ordered:
        edit(values, level.response_headers_to_remove, level.response_headers_to_add, passage.scene)


def only_part(passage: Passage) -> Any:
    """The weighted cluster that gets all requests of a route, if there is just one."""
    if not passage.forwards or passage.route is None:
        return None
    parts = passage.route.route.weighted_clusters.clusters
    return parts[0] if len(parts) == 1 else None


def respond(passage: Passage, route: route_v3.Route) -> Reply:
    """An answer of the route's own, or a redirect."""
    if route.HasField("redirect"):
        return _redirect(passage, route)
    status = route.direct_response.status
    blocked = passage.host is not None and passage.host.name == BLOCK_ALL
    detail = f"the route answers {status} itself"
    if blocked:
        detail = f"nobody declared the host, and only declared ones may be called: {status}"
    return Reply(
        status=status,
        detail=detail,
        step="route",
        action=Action.BLACKHOLE if blocked else Action.DIRECT,
    )


def _redirect(passage: Passage, route: route_v3.Route) -> Reply:
    config, scene = route.redirect, passage.scene
    scheme = config.scheme_redirect or ("https" if config.https_redirect else "")
    said = scene.first(":scheme")
    new_scheme = scheme or said
    port = config.port_redirect or None
    host = config.host_redirect or None
    final_host = host or scene.first(":authority")
    if not host:
        bare = without_port(final_host)
        own = final_host[len(bare) :]
        proto = scene.first("x-forwarded-proto")
        usual = {"http": ":80", "https": ":443"}.get(proto)
        if port or (new_scheme != proto and own == usual):
            final_host = bare
    before = scene.path
    after = before
    bare_path, query = paths.split_query(before)
    match config.WhichOneof("path_rewrite_specifier"):
        case "path_redirect":
            new = config.path_redirect
            after = new if "?" in new else new + query
        case "prefix_rewrite":
            after = _with_prefix(route.match, bare_path, config.prefix_rewrite) + query
        case "regex_rewrite":
            rule = config.regex_rewrite
            after = substitute(rule.pattern.regex, rule.substitution, bare_path) + query
    if config.strip_query and not config.path_redirect:
        after = after.partition("?")[0]
    code = _REDIRECTS[config.response_code]
    location = f"{new_scheme}://{final_host}{f':{port}' if port else ''}{after}"
    passage.answer.redirect = {
        "scheme": scheme or None,
        "host": host,
        "port": port,
        "path": after if after != before else None,
        "code": code,
        "location": location,
    }
    return Reply(
        status=code,
        detail=f"{code}, see {location}",
        step="route",
        action=Action.REDIRECT,
        headers=(("location", location),),
    )


def redirect_to_tls(passage: Passage) -> Reply:
    """The virtual host takes requests inside TLS only."""
    location = f"https://{passage.scene.first(':authority')}{passage.scene.path}"
    passage.answer.redirect = {
        "scheme": "https",
        "host": None,
        "port": None,
        "path": None,
        "code": 301,
        "location": location,
    }
    return Reply(
        status=301,
        detail=f"only TLS is taken here: see {location}",
        step="virtualHost",
        action=Action.REDIRECT,
        failure=Failure.TLS_REDIRECT,
        headers=(("location", location),),
    )


def _with_prefix(match: route_v3.RouteMatch, path: str, new: str) -> str:
    """``path`` with what the match matched replaced."""
    kind = match.WhichOneof("path_specifier")
    if kind in {"prefix", "path_separated_prefix"}:
        return new + path[len(getattr(match, kind)) :]
    return new


def send(passage: Passage, route: route_v3.Route) -> Reply | None:
    """Send the request on; a reply when there is nowhere to send it."""
    action, answer = route.route, passage.answer
    chosen = _chosen(passage, action)
    if isinstance(chosen, Reply):
        return chosen
    before = dict(passage.scene.headers)
    targets: list[Target] = []
    weighted: dict[str, Any] = {}
    for name, weight, part in chosen:
        missing = int(action.cluster_not_found_response_code)
        target = passage.upstreams.target(name, weight, missing, asked=passage.asks)
        if part is not None and _has_edits(part):
            values = _request(passage, route, part)
            target = replace(target, request=_shown(before, values))
        weighted.setdefault(name, part)
        targets.append(target)
    answer.targets = targets
    ready = [target for target in targets if target.failure is None and target.weight]
    answer.mirrors = _mirrors(passage, action)
    _limits(passage, action)
    main = (ready or targets)[0] if targets else None
    part = weighted.get(main.cluster) if main is not None and main.cluster is not None else None
    after = _request(passage, route, part)
    answer.request = _shown(before, after)
    for target in targets:
        share = f" ({target.weight})" if len(targets) > 1 else ""
        gone = f": {target.failure.value}" if target.failure else ""
        cause = passage.cause or passage.upstreams.declared(str(target.cluster))
        answer.say("cluster", f"{target.cluster}{share}{gone}", cause)
    if not ready:
        answer.request = None
        failure = targets[0].failure if targets and targets[0].failure else Failure.NO_CLUSTER
        status = (targets[0].status if targets else None) or 503
        return Reply(
            status=status,
            detail="no healthy upstream"
            if failure is Failure.NO_HEALTHY_UPSTREAM
            else "there is no such cluster",
            step="cluster",
            action=Action.ERROR,
            failure=failure,
        )
    assert main is not None
    assert main.cluster is not None
    answer.action = _action_of(main.cluster)
    if answer.action is Action.BLACKHOLE:
        return Reply(
            status=503, detail="nothing is behind this cluster", step="cluster", action=Action.BLACKHOLE
        )
    passage.on_answer.append(lambda values: edit_response(passage, values, part))
    return None


def _action_of(cluster: str) -> Action:
    if cluster in {PASSTHROUGH_CLUSTER, INBOUND_PASSTHROUGH_CLUSTER}:
        return Action.PASSTHROUGH
    return Action.BLACKHOLE if cluster == BLACKHOLE_CLUSTER else Action.FORWARD


def _chosen(passage: Passage, action: route_v3.RouteAction) -> list[tuple[str, int, Any]] | Reply:
    """Clusters with their weights and what is said of each; those of weight zero are left out."""
    match action.WhichOneof("cluster_specifier"):
        case "cluster":
            return [(action.cluster, 1, None)]
        case "weighted_clusters":
            parts = action.weighted_clusters.clusters
            found = [
                (part.name or passage.scene.first(part.cluster_header.lower()), part.weight.value, part)
                for part in parts
                if part.weight.value
            ]
            if found:
                return found
        case "cluster_header":
            name = passage.scene.first(action.cluster_header.lower())
            if name:
                return [(name, 1, None)]
    return Reply(
        status=503,
        detail="the route names no cluster",
        step="route",
        action=Action.ERROR,
        failure=Failure.NO_CLUSTER,
    )


def _has_edits(part: Any) -> bool:
    return bool(part.request_headers_to_add or part.request_headers_to_remove or part.host_rewrite_literal)


def _request(passage: Passage, route: route_v3.Route, part: Any) -> Values:
    """The request as it leaves; the passage's own stays."""
    action, scene = route.route, passage.scene
    values: Values = {name: list(items) for name, items in scene.headers.items()}
    ordered = levels(passage)
    if part is not None:
        first = ordered and ordered[0] is route
        ordered = [part, *ordered] if first else [*ordered, part]
    tell(values, passage, action)
    for level in ordered:
        edit(values, level.request_headers_to_remove, level.request_headers_to_add, scene)
    _rewrite_host(values, action, part, silent=passage.silent)
    _rewrite_path(values, route, passage)
    if passage.host is not None and passage.host.include_request_attempt_count:
        values["x-envoy-attempt-count"] = ["1"]
    return values


def _rewrite_host(values: Values, action: route_v3.RouteAction, part: Any, *, silent: bool) -> None:
    if part is not None and part.host_rewrite_literal:
        values[":authority"] = [part.host_rewrite_literal]  # and the route's own still comes after it
    old = values.get(":authority", [""])[0]
    new = ""
    match action.WhichOneof("host_rewrite_specifier"):
        case "host_rewrite_literal":
            new = action.host_rewrite_literal
        case "host_rewrite_header":
            new = next(iter(values.get(action.host_rewrite_header.lower(), ())), "")
        case "host_rewrite_path_regex":
            rule = action.host_rewrite_path_regex
            bare = paths.split_query(values.get(":path", [""])[0])[0]
            new = substitute(rule.pattern.regex, rule.substitution, bare)
        case "auto_host_rewrite" if action.auto_host_rewrite.value:
            return  # the endpoint's own name, known once one is chosen
    if not new:
        return
    values[":authority"] = [new]
    if not silent:
        values["x-envoy-original-host"] = [old]
    if action.append_x_forwarded_host and old != new:
        said = values.get("x-forwarded-host")
        values["x-forwarded-host"] = [",".join((*said, old))] if said else [old]


def _rewrite_path(values: Values, route: route_v3.Route, passage: Passage) -> None:
    action = route.route
    if ":path" not in values:
        return
    old = values[":path"][0]
    bare, query = paths.split_query(old)
    new = old
    if action.prefix_rewrite:
        new = _with_prefix(route.match, bare, action.prefix_rewrite) + query
    elif action.HasField("regex_rewrite"):
        rule = action.regex_rewrite
        new = substitute(rule.pattern.regex, rule.substitution, bare) + query
    elif action.HasField("path_rewrite_policy"):
        config = passage.open(action.path_rewrite_policy.typed_config)
        policy = passage.open(route.match.path_match_policy.typed_config)
        if config is not None and policy is not None:
            new = paths.fill_template(policy.path_template, config.path_template_rewrite, bare) + query
    elif action.path_rewrite:
        new = fill(action.path_rewrite, passage.scene) + query
    else:
        return
    if not passage.silent:
        values["x-envoy-original-path"] = [old]
    values[":path"] = [new]


_PSEUDO: Final = frozenset({":method", ":path", ":authority", ":scheme", ":protocol"})


def _shown(before: Values, after: Values) -> dict[str, Any]:
    return {
        "host": after.get(":authority", [None])[0],
        "path": after.get(":path", [None])[0],
        "method": after.get(":method", [None])[0],
        "headers": {name: values for name, values in after.items() if name not in _PSEUDO},
        "removed": sorted(name for name in before if name not in after),
    }


def _mirrors(passage: Passage, action: route_v3.RouteAction) -> list[dict[str, Any]]:
    policies: Iterable[Any] = action.request_mirror_policies
    for level in (passage.host, passage.table):
        if not policies and level is not None:
            policies = level.request_mirror_policies
    found = []
    for policy in policies:
        share = MILLION
        if policy.HasField("runtime_fraction"):
            share = fraction(policy.runtime_fraction.default_value)
        target = passage.upstreams.target(policy.cluster)
        found.append(
            {
                "service": target.service,
                "namespace": target.namespace,
                "port": target.port,
                "subset": target.subset,
                "percent": share / 10_000,
                "cluster": policy.cluster,
            }
        )
        passage.answer.say("mirror", f"{share / 10_000:g}% also to {policy.cluster}", passage.cause)
    return found


def _limits(passage: Passage, action: route_v3.RouteAction) -> None:
    """How long it may take, and what is tried again."""
    answer = passage.answer
    answer.timeout = deadline(passage, action)
    policy = action.retry_policy if action.HasField("retry_policy") else None
    if policy is None and passage.host is not None and passage.host.HasField("retry_policy"):
        policy = passage.host.retry_policy
    if policy is None or not policy.retry_on:
        return
    answer.retries = {
        "attempts": policy.num_retries.value if policy.HasField("num_retries") else 1,
        "on": [word.strip() for word in policy.retry_on.split(",") if word.strip()],
        "codes": list(policy.retriable_status_codes),
        "perTryTimeout": duration(policy.per_try_timeout) if policy.HasField("per_try_timeout") else None,
    }
