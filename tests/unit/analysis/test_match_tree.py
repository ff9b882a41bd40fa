"""Generic matchers: lists, trees, and what they come to."""

from __future__ import annotations

from typing import Any

import pytest

from weft.analysis.explain.configuration import opened
from weft.analysis.match import Scene
from weft.analysis.match_tree import decide
from weft.protos import matcher_v3, network_inputs_v3, xds_core_v3, xds_matcher_v3
from weft.protos.wire import pack

API: Any = xds_matcher_v3  # fields may be given as plain dictionaries, which the stubs do not know


def extension(message: Any) -> Any:
    return xds_core_v3.TypedExtensionConfig(name="x", typed_config=pack(message))


def to(name: str) -> dict[str, Any]:
    return {"action": {"name": name}}


def header(name: str, **test: str) -> dict[str, Any]:
    given = extension(matcher_v3.HttpRequestHeaderMatchInput(header_name=name))
    return {"single_predicate": {"input": given, "value_match": test}}


def decided(matcher: Any, **headers: str) -> str | None:
    scene = Scene(headers={name: [value] for name, value in headers.items()}, destination_ip="10.1.2.3")
    action = decide(matcher, scene, opened)
    return action.name if action is not None else None


def test_the_first_predicate_that_holds() -> None:
    matcher = API.Matcher(
        matcher_list={
            "matchers": [
                {
                    "predicate": {
                        "and_matcher": {"predicate": [header("a", exact="1"), header("b", prefix="2")]}
                    },
                    "on_match": to("both"),
                },
                {
                    "predicate": {
                        "or_matcher": {"predicate": [header("a", exact="1"), header("b", exact="x")]}
                    },
                    "on_match": to("either"),
                },
                {"predicate": {"not_matcher": header("c", contains="z")}, "on_match": to("not z")},
            ]
        },
        on_no_match=to("none"),
    )
    assert decided(matcher, a="1", b="23") == "both"
    assert decided(matcher, b="x") == "either"
    assert decided(matcher) == "not z"
    assert decided(matcher, c="az") == "none"


@pytest.mark.parametrize(("given", "expected"), [("/shop/x", "shop"), ("/x", "root"), ("y", None)])
def test_the_longest_prefix(given: str, expected: str | None) -> None:
    matcher = API.Matcher(
        matcher_tree={
            "input": extension(matcher_v3.HttpRequestHeaderMatchInput(header_name=":path")),
            "prefix_match_map": {"map": {"/": to("root"), "/shop": to("shop")}},
        }
    )
    assert decided(matcher, **{":path": given}) == expected


def test_an_exact_value_leads_to_another_matcher_and_nowhere_else() -> None:
    inner = API.Matcher(
        matcher_list={"matchers": [{"predicate": header("b", exact="1"), "on_match": to("inner")}]}
    )
    matcher = API.Matcher(
        matcher_tree={
            "input": extension(matcher_v3.HttpRequestHeaderMatchInput(header_name="a")),
            "exact_match_map": {"map": {"1": {"matcher": inner}}},
        },
        on_no_match=to("outer"),
    )
    assert decided(matcher, a="1", b="1") == "inner"
    assert decided(matcher, a="1") is None
    assert decided(matcher) == "outer"


def test_addresses() -> None:
    blocks = API.IPMatcher(
        range_matchers=[
            {"ranges": [{"address_prefix": "10.0.0.0", "prefix_len": {"value": 8}}], "on_match": to("wide")},
            {"ranges": [{"address_prefix": "10.1.0.0", "prefix_len": {"value": 16}}], "on_match": to("near")},
        ]
    )
    matcher = API.Matcher(
        matcher_tree={
            "input": extension(network_inputs_v3.DestinationIPInput()),
            "custom_match": extension(blocks),
        }
    )
    assert decided(matcher) == "near"
