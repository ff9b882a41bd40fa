"""Route tables: each field lands where Envoy reads it. Their effect is tested with traffic."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from weft import ir
from weft.emit.routes import route_configuration
from weft.protos.wire import to_dict

HERE = ir.Forward(destinations=(ir.Destination(cluster="here"),))


def _path(test: str, value: str, *, ignore_case: bool = False) -> ir.PathMatch:
    return ir.PathMatch(test=ir.PathTest(test), value=value, ignore_case=ignore_case)


def _route(
    action: ir.Forward | ir.Redirect | ir.Respond = HERE,
    path: ir.PathMatch = ir.EVERY_PATH,
    **match: Any,
) -> dict[str, Any]:
    route = ir.Route(name="r", match=ir.RequestMatch(path=path, **match), action=action)
    host = ir.VirtualHost(name="v", domains=("*",), routes=(route,))
    made = to_dict(route_configuration(ir.RouteTable(name="80", virtual_hosts=(host,))))
    found: dict[str, Any] = made["virtual_hosts"][0]["routes"][0]
    return found


@pytest.mark.parametrize(
    ("path", "want"),
    [
        (_path("prefix", "/"), {"prefix": "/"}),
        (_path("exact", "/a"), {"path": "/a"}),
        (_path("path_prefix", "/a"), {"path_separated_prefix": "/a"}),
        (_path("path_prefix", "/a/"), {"path_separated_prefix": "/a"}),
        (_path("path_prefix", "/"), {"prefix": "/"}),
        (_path("regex", "/a.*"), {"safe_regex": {"regex": "/a.*"}}),
        (_path("prefix", "/A", ignore_case=True), {"prefix": "/A", "case_sensitive": False}),
    ],
)
def test_paths(path: ir.PathMatch, want: dict[str, Any]) -> None:
    assert _route(path=path)["match"] == want


def test_headers_and_queries() -> None:
    exact = ir.TextMatch(test=ir.TextTest.EXACT, value="x")
    present = ir.TextMatch(test=ir.TextTest.PRESENT)
    match = _route(
        headers=(
            ir.HeaderMatch(name="a", match=exact),
            ir.HeaderMatch(name="b", match=present, invert=True),
            ir.HeaderMatch(name="c", match=exact, invert=True, missing_as_empty=True),
        ),
        query=(ir.QueryMatch(name="q", match=exact), ir.QueryMatch(name="p", match=present)),
    )["match"]
    assert match["headers"] == [
        {"name": "a", "string_match": {"exact": "x"}},
        {"name": "b", "present_match": True, "invert_match": True},
        {
            "name": "c",
            "string_match": {"exact": "x"},
            "invert_match": True,
            "treat_missing_header_as_empty": True,
        },
    ]
    assert match["query_parameters"] == [
        {"name": "q", "string_match": {"exact": "x"}},
        {"name": "p", "present_match": True},
    ]


def test_silence_about_the_timeout_means_none() -> None:
    assert _route()["route"]["timeout"] == "0s"
    limited = ir.Forward(destinations=HERE.destinations, timeout=timedelta(milliseconds=1500))
    assert _route(limited)["route"]["timeout"] == "1.500s"


def test_one_plain_destination_is_no_weighted_cluster() -> None:
    assert _route()["route"]["cluster"] == "here"
    two = ir.Forward(destinations=(ir.Destination(cluster="a", weight=9), ir.Destination(cluster="b")))
    assert _route(two)["route"]["weighted_clusters"]["clusters"] == [
        {"name": "a", "weight": 9},
        {"name": "b", "weight": 1},
    ]
    edited = ir.Forward(
        destinations=(ir.Destination(cluster="a", request_headers=ir.HeaderEdit(set=(("x", "1"),))),)
    )
    (only,) = _route(edited)["route"]["weighted_clusters"]["clusters"]
    assert only["request_headers_to_add"] == [
        {"header": {"key": "x", "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    ]


def test_retries_have_istios_host_predicate() -> None:
    retry = ir.Retry(
        attempts=2,
        on=("connect-failure", "refused-stream"),
        codes=(503,),
        per_try_timeout=timedelta(seconds=1),
        back_off=ir.BackOff(base=timedelta(milliseconds=25)),
    )
    policy = _route(ir.Forward(destinations=HERE.destinations, retry=retry))["route"]["retry_policy"]
    assert policy["retry_on"] == "connect-failure,refused-stream"
    assert policy["num_retries"] == 2
    assert policy["retriable_status_codes"] == [503]
    assert policy["per_try_timeout"] == "1s"
    assert policy["retry_back_off"] == {"base_interval": "0.025s"}
    assert policy["host_selection_retry_max_attempts"] == "5"
    assert [row["name"] for row in policy["retry_host_predicate"]] == [
        "envoy.retry_host_predicates.previous_hosts"
    ]


@pytest.mark.parametrize(
    ("path", "prefix", "want"),
    [
        (_path("prefix", "/a"), "/b", {"prefix_rewrite": "/b"}),
        (_path("path_prefix", "/a"), "/b", {"prefix_rewrite": "/b"}),
        (
            _path("path_prefix", "/a.b"),
            "/",
            {
                "regex_rewrite": {
                    "pattern": {"regex": r"^/a\.b(/?)(.*)"},
                    "substitution": r"/\2",
                }
            },
        ),
    ],
)
def test_prefix_rewrites(path: ir.PathMatch, prefix: str, want: dict[str, Any]) -> None:
    action = ir.Forward(destinations=HERE.destinations, rewrite=ir.Rewrite(prefix=prefix))
    route = _route(action, path)["route"]
    assert {key: route[key] for key in route if key.endswith("_rewrite")} == want


def test_redirects() -> None:
    action = ir.Redirect(code=308, scheme="https", host="other", port=8443, path="/there")
    assert _route(action)["redirect"] == {
        "response_code": "PERMANENT_REDIRECT",
        "scheme_redirect": "https",
        "host_redirect": "other",
        "port_redirect": 8443,
        "path_redirect": "/there",
    }


def test_a_fault_is_under_its_filters_own_key_only() -> None:
    fault = ir.Fault(delay=timedelta(seconds=1), delay_fraction=500_000, abort_status=418, abort_fraction=1)
    route = ir.Route(name="r", match=ir.RequestMatch(), action=HERE, fault=fault)
    host = ir.VirtualHost(name="v", domains=("*",), routes=(route,))
    made = to_dict(route_configuration(ir.RouteTable(name="80", virtual_hosts=(host,))))
    config = made["virtual_hosts"][0]["routes"][0]["typed_per_filter_config"]
    assert list(config) == ["envoy.filters.http.fault"]
    assert config["envoy.filters.http.fault"]["delay"] == {
        "fixed_delay": "1s",
        "percentage": {"numerator": 500_000, "denominator": "MILLION"},
    }
    assert config["envoy.filters.http.fault"]["abort"] == {
        "http_status": 418,
        "percentage": {"numerator": 1, "denominator": "MILLION"},
    }


def test_the_resource_behind_a_route_is_named() -> None:
    source = ir.Source(path="/apis/x/virtual-service/reviews", rule=0, match=1)
    route = ir.Route(name="r", match=ir.RequestMatch(), action=HERE, source=source)
    host = ir.VirtualHost(name="v", domains=("*",), routes=(route,))
    made = to_dict(route_configuration(ir.RouteTable(name="80", virtual_hosts=(host,))))
    metadata = made["virtual_hosts"][0]["routes"][0]["metadata"]["filter_metadata"]
    assert metadata == {"istio": {"config": source.path, "rule": 0.0, "match": 1.0}}
