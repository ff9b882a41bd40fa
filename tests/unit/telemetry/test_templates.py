"""Paths become templates by the form of their parts, and by how many there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.telemetry.templates import Templates, is_parameter


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/", "/"),
        ("/users", "/users"),
        ("/users/17", "/users/{*}"),
        ("/users/17/orders", "/users/{*}/orders"),
        ("/o/3f2504e0-4f89-41d3-9a0c-0305e82c3301/items", "/o/{*}/items"),
        ("/o/3F2504E0-4F89-41D3-9A0C-0305E82C3301", "/o/{*}"),
        ("/sha/9f86d081884c7d65", "/sha/{*}"),
        ("/ulid/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/ulid/{*}"),
        ("/day/2026-11-21", "/day/{*}"),
        ("/at/2026-11-21T10:00:00Z", "/at/{*}"),
        ("/ip/10.0.0.1", "/ip/{*}"),
        ("/token/eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "/token/{*}"),
        ("/mail/ada@example.com", "/mail/{*}"),
        ("/long/" + "x" * 65, "/long/{*}"),
        ("/a b", "/{*}"),
        ("/a*", "/{*}"),
        ("/{x}", "/{*}"),
        ("/\ufffd", "/{*}"),
        ("/users/", "/users/"),
        ("//users", "//users"),
        ("/v1/users", "/v1/users"),
        ("/deadbeef", "/deadbeef"),
        ("/facade", "/facade"),
        ("/pkg.Service/Method", "/pkg.Service/Method"),
        ("/api/v2.1/x-y_z", "/api/v2.1/x-y_z"),
        ("*", "*"),
        ("", ""),
    ],
)
def test_forms(path: str, template: str) -> None:
    assert Templates(40).learn(path) == template


def test_too_many_texts_at_a_place_are_a_parameter() -> None:
    templates = Templates(5)
    first = [templates.learn(f"/shops/{name}/cart") for name in "abcde"]
    assert first == [f"/shops/{name}/cart" for name in "abcde"]
    assert templates.learn("/shops/f/cart") == "/shops/{*}/cart"
    assert templates.of(first[0]) == "/shops/{*}/cart", "what was learned before is seen anew"
    assert templates.learn("/about") == "/about", "other places keep their names"
    assert templates.learn("/shops/g/orders") == "/shops/{*}/orders"


def test_deep_paths_end_in_one_parameter() -> None:
    assert Templates(40).learn("/" + "/".join("abcdefghijklmnop")) == "/a/b/c/d/e/f/g/h/i/j/k/l/{**}"


@given(st.lists(st.text(max_size=12).map(lambda text: "/" + text), max_size=60))
def test_templates_are_bounded_and_stable(paths: list[str]) -> None:
    templates = Templates(4)
    for path in paths:
        templates.learn(path)
    now = {templates.of(path) for path in paths}
    assert all(templates.of(template) == template for template in now)
    tops = {template.split("/")[1] for template in now}
    assert len(tops - {"", "{*}"}) <= 4


def test_a_name_is_no_parameter() -> None:
    assert not is_parameter("products")
    assert is_parameter("42")
