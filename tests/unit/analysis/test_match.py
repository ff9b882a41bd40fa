"""What Envoy's matchers say, on messages as Envoy receives them; another test asks a real Envoy the same."""

from __future__ import annotations

from typing import Any

import pytest

from weft.analysis import match
from weft.analysis.match import Scene
from weft.analysis.rbac import decide
from weft.protos import matcher_v3, rbac_v3, route_v3

# Fields may be given as plain dictionaries, which the stubs do not know.
MATCHER: Any = matcher_v3
RBAC: Any = rbac_v3
ROUTE: Any = route_v3


def header(name: str = "x", **fields: object) -> route_v3.HeaderMatcher:
    made: route_v3.HeaderMatcher = ROUTE.HeaderMatcher(name=name, **fields)
    return made


def string(**fields: object) -> matcher_v3.StringMatcher:
    made: matcher_v3.StringMatcher = MATCHER.StringMatcher(**fields)
    return made


def regex(pattern: str) -> matcher_v3.RegexMatcher:
    return matcher_v3.RegexMatcher(regex=pattern)


@pytest.mark.parametrize(
    ("matcher", "value", "fits"),
    [
        (string(exact="a"), "a", True),
        (string(exact="a"), "A", False),
        (string(exact="a", ignore_case=True), "A", True),
        (string(prefix="ab"), "abc", True),
        (string(suffix="bc"), "abc", True),
        (string(contains="b"), "abc", True),
        (string(contains="B", ignore_case=True), "abc", True),
        (string(safe_regex=regex("a.")), "ab", True),
        (string(safe_regex=regex("a.")), "xab", False),
        (string(safe_regex=regex("a.")), "abx", False),
        (string(safe_regex=regex("(")), "(", False),
        (string(), "", False),
    ],
)
def test_texts(matcher: matcher_v3.StringMatcher, value: str, fits: bool) -> None:
    assert match.text(matcher, value) is fits


@pytest.mark.parametrize(
    ("matcher", "values", "fits"),
    [
        (header(present_match=True), ["1"], True),
        (header(present_match=True), None, False),
        (header(present_match=False), None, True),
        (header(present_match=True, invert_match=True), None, True),
        (header(), ["1"], True),
        (header(string_match=string(exact="1")), ["1"], True),
        (header(string_match=string(exact="1")), None, False),
        (header(string_match=string(exact="1"), invert_match=True), ["2"], True),
        # What is not there is not different either, unless it counts as empty.
        (header(string_match=string(exact="1"), invert_match=True), None, False),
        (
            header(string_match=string(exact="1"), invert_match=True, treat_missing_header_as_empty=True),
            None,
            True,
        ),
        (header(string_match=string(exact=""), treat_missing_header_as_empty=True), None, True),
        # Each line is a value of its own.
        (header(string_match=string(exact="2")), ["1", "2"], True),
        (header(string_match=string(exact="1,2")), ["1", "2"], False),
        (header(string_match=string(exact="2"), invert_match=True), ["1", "2"], False),
        (header(range_match={"start": 1, "end": 3}), ["2"], True),
        (header(range_match={"start": 1, "end": 3}), ["3"], False),
        (header(range_match={"start": 1, "end": 3}), ["two"], False),
        (header("X-Upper", string_match=string(exact="1")), ["1"], True),
    ],
)
def test_headers(matcher: route_v3.HeaderMatcher, values: list[str] | None, fits: bool) -> None:
    headers = {} if values is None else {matcher.name.lower(): values}
    assert match.header(matcher, headers) is fits


def scene(path: str = "/", method: str = "GET", **headers: list[str]) -> Scene:
    return Scene(headers={":method": [method], ":path": [path], ":authority": ["x"], **headers})


@pytest.mark.parametrize(
    ("test", "path", "fits"),
    [
        (ROUTE.RouteMatch(prefix="/shop"), "/shopping", True),
        (ROUTE.RouteMatch(prefix="/shop"), "/Shop", False),
        (ROUTE.RouteMatch(prefix="/shop", case_sensitive={"value": False}), "/SHOP/x", True),
        (ROUTE.RouteMatch(path="/shop"), "/shop?x=1", True),
        (ROUTE.RouteMatch(path="/shop"), "/shop/", False),
        (ROUTE.RouteMatch(path_separated_prefix="/shop"), "/shop", True),
        (ROUTE.RouteMatch(path_separated_prefix="/shop"), "/shop/cart", True),
        (ROUTE.RouteMatch(path_separated_prefix="/shop"), "/shopping", False),
        (ROUTE.RouteMatch(safe_regex=regex("/[a-z]+")), "/shop?Q", True),
        (ROUTE.RouteMatch(safe_regex=regex("/[a-z]+")), "/shop/x", False),
        (ROUTE.RouteMatch(), "/", False),
    ],
)
def test_paths(test: route_v3.RouteMatch, path: str, fits: bool) -> None:
    assert match.path(test, scene(path)) is fits


def test_a_connect_has_no_path() -> None:
    connect = scene()
    connect.headers[":method"] = ["CONNECT"]
    del connect.headers[":path"]
    assert match.path(ROUTE.RouteMatch(connect_matcher={}), connect)
    assert not match.path(ROUTE.RouteMatch(prefix="/"), connect)
    assert not match.path(ROUTE.RouteMatch(connect_matcher={}), scene())


def test_the_first_value_of_a_parameter_counts() -> None:
    one = ROUTE.RouteMatch(
        prefix="/",
        query_parameters=[ROUTE.QueryParameterMatcher(name="x", string_match=string(exact="1"))],
    )
    assert match.misfit(one, scene("/?x=1&x=2")) == ""
    assert match.misfit(one, scene("/?x=2&x=1")) == "query parameter x"
    assert match.misfit(one, scene("/")) == "query parameter x"


def test_why_a_route_does_not_fit() -> None:
    test = ROUTE.RouteMatch(
        prefix="/shop",
        headers=[
            header(":method", string_match=string(exact="POST")),
            header("x-user", present_match=True),
        ],
        grpc={},
    )
    assert match.misfit(test, scene("/other")) == "path"
    assert match.misfit(test, scene("/shop")) == "method"
    assert match.misfit(test, scene("/shop", "POST")) == "header x-user"
    user = {"x-user": ["1"]}
    assert match.misfit(test, scene("/shop", "POST", **user)) == "it is no gRPC"
    grpc = {**user, "content-type": ["application/grpc+proto"]}
    assert match.misfit(test, scene("/shop", "POST", **grpc)) == ""


def test_metadata_by_path() -> None:
    matcher = MATCHER.MetadataMatcher(
        filter="jwt",
        path=[{"key": "claims"}, {"key": "groups"}],
        value={"list_match": {"one_of": {"string_match": {"exact": "admin"}}}},
    )
    assert match.metadata(matcher, {"jwt": {"claims": {"groups": ["user", "admin"]}}})
    assert not match.metadata(matcher, {"jwt": {"claims": {"groups": ["user"]}}})
    assert not match.metadata(matcher, {"jwt": {}})
    matcher.invert = True
    assert match.metadata(matcher, {})


def test_what_may_pass() -> None:
    may = {
        "readers": RBAC.Policy(
            permissions=[{"header": {"name": ":method", "string_match": {"exact": "GET"}}}],
            principals=[{"authenticated": {"principal_name": {"suffix": "/sa/reader"}}}],
        )
    }
    rules = RBAC.RBAC(action=RBAC.RBAC.Action.ALLOW, policies=may)
    reader = scene()
    reader.peer = ("spiffe://cluster.local/ns/default/sa/reader",)
    assert decide(rules, reader) == (True, "readers")
    assert decide(rules, scene()) == (False, "")
    rules.action = RBAC.RBAC.Action.DENY
    assert decide(rules, reader) == (False, "readers")
    assert decide(rules, scene()) == (True, "")
