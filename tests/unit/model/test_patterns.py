"""Regular expressions that Envoy would refuse, and with them the route table that they are in."""

from __future__ import annotations

import pytest

from weft.model.patterns import pattern


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (".{1000}" * 16, ""),
        (".{1000}" * 17, "the regular expression is too large for Envoy: repeat less"),
        (r"\pL{100}é", ""),
        (r"\x{e9}", ""),
        (r"\x{1F600}", "Envoy reads bytes: it does not know this character by its number"),
        ("(a+)+$", ""),  # RE2 takes as long as the text is, however patterns are nested
        ("a" * 1025, "the regular expression is longer than 1024 bytes"),
    ],
)
def test_what_envoy_takes(text: str, complaint: str) -> None:
    assert pattern(text) == complaint


@pytest.mark.parametrize("text", ["(a{1000}){1000}", "((a{100}){100}){100}", "("])
def test_what_re2_cannot_read(text: str) -> None:
    assert pattern(text).startswith("this is no regular expression of RE2: ")
