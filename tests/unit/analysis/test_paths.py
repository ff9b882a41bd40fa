"""Paths as Envoy changes them; the property test asks a real Envoy the same."""

from __future__ import annotations

import pytest

from weft.analysis import paths
from weft.analysis.pattern import compiled, matches, substitute


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/a/b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/./b/.", "/a/b/"),
        ("/../..", "/"),
        ("/a/%2e%2E/b", "/b"),
        ("/%61%2Fb", "/a%2Fb"),
        ("/a\\b", "/a/b"),
        ("//a//", "//a//"),
        ("/a?x=/../y", "/a?x=/../y"),
        ("a", None),
        ("/a%00", None),
    ],
)
def test_normal_paths(path: str, normal: str | None) -> None:
    assert paths.normalize(path) == normal


def test_slashes() -> None:
    assert paths.merge_slashes("//a///b/?x=//") == "/a/b/?x=//"
    assert paths.unescape_slashes("/a%2Fb%5c?x=%2F") == "/a/b\\?x=%2F"
    assert paths.has_escaped_slashes("/a%2fb")
    assert not paths.has_escaped_slashes("/a?x=%2f")


@pytest.mark.parametrize(
    ("template", "path", "fits"),
    [
        ("/a/*", "/a/b", True),
        ("/a/*", "/a/b/c", False),
        ("/a/**", "/a/b/c", True),
        ("/a/{one}/{two}", "/a/b/c", True),
        ("/a/{one=b/*}", "/a/b/c", True),
        ("/a/*", "/a/", False),
        ("/a.b/*", "/aXb/c", False),
    ],
)
def test_templates(template: str, path: str, fits: bool) -> None:
    assert (paths.template(template).fullmatch(path) is not None) is fits


def test_a_template_is_filled() -> None:
    assert paths.fill_template("/u/{id}/{part=**}", "/v2/{part}/{id}", "/u/7/a/b") == "/v2/a/b/7"


@pytest.mark.parametrize(
    ("pattern", "substitution", "text", "made"),
    [
        ("^/a(/|$)(.*)", "/b/\\2", "/a/x", "/b/x"),
        ("[0-9]", "<\\0>", "a1b2", "a<1>b<2>"),
        ("^.*$", "/new", "/old", "/new"),
        (".*", "x", "abc", "x"),
        ("x*", "-", "abc", "-a-b-c-"),
        ("a", "\\\\", "a", "\\"),
        ("(a)|(b)", "[\\1\\2]", "ab", "[a][b]"),
    ],
)
def test_substitution(pattern: str, substitution: str, text: str, made: str) -> None:
    assert substitute(pattern, substitution, text) == made


def test_a_pattern_that_re2_refuses_matches_nothing() -> None:
    assert compiled("(?=x)") is None
    assert not matches("(?=x)", "x")
    assert substitute("(", "y", "x") == "x"


def test_an_evil_pattern_takes_linear_time() -> None:
    assert not matches("(a*)*b", "a" * 20_000)
