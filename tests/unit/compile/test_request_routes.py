"""HTTPRoutes and GRPCRoutes at a gateway: order, filters at each level, shares, sessions, what leads nowhere."""

# ruff: noqa: E501  (resources stand on one line)

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.support.compiled import forward, host, identity, proxy, resources, service, table, world

from weft import ir
from weft.compile.gatewayapi.rivals import settled
from weft.compile.proxy import compile_proxy
from weft.model.resource import Key
from weft.names import table_name

NODE, LABELS = "router~10.0.0.3~edge-1.default", {"gateway.networking.k8s.io/gateway-name": "edge"}
WEB, API = service("web", 80), service("api", 80)
OF_WEB, OF_API = "outbound|80||web.default.svc.cluster.local", "outbound|80||api.default.svc.cluster.local"
GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec: {gatewayClassName: weft, listeners: [{name: http, port: 80, protocol: HTTP}]}
"""
MILLION = 1_000_000


def route(rules: str, name: str = "web", more: str = "", kind: str = "HTTPRoute", created: str = "") -> str:
    when = f", creationTimestamp: '{created}'" if created else ""
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: {name}{when}}}
spec:
  parentRefs: [{{name: edge}}]
  rules: {rules}
  {more}
"""


def made(*texts: str, at: str = "*") -> tuple[ir.Route, ...]:
    of = proxy(world(WEB, API, GATEWAY, *texts), NODE, labels=LABELS)
    return host(next(one for one in of.routes if table_name(one.name) == "http.80"), at).routes


def routes(rules: str, kind: str = "HTTPRoute") -> tuple[ir.Route, ...]:
    return made(route(rules, kind=kind))


def problems(*texts: str) -> dict[str, str]:
    return {
        problem.path: problem.message
        for problem in compile_proxy(world(WEB, API, GATEWAY, *texts), identity(NODE, LABELS))[1]
    }


TO_WEB = "backendRefs: [{name: web, port: 80}]"


def test_a_call_is_a_path_and_the_longest_service_goes_first() -> None:
    found = routes(
        f"""
  - {{{TO_WEB}}}
  - {{matches: [{{method: {{type: RegularExpression, service: "a|b"}}}}], {TO_WEB}}}
  - {{matches: [{{method: {{service: shop.Orders}}}}, {{method: {{service: shop.Orders, method: Get}}}}], {TO_WEB}}}
  - {{matches: [{{method: {{method: Get}}, headers: [{{name: V, value: "1"}}]}}, {{method: {{method: Get}}}}], {TO_WEB}}}
  - {{matches: [{{headers: [{{name: V, value: "1"}}, {{name: v, value: "2"}}]}}], {TO_WEB}}}
""",
        kind="GRPCRoute",
    )
    assert [(item.match.path.test, item.match.path.value, len(item.match.headers)) for item in found] == [
        ("exact", "/shop.Orders/Get", 0),
        ("prefix", "/shop.Orders/", 0),
        ("regex", "/[^/]+/Get", 1),
        ("regex", "/[^/]+/Get", 0),
        ("regex", "/(?:a|b)/.+", 0),
        ("prefix", "/", 1),
        ("prefix", "/", 0),
    ]
    assert {forward(item).missing_status for item in found} == {503}


def test_a_call_that_leads_nowhere_is_unavailable() -> None:
    (only,) = routes("[{backendRefs: [{name: gone, port: 80}]}]", kind="GRPCRoute")
    assert only.action == ir.Respond(status=503)
    assert made(route("[]", kind="GRPCRoute")) == ()


@pytest.mark.parametrize(
    "refs",
    [
        "[]",
        "[{name: web, port: 80, weight: 0}]",
        "[{name: gone, port: 80}]",
        "[{name: web, port: 81}]",
        "[{name: web, port: 80, group: x.io, kind: Thing}]",
        "[{name: web, namespace: other, port: 80}]",
        "[{name: web, port: 80, filters: [{type: ExtensionRef, extensionRef: {group: x.io, kind: T, name: t}}]}]",
    ],
)
def test_a_rule_without_a_backend_answers_500(refs: str) -> None:
    (only,) = routes(f"[{{backendRefs: {refs}}}]")
    assert only.action == ir.Respond(status=500)


def test_some_backends_that_are_not_there_have_their_share_of_errors() -> None:
    (only,) = routes(
        "[{backendRefs: [{name: web, port: 80, weight: 3}, {name: gone, port: 80}, {name: api, port: 80, weight: 0}]}]"
    )
    action = forward(only)
    assert [(part.cluster, part.weight) for part in action.destinations] == [
        (OF_WEB, 3),
        ("UnknownService", 1),
    ]
    assert action.missing_status == 500


def test_headers_by_rule_then_by_backend() -> None:
    (only,) = routes("""
  - filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: A, value: "1"}, {name: a, value: "2"}, {name: B, value: 5%}], add: [{name: c, value: x}]}}]
    backendRefs:
    - {name: web, port: 80, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: b, value: own}], remove: [C]}}]}
    - {name: api, port: 80}
""")
    assert only.request_headers == ir.NO_EDIT
    web, api = forward(only).destinations
    assert web.request_headers == ir.HeaderEdit(set=(("A", "1"), ("b", "own")), remove=("C",))
    assert api.request_headers == ir.HeaderEdit(set=(("A", "1"), ("B", "5%%")), add=(("c", "x"),))


def test_a_host_that_is_set_is_rewritten() -> None:
    (only,) = routes(f"""
  - filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: Host, value: x.example}}], remove: [host]}}}}]
    {TO_WEB}
""")
    assert forward(only).host_rewrite == "x.example"
    assert only.request_headers == ir.NO_EDIT


def test_backends_with_filters_that_weights_cannot_hold_have_routes_of_their_own() -> None:
    first, second, third = routes("""
  - matches: [{path: {value: /a}}]
    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: api, port: 80}}}]
    backendRefs:
    - {name: web, port: 80, weight: 2, filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]}
    - {name: gone, port: 80}
    - {name: web, port: 80, filters: [{type: RequestRedirect, requestRedirect: {hostname: x.example}}]}
""")
    assert (first.match.below, second.match.below, third.match.below) == (
        MILLION // 2,
        MILLION * 3 // 4,
        None,
    )
    assert forward(first).rewrite == ir.Rewrite(prefix="/b")
    assert forward(first).mirrors == (ir.Mirror(cluster=OF_API, fraction=MILLION),)
    assert second.action == ir.Respond(status=500)
    assert third.action == ir.Redirect(code=302, host="x.example")


def test_one_backend_needs_no_shares() -> None:
    (only,) = routes("""
  - backendRefs:
    - {name: api, port: 80, weight: 0}
    - name: web
      port: 80
      filters:
      - {type: CORS, cors: {allowOrigins: ["https://*.x"], allowMethods: ["*"], exposeHeaders: ["*"], allowCredentials: true}}
      - {type: RequestMirror, requestMirror: {backendRef: {name: api, port: 80}, fraction: {numerator: 1, denominator: 8}}}
      - {type: RequestMirror, requestMirror: {backendRef: {name: api, port: 80}, percent: 0}}
""")
    assert only.match.below is None
    assert only.cors is not None
    assert (only.cors.methods, only.cors.expose, only.cors.max_age) == (("*",), (), timedelta(seconds=5))
    assert forward(only).mirrors == (ir.Mirror(cluster=OF_API, fraction=125_000),)


@pytest.mark.parametrize(
    ("match", "new", "want"),
    [
        ("/", "/b", ir.Rewrite(prefix="/b/")),
        ("/", "/", None),
        ("/a", "/", ir.Rewrite(regex=("^/a/*", "/"))),
        ("/a/", "/b/", ir.Rewrite(prefix="/b")),
    ],
)
def test_elements_of_a_path_are_replaced(match: str, new: str, want: ir.Rewrite | None) -> None:
    (only,) = routes(f"""
  - matches: [{{path: {{value: {match}}}}}]
    filters: [{{type: URLRewrite, urlRewrite: {{path: {{type: ReplacePrefixMatch, replacePrefixMatch: {new}}}}}}}]
    {TO_WEB}
""")
    assert forward(only).rewrite == want


@pytest.mark.parametrize(
    ("limits", "timeout", "each", "on"),
    [
        ("timeouts: {request: 3s}", 3, None, False),
        ("timeouts: {request: 0s}", 0, None, False),
        ("timeouts: {backendRequest: 1s}", 1, None, False),
        ("timeouts: {request: 3s, backendRequest: 1s}", 3, 1, False),
        ("timeouts: {backendRequest: 1s}, retry: {attempts: 4}", 0, 1, True),
        ("timeouts: {request: 0s, backendRequest: 1s}, retry: {attempts: 4}", 0, 1, True),
    ],
)
def test_how_long_a_request_and_a_try_may_take(limits: str, timeout: int, each: int | None, on: bool) -> None:
    action = forward(*routes(f"[{{{limits}, {TO_WEB}}}]"))
    assert action.timeout == timedelta(seconds=timeout)
    assert action.retry is not None
    assert action.retry.per_try_timeout == (timedelta(seconds=each) if each else None)
    assert ("reset" in action.retry.on) == on


def test_retries() -> None:
    action = forward(*routes(f"[{{retry: {{attempts: 5, backoff: 20ms, codes: [500, 503]}}, {TO_WEB}}}]"))
    assert action.retry is not None
    assert (action.retry.attempts, action.retry.codes) == (5, (500, 503))
    assert action.retry.on[-1] == "retriable-status-codes"
    assert action.retry.back_off == ir.BackOff(base=timedelta(milliseconds=20))


def test_a_session_at_one_backend() -> None:
    by_cookie, old_cookie, old_header, by_header = routes(f"""
  - {{matches: [{{path: {{value: /long}}}}], sessionPersistence: {{absoluteTimeout: 1h, cookie: {{name: c, path: /x, lifetimeType: Permanent}}}}, {TO_WEB}}}
  - {{sessionPersistence: {{type: Header, header: {{name: x-at}}}}, {TO_WEB}}}
  - {{matches: [{{path: {{value: /old}}}}], sessionPersistence: {{sessionName: c}}, {TO_WEB}}}
  - {{matches: [{{path: {{value: /o}}}}], sessionPersistence: {{sessionName: x-at, type: Header}}, {TO_WEB}}}
""")
    # Gateway API 1.6 has one name for both.
    assert old_cookie.session == ir.SessionPersistence(name="c", path="/")
    assert old_header.session == by_header.session
    assert by_cookie.session == ir.SessionPersistence(name="c", path="/x", lifetime=timedelta(hours=1))
    assert by_header.session == ir.SessionPersistence(name="x-at", place=ir.SessionIn.HEADER)


def test_a_service_asks_for_sessions_where_no_rule_does() -> None:
    kept = service("kept", 80).replace(
        "{name: kept,", "{name: kept, labels: {istio.io/persistent-session: k},", 1
    )
    to_kept = "backendRefs: [{name: kept, port: 80}]"
    own, said = made(
        kept,
        route(f"""
  - {{matches: [{{path: {{value: /said}}}}], {to_kept}}}
  - {{sessionPersistence: {{sessionName: c}}, {to_kept}}}
"""),
    )
    assert own.session == ir.SessionPersistence(name="k", path="/")
    assert said.session == ir.SessionPersistence(name="c", path="/")


def test_a_session_stays_at_its_backend_whatever_the_weights() -> None:
    at_web, at_api, new = routes("""
  - sessionPersistence: {cookie: {name: c}}
    backendRefs: [{name: web, port: 80, weight: 9}, {name: api, port: 80}]
""")
    assert [forward(item).destinations[0].cluster for item in (at_web, at_api)] == [OF_WEB, OF_API]
    values = []
    for item, target in zip((at_web, at_api), forward(new).destinations, strict=True):
        (header,) = item.match.headers
        ((name, cookie),) = target.response_headers.add
        value = cookie.partition(";")[0]
        assert (header.name, name) == ("cookie", "set-cookie")
        assert header.match.value == f"(?:.*;\\s*)?{value}(?:;.*)?"
        values.append(value)
    assert len(set(values)) == 2
    assert new.match.headers == ()


def test_matches_that_no_proxy_takes_are_left_out_and_told() -> None:
    text = route(f"""
  - {{matches: [{{path: {{type: RegularExpression, value: "/(a"}}}}, {{path: {{value: /b}}}}], {TO_WEB}}}
  - {{matches: [{{headers: [{{name: x, type: RegularExpression, value: "[z"}}]}}], {TO_WEB}}}
""")
    assert [item.match.path.value for item in made(text)] == ["/b"]
    assert sorted(problems(text)) == [
        "spec.rules[0].matches[0].path.value",
        "spec.rules[1].matches[0].headers[0].value",
    ]


def test_a_regular_expression_that_is_a_star_asks_whether_there_is_a_value() -> None:
    (only,) = routes(
        f"""
  - {{matches: [{{headers: [{{name: x, type: RegularExpression, value: "*"}}], queryParams: [{{name: q, type: RegularExpression, value: "*"}}]}}], {TO_WEB}}}
"""
    )
    assert only.match.headers[0].match.test is only.match.query[0].match.test is ir.TextTest.PRESENT


def test_references_and_filters_that_lead_nowhere_are_told() -> None:
    filters = "filters: [{type: ExtensionRef, extensionRef: {group: x.io, kind: T, name: t}}]"
    text = route(f"[{{backendRefs: [{{name: gone, port: 80, {filters}}}]}}]")
    assert set(problems(text)) == {
        "spec.rules[0].backendRefs[0]",
        "spec.rules[0].backendRefs[0].filters[0].extensionRef",
    }


OLD, NEW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def test_of_two_kinds_the_older_has_a_host_name_alone() -> None:
    http = route(f"[{{{TO_WEB}}}]", "http", "hostnames: [a.example, b.example]", created=NEW)
    grpc = route(f"[{{{TO_WEB}}}]", "grpc", 'hostnames: ["*.example"]', kind="GRPCRoute", created=OLD)
    of = world(WEB, GATEWAY, http, grpc)
    hosts = table(proxy(of, NODE, labels=LABELS), "http.80").virtual_hosts
    assert {name: len(item.routes) for item in hosts for name in item.domains} == {"*": 0, "*.example": 1}
    facts = of.gateway_facts
    (lost,) = settled(facts.routes[Key("gateway.networking.k8s.io/HTTPRoute", "default", "http")], facts)
    (held,) = settled(facts.grpc_routes[Key("gateway.networking.k8s.io/GRPCRoute", "default", "grpc")], facts)
    assert (lost.reason, lost.bindings) == ("Conflicted", ())
    assert held.reason == "Accepted"


def test_a_consistent_hash_of_a_destination_rule_holds_for_routes() -> None:
    rule = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec: {host: web, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}}
"""
    action = forward(*made(rule, route(f"[{{{TO_WEB}}}]")))
    assert [on.header for on in action.hash_on] == ["x-user"]
    assert action.retry is not None
    assert not action.retry.avoid_previous_hosts


def external(protocol: str, backend: str, more: str = "") -> str:
    """An ExternalAuth filter."""
    block = f"protocol: {protocol}, {protocol.lower()}: {{{more}}}, backendRef: {{{backend}}}"
    return f"{{type: ExternalAuth, externalAuth: {{{block}}}}}"


def test_nobody_gets_past_an_authorizer_that_nobody_can_ask() -> None:
    text = route(f"[{{filters: [{external('GRPC', 'name: gone, port: 80')}], {TO_WEB}}}]")
    (only,) = made(text)
    assert only.action == ir.Respond(status=500)
    assert set(problems(text)) == {"spec.rules[0].filters[0].externalAuth.backendRef"}


def test_equal_authorizers_are_one_and_those_of_a_backend_are_asked_as_well() -> None:
    asked = external("HTTP", "name: web, port: 80", "path: /check/../ask/")
    other = external("HTTP", "name: web, port: 80", "allowedHeaders: [x-user]")
    text = route(
        f"[{{filters: [{asked}, {asked}], backendRefs: [{{name: web, port: 80, filters: [{other}]}}]}}]"
    )
    (only,) = made(text)
    first, second = only.authorizers
    assert (first.path_prefix, first.any_upstream_headers, first.headers) == ("/ask", True, ())
    assert [test.value for test in second.headers] == ["x-user"]
    assert first.name != second.name


def test_an_authorizer_by_grpc_at_a_port_that_may_not_speak_http_2_is_told() -> None:
    text = route(f"[{{filters: [{external('GRPC', 'name: web, port: 80')}], {TO_WEB}}}]")
    assert set(problems(text)) == {"spec.rules[0].filters[0].externalAuth.backendRef"}
    text = route(f"[{{filters: [{external('HTTP', 'name: web, port: 80')}], {TO_WEB}}}]")
    assert not problems(text)


def test_calls_to_a_port_that_speaks_http_1_are_told() -> None:
    text = route(f"[{{{TO_WEB}}}]", kind="GRPCRoute")
    assert set(problems(text)) == {"spec.rules[0].backendRefs[0]"}


def test_parents_that_are_not_there_are_told() -> None:
    text = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: gone}, {name: edge, sectionName: gone}, {group: x.io, kind: Cloud, name: x}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
"""
    assert set(problems(text)) == {"spec.parentRefs[0].name", "spec.parentRefs[1]", "spec.parentRefs[2].kind"}


def test_a_change_of_one_route_leaves_the_others_as_they_are() -> None:
    old = world(
        WEB,
        API,
        GATEWAY,
        route(f"[{{{TO_WEB}}}]", "a", "hostnames: [a.example]"),
        route(f"[{{{TO_WEB}}}]", "b", "hostnames: [b.example]"),
    )
    (changed,) = resources(route("[{}]", "b", "hostnames: [b.example]"))
    new = old.replace([changed])
    before, after = (table(proxy(of, NODE, labels=LABELS), "http.80") for of in (old, new))
    assert host(before, "a.example").routes[0] is host(after, "a.example").routes[0]
    assert host(before, "b.example").routes != host(after, "b.example").routes
