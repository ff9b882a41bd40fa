"""VirtualService: each field lands where it should."""

from __future__ import annotations

from datetime import timedelta
from textwrap import indent

import pytest
from tests.support.compiled import forward, host, identity, proxy, service, table, world

from weft import ir
from weft.compile.proxy import compile_proxy

REVIEWS, RATINGS = service("reviews", 9080), service("ratings", 9080)
HOST = "reviews.default.svc.cluster.local"


def virtual_service(http: str, hosts: str = "[reviews]", name: str = "reviews", more: str = "") -> str:
    body = indent(http.strip("\n"), "  ")
    return (
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n"
        f"metadata: {{name: {name}}}\nspec:\n  hosts: {hosts}\n{indent(more, '  ')}\n  http:\n{body}\n"
    )


def routes(http: str, labels: dict[str, str] | None = None) -> tuple[ir.Route, ...]:
    made = proxy(world(REVIEWS, RATINGS, virtual_service(http)), labels=labels)
    return host(table(made, "9080"), HOST).routes


def rule(text: str) -> ir.Route:
    (route,) = routes("- " + text + "\n  route: [{destination: {host: ratings}}]")
    return route


TO = "route: [{destination: {host: ratings}}]"
EXACT, PREFIX, REGEX = ir.TextTest.EXACT, ir.TextTest.PREFIX, ir.TextTest.REGEX


@pytest.mark.parametrize(
    ("match", "wanted"),
    [
        ("uri: {exact: /a}", ir.RequestMatch(path=ir.PathMatch(test=ir.PathTest.EXACT, value="/a"))),
        ("uri: {prefix: /a}", ir.RequestMatch(path=ir.PathMatch(test=ir.PathTest.PREFIX, value="/a"))),
        ("uri: {regex: /a.*}", ir.RequestMatch(path=ir.PathMatch(test=ir.PathTest.REGEX, value="/a.*"))),
        (
            "{uri: {prefix: /a}, ignoreUriCase: true}",
            ir.RequestMatch(path=ir.PathMatch(test=ir.PathTest.PREFIX, value="/a", ignore_case=True)),
        ),
        (
            "headers: {X-A: {exact: b}}",
            ir.RequestMatch(headers=(ir.HeaderMatch(name="x-a", match=ir.TextMatch(test=EXACT, value="b")),)),
        ),
        (
            "headers: {x-a: {}}",
            ir.RequestMatch(
                headers=(ir.HeaderMatch(name="x-a", match=ir.TextMatch(test=ir.TextTest.PRESENT)),)
            ),
        ),
        (
            "withoutHeaders: {x-a: {prefix: b}}",
            ir.RequestMatch(
                headers=(
                    ir.HeaderMatch(
                        name="x-a",
                        match=ir.TextMatch(test=PREFIX, value="b"),
                        invert=True,
                        missing_as_empty=True,
                    ),
                )
            ),
        ),
        (
            "withoutHeaders: {x-a: {}}",
            ir.RequestMatch(
                headers=(
                    ir.HeaderMatch(name="x-a", match=ir.TextMatch(test=ir.TextTest.PRESENT), invert=True),
                )
            ),
        ),
        (
            "{method: {exact: GET}, scheme: {exact: https}, authority: {prefix: r}}",
            ir.RequestMatch(
                headers=(
                    ir.HeaderMatch(name=":method", match=ir.TextMatch(test=EXACT, value="GET")),
                    ir.HeaderMatch(name=":authority", match=ir.TextMatch(test=PREFIX, value="r")),
                    ir.HeaderMatch(name=":scheme", match=ir.TextMatch(test=EXACT, value="https")),
                )
            ),
        ),
        (
            "queryParams: {q: {regex: a+}}",
            ir.RequestMatch(query=(ir.QueryMatch(name="q", match=ir.TextMatch(test=REGEX, value="a+")),)),
        ),
    ],
)
def test_matches(match: str, wanted: ir.RequestMatch) -> None:
    text = match if match.startswith("{") else f"{{{match}}}"
    assert rule(f"match: [{text}]").match == wanted


@pytest.mark.parametrize(
    ("match", "holds"),
    [
        ("port: 9080", True),
        ("port: 80", False),
        ("sourceLabels: {app: client}", True),
        ("sourceLabels: {app: other}", False),
        ("sourceNamespace: default", True),
        ("sourceNamespace: other", False),
        ("gateways: [mesh]", True),
        ("gateways: [edge]", False),
    ],
)
def test_what_is_known_of_the_proxy_is_decided_before(match: str, holds: bool) -> None:
    made = routes(
        f"- match: [{{{match}}}]\n  {TO}\n- route: [{{destination: {{host: reviews}}}}]",
        labels={"app": "client"},
    )
    wanted = "ratings" if holds else "reviews"
    assert wanted in forward(made[0]).destinations[0].cluster


def test_weights_and_headers_at_each_level() -> None:
    (route,) = routes("""
- headers: {request: {set: {a: "1"}, add: {b: "2"}, remove: [c]}}
  route:
  - {destination: {host: reviews}, weight: 90, headers: {response: {set: {d: "4"}}}}
  - {destination: {host: ratings}, weight: 10}
  - {destination: {host: ratings, port: {number: 9080}}, weight: 0}
""")
    assert route.request_headers == ir.HeaderEdit(set=(("a", "1"),), add=(("b", "2"),), remove=("c",))
    first, second = forward(route).destinations
    assert (first.weight, second.weight) == (90, 10)
    assert first.response_headers.set == (("d", "4"),)


def test_a_host_among_the_headers_rewrites_the_authority() -> None:
    route = rule("headers: {request: {set: {Host: other.example}}}")
    assert forward(route).host_rewrite == "other.example"
    assert route.request_headers == ir.NO_EDIT


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("rewrite: {uri: /b}", ir.Rewrite(prefix="/b")),
        (
            "rewrite: {uriRegexRewrite: {match: /a/(.*), rewrite: /b/\\1}}",
            ir.Rewrite(regex=("/a/(.*)", "/b/\\1")),
        ),
        ("rewrite: {authority: x.example}", None),
    ],
)
def test_rewrites(text: str, wanted: ir.Rewrite | None) -> None:
    assert forward(rule(text)).rewrite == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "{uri: /x, authority: a.example, redirectCode: 302}",
            ir.Redirect(code=302, host="a.example", path="/x"),
        ),
        ("{scheme: https, port: 443}", ir.Redirect(scheme="https")),
        ("{scheme: https, port: 8443}", ir.Redirect(scheme="https", port=8443)),
        ("{derivePort: FROM_REQUEST_PORT}", ir.Redirect(port=9080)),
        ("{derivePort: FROM_PROTOCOL_DEFAULT}", ir.Redirect()),
        ("{prefixRewrite: /y}", ir.Redirect(prefix="/y")),
    ],
)
def test_redirects(text: str, wanted: ir.Redirect) -> None:
    (route,) = routes(f"- redirect: {text}")
    assert route.action == wanted


def test_direct_responses() -> None:
    (route,) = routes("- directResponse: {status: 503, body: {string: away}}")
    assert route.action == ir.Respond(status=503, body=b"away")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("retries: {attempts: 0}", None),
        (
            "retries: {attempts: 3, perTryTimeout: 2s, retryOn: '5xx,503,reset', backoff: 25ms}",
            ir.Retry(
                attempts=3,
                on=("5xx", "reset", "retriable-status-codes"),
                codes=(503,),
                per_try_timeout=timedelta(seconds=2),
                back_off=ir.BackOff(base=timedelta(milliseconds=25)),
            ),
        ),
        (
            "retries: {attempts: 1, retryRemoteLocalities: true, retryIgnorePreviousHosts: false}",
            ir.Retry(
                attempts=1,
                on=(
                    "connect-failure",
                    "refused-stream",
                    "unavailable",
                    "cancelled",
                    "retriable-status-codes",
                ),
                avoid_previous_hosts=False,
                other_localities=True,
            ),
        ),
    ],
)
def test_retries(text: str, wanted: ir.Retry | None) -> None:
    assert forward(rule(text)).retry == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "fault: {delay: {fixedDelay: 5s, percentage: {value: 0.1}}}",
            ir.Fault(delay=timedelta(seconds=5), delay_fraction=1_000),
        ),
        (
            "fault: {abort: {httpStatus: 500, percentage: {value: 100}}}",
            ir.Fault(abort_status=500, abort_fraction=1_000_000),
        ),
        ("fault: {abort: {httpStatus: 500}}", ir.Fault(abort_status=500)),
        (
            "fault: {abort: {grpcStatus: UNAVAILABLE, percentage: {value: 50}}}",
            ir.Fault(abort_grpc_status=14, abort_fraction=500_000),
        ),
    ],
)
def test_faults(text: str, wanted: ir.Fault) -> None:
    assert rule(text).fault == wanted


def test_timeouts_and_mirrors() -> None:
    route = rule("timeout: 3s\n  mirrors: [{destination: {host: reviews}, percentage: {value: 10}}]")
    assert forward(route).timeout == timedelta(seconds=3)
    assert forward(route).mirrors == (ir.Mirror(cluster=f"outbound|9080||{HOST}", fraction=100_000),)
    assert forward(rule("name: plain")).timeout == timedelta(0)


def test_what_follows_a_route_that_takes_everything_is_left_out() -> None:
    assert len(routes(f"- {TO}\n- match: [{{uri: {{prefix: /x}}}}]\n  {TO}")) == 1


def test_the_oldest_of_two_for_a_host_holds_and_wildcards_come_last() -> None:
    made = proxy(
        world(
            REVIEWS,
            RATINGS,
            virtual_service("- directResponse: {status: 201}", name="b"),
            virtual_service("- directResponse: {status: 202}", name="c"),
            virtual_service(
                "- directResponse: {status: 203}", hosts='["*.default.svc.cluster.local"]', name="a"
            ),
        )
    )
    assert host(table(made, "9080"), HOST).routes[0].action == ir.Respond(status=201)
    other = host(table(made, "9080"), "ratings.default.svc.cluster.local")
    assert other.routes[0].action == ir.Respond(status=203)


def test_hosts_that_no_service_has_are_served_at_port_80() -> None:
    made = proxy(
        world(service("web"), virtual_service("- directResponse: {status: 204}", hosts="[out.example]"))
    )
    assert host(table(made, "80"), "out.example").routes[0].action == ir.Respond(status=204)


def test_missing_references_are_told_with_their_path() -> None:
    of = world(
        REVIEWS,
        virtual_service(
            "- route: [{destination: {host: review}}]\n", name="x", more="gateways: [edge, mesh]"
        ),
        virtual_service("- route: [{destination: {host: reviews, subset: v9}}]", name="z"),
    )
    problems = compile_proxy(of, identity())[1]
    assert [(p.code, p.resource, p.path) for p in problems] == [
        ("IST0101", "VirtualService default/x", "spec.gateways"),
        ("IST0101", "VirtualService default/x", "spec.http[0].route[0].destination.host"),
        ("IST0101", "VirtualService default/z", "spec.http[0].route[0].destination.subset"),
    ]
    assert problems[1].hint == f"did you mean {HOST!r}?"
