"""Selectors of webhooks, and hosts with wildcards."""

from __future__ import annotations

import pytest

from weft.analysis.hosts import overlap
from weft.analysis.selectors import matches

LABELS = {"app": "reviews", "version": "v1"}


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        (None, True),
        ({}, True),
        ({"matchLabels": {"app": "reviews"}}, True),
        ({"matchLabels": {"app": "ratings"}}, False),
        ({"matchExpressions": [{"key": "version", "operator": "In", "values": ["v1", "v2"]}]}, True),
        ({"matchExpressions": [{"key": "version", "operator": "NotIn", "values": ["v1"]}]}, False),
        ({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}, True),
        ({"matchExpressions": [{"key": "zone", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}, True),
        ({"matchExpressions": [{"key": "zone", "operator": "Maybe"}]}, False),
        ("app=reviews", False),
    ],
)
def test_selectors(selector: object, chosen: bool) -> None:
    assert matches(selector, LABELS) is chosen


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("a.com", "a.com", True),
        ("a.com", "b.com", False),
        ("*.a.com", "x.a.com", True),
        ("*.a.com", "a.com", False),
        ("*", "a.com", True),
        ("*.a.com", "*.x.a.com", True),
        ("*.a.com", "*.b.com", False),
    ],
)
def test_hosts_overlap_either_way(one: str, other: str, meet: bool) -> None:
    assert overlap(one, other) is meet
    assert overlap(other, one) is meet
