"""A request through an HTTP connection manager: route, filters, action, and the answer's way back."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from weft.analysis.explain import forward
from weft.analysis.explain.answer import Action, Answer, Failure, Target
from weft.analysis.explain.configuration import Table
from weft.analysis.explain.filters import run
from weft.analysis.explain.origins import Cause, Origins
from weft.analysis.explain.passage import Passage, Reply
from weft.analysis.explain.request import Request
from weft.analysis.explain.routing import Refusal, find, receive, upgrade_of
from weft.analysis.explain.upstream import Upstreams
from weft.analysis.match import MILLION, Scene, Values

if TYPE_CHECKING:
    from weft.protos import hcm_v3, route_v3

# From an HTTP status of the proxy's own to what a gRPC client sees (Grpc::Utility::httpToGrpcStatus).
_GRPC: Final = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
_UNKNOWN: Final = 2
_NOT_FOUND: Final = 404


def headers_of(question: Request, address: str) -> Values:
    """The request as the client sends it, pseudo headers included."""
    host, path = _target(question)
    values: Values = {
        ":method": [question.method],
        ":authority": [host or address],
        ":path": [path],
        **{name: _received(name, items) for name, items in question.headers.items()},
    }
    if question.method == "CONNECT":
        del values[":path"]
    return values


# A request target that is a whole URL (RFC 9112, section 3.2.2): its host goes before the header.
_ABSOLUTE: Final = re.compile(r"https?://(?:[^/?@]*@)?([^/?]+)(.*)", re.IGNORECASE)


def _target(question: Request) -> tuple[str, str]:
    """Host and path of a request."""
    found = _ABSOLUTE.fullmatch(question.path) if question.protocol == "http" else None
    return (found[1], found[2] or "/") if found else (question.host, question.path)


# Headers of which Envoy keeps one value: further ones are joined to it, empty ones are lost.
_SINGLE: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "access-control-request-headers",
        "access-control-request-method",
        "authentication",
        "authorization",
        "cache-control",
        "cdn-loop",
        "connection",
        "content-encoding",
        "content-type",
        "expect",
        "grpc-accept-encoding",
        "grpc-timeout",
        "if-match",
        "if-none-match",
        "keep-alive",
        "origin",
        "pragma",
        "referer",
        "te",
        "upgrade",
        "user-agent",
        "via",
        "x-forwarded-client-cert",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-request-id",
    }
)


def _received(name: str, values: Sequence[str]) -> list[str]:
    if len(values) < 2 or name not in _SINGLE:
        return list(values)
    return [",".join(value for value in values if value)]


def serve(
    hcm: hcm_v3.HttpConnectionManager,
    question: Request,
    scene: Scene,
    answer: Answer,
    upstreams: Upstreams,
    origins: Origins,
) -> None:
    """Fill the answer with what becomes of the request."""
    refusal = receive(hcm, scene, upstreams.running.decoded.open)
    if refusal is not None:
        _refuse(refusal, answer, question)
        return
    table = _table(hcm, upstreams)
    if table is None:
        answer.route_config = hcm.rds.route_config_name or None
        missing = Reply(
            status=404,
            detail=f"there is no route table {hcm.rds.route_config_name!r}",
            step="routeConfig",
            action=Action.ERROR,
            failure=Failure.NO_ROUTE,
        )
        passage = _passage(question, scene, answer, upstreams, origins)
        _finish(passage, run(list(hcm.http_filters), passage) or missing)
        return
    answer.route_config = table.config.name
    answer.say("routeConfig", table.config.name)
    passage = _passage(question, scene, answer, upstreams, origins)
    passage.table = table.config
    passage.anew = lambda: _route(table, passage)
    passage.anew()
    wanted = upgrade_of(scene)
    lost = passage.unrouted is not None and passage.unrouted.status == _NOT_FOUND
    if wanted and not lost and not _upgradable(hcm, passage.route, wanted):
        answer.redirect = None
        refused = f"an upgrade to {wanted} is not agreed to"
        _finish(passage, Reply(status=403, detail=refused, step="upgrade", action=Action.DENY))
        return
    _finish(passage, run(list(hcm.http_filters), passage) or passage.unrouted or _act(passage))
    if passage.others and passage.answer.targets:
        _divide(passage)


def _passage(
    question: Request, scene: Scene, answer: Answer, upstreams: Upstreams, origins: Origins
) -> Passage:
    return Passage(question=question, scene=scene, answer=answer, upstreams=upstreams, origins=origins)


def _refuse(refusal: Refusal, answer: Answer, question: Request) -> None:
    """The connection manager itself answers."""
    if refusal.location:
        answer.redirect = {
            **dict.fromkeys(("scheme", "host", "port")),
            "path": refusal.location,
            "code": refusal.status,
            "location": refusal.location,
        }
        answer.action, answer.status = Action.REDIRECT, refusal.status
        answer.response_headers = {"location": [refusal.location]}
        answer.say("request", refusal.reason)
        return
    answer.fail(Failure.PROTOCOL_ERROR, refusal.status, refusal.reason, "request")
    if question.is_grpc and not refusal.bare:
        answer.status, answer.grpc_status = 200, _GRPC.get(refusal.status, _UNKNOWN)


def _table(hcm: hcm_v3.HttpConnectionManager, upstreams: Upstreams) -> Table | None:
    if hcm.HasField("rds"):
        return upstreams.running.table(hcm.rds.route_config_name)
    return upstreams.running.decoded.table(hcm.route_config)


def _upgradable(hcm: hcm_v3.HttpConnectionManager, route: route_v3.Route | None, wanted: str) -> bool:
    """Whether an upgrade is on: the route's word goes before the connection manager's."""
    own = route.route.upgrade_configs if route is not None and route.HasField("route") else ()
    for row in (*own, *hcm.upgrade_configs):
        if row.upgrade_type.lower() == wanted:
            return not row.HasField("enabled") or bool(row.enabled.value)
    return False


def _route(table: Table, passage: Passage) -> None:
    """Find the route, or what is answered because none takes the request."""
    passage.host = passage.route = passage.cause = None
    passage.share, passage.others = MILLION, ()
    answer = passage.answer
    answer.virtual_host = answer.route = answer.route_name = answer.redirect = None
    passage.unrouted = _unrouted(table, passage)


def _unrouted(table: Table, passage: Passage) -> Reply | None:
    answer, scene = passage.answer, passage.scene
    found = find(table, scene, passage.open)
    authority = scene.first(":authority")
    if found.host is None:
        return Reply(
            status=404,
            detail=f"no virtual host takes {authority}",
            step="virtualHost",
            action=Action.ERROR,
            failure=Failure.NO_VIRTUAL_HOST,
        )
    passage.host = found.host
    answer.virtual_host = found.host.name
    answer.say("virtualHost", f"{found.host.name} takes {authority}")
    if found.needs_tls:
        return forward.redirect_to_tls(passage)
    for route, reason in found.near:
        answer.say("skipped", f"{_title(route, passage)} does not fit: {reason}", _cause(route, passage))
    if not found.shares:
        return Reply(
            status=404,
            detail=f"no route of {found.host.name} takes {scene.first(':method')} {scene.path}",
            step="route",
            action=Action.ERROR,
            failure=Failure.NO_ROUTE,
        )
    route, share = max(found.shares, key=lambda entry: entry[1])
    passage.route, passage.share = route, share
    passage.others = tuple(entry for entry in found.shares if entry[0] is not route)
    passage.cause = answer.route = _cause(route, passage)
    answer.route_name = route.name or None
    answer.say("route", _title(route, passage), passage.cause)
    return None


def _cause(route: route_v3.Route, passage: Passage) -> Cause | None:
    return passage.origins.cause(route.metadata if route.HasField("metadata") else None, section="http")


def _title(route: route_v3.Route, passage: Passage) -> str:
    cause = _cause(route, passage)
    words = _words(route.match)
    return f"{cause}: {words}" if cause else f"{route.name or 'a route'}: {words}"


def _words(match: route_v3.RouteMatch) -> str:
    """A match in short: ``prefix /shop, header end-user``."""
    kind = match.WhichOneof("path_specifier") or "nothing"
    value: Any = getattr(match, kind, "")
    if kind == "safe_regex":
        value = value.regex
    elif kind in {"connect_matcher", "path_match_policy", "nothing"}:
        value = ""
    words = [f"{kind.replace('_', ' ')} {value}".strip()]
    words += [f"header {test.name}" for test in match.headers]
    words += [f"query parameter {test.name}" for test in match.query_parameters]
    return ", ".join(words)


def _act(passage: Passage) -> Reply | None:
    """The router: what the route does."""
    route = passage.route
    assert route is not None
    match route.WhichOneof("action"):
        case "redirect" | "direct_response":
            return forward.respond(passage, route)
        case "route":
            return forward.send(passage, route)
    return Reply(
        status=404,
        detail="the route does nothing that is known",
        step="route",
        action=Action.ERROR,
        failure=Failure.NO_ROUTE,
    )


def _divide(passage: Passage) -> None:
    """Chance decides between several routes: what the others do becomes a part of the destinations."""
    whole = [(entry, Fraction(passage.share, MILLION)) for entry in _weighed(passage.answer.targets)]
    for route, share in passage.others:
        answer = Answer()
        other = replace(
            passage, answer=answer, route=route, cause=_cause(route, passage), on_answer=[], others=()
        )
        reply = _act(other)
        passage.answer.say("share", f"{share / 10_000:g}%: {_title(route, passage)}", other.cause)
        if not answer.targets and reply is not None:
            outcome = {"action": reply.action.value, "status": reply.status, "redirect": answer.redirect}
            answer.targets = [Target(cluster=None, outcome=outcome)]
        made = _weighed(answer.targets)
        if len(made) == 1:
            one, part = made[0]
            made = [(replace(one, request=one.request or answer.request), part)]
        whole += [((target, part), Fraction(share, MILLION)) for target, part in made]
    exact = [part * share for (_, part), share in whole]
    scale = math.lcm(*(weight.denominator for weight in exact))
    numbers = [int(weight * scale) for weight in exact]
    common = math.gcd(*numbers) or 1
    passage.answer.targets = [
        replace(target, weight=number // common)
        for ((target, _), _), number in zip(whole, numbers, strict=True)
    ]


def _weighed(targets: list[Target]) -> list[tuple[Target, Fraction]]:
    total = sum(target.weight for target in targets) or 1
    return [(target, Fraction(target.weight, total)) for target in targets]


def _finish(passage: Passage, reply: Reply | None) -> None:
    """The answer on its way back to the client: the upstream's, or the proxy's own."""
    answer, question = passage.answer, passage.question
    if reply is None:
        before: Values = {name: list(values) for name, values in question.answer_headers.items()}
        answer.status = question.answer_status
        if question.is_grpc:
            said = question.answer_headers.get("grpc-status", ("0",))[0]
            answer.grpc_status = int(said) if said.isdecimal() else _UNKNOWN
        after = {name: list(values) for name, values in before.items()}
        answer.say("outcome", f"the upstream's {question.answer_status} goes back")
    else:
        before = {}
        after = {name: [value] for name, value in reply.headers}
        answer.action, answer.status = reply.action, reply.status
        answer.error = reply.failure.value if reply.failure else None
        # Whoever answers, a forwarding route's changes are made; other routes change their own answers only.
        own = reply.local if passage.forwards else reply.step == "route" and not reply.failure
        if own and passage.route is not None:
            forward.edit_response(passage, after, forward.only_part(passage))
        if question.is_grpc and reply.local:
            code = reply.grpc_status
            answer.status = 200
            answer.grpc_status = _GRPC.get(reply.status, _UNKNOWN) if code is None else code
        answer.say("outcome", reply.detail, passage.cause)
    for change in passage.on_answer:
        change(after)
    answer.response_headers = after
    answer.response_removed = sorted(name for name in before if name not in after)
