"""Host names: wildcards, and what people call a service."""

from __future__ import annotations

import pytest

from weft.compile.hosts import aliases, covers, narrower, with_port


@pytest.mark.parametrize(
    ("pattern", "host", "wanted"),
    [
        ("*", "a.b", True),
        ("*", "*", True),
        ("a.b", "a.b", True),
        ("a.b", "c.b", False),
        ("*.b.c", "a.b.c", True),
        ("*.b.c", "x.a.b.c", True),
        ("*.b.c", "b.c", False),
        ("*.b.c", "*.a.b.c", True),
        ("*.a.b.c", "*.b.c", False),
        ("a.b", "*.b", False),
    ],
)
def test_covers(pattern: str, host: str, wanted: bool) -> None:
    assert covers(pattern, host) is wanted


def test_narrower() -> None:
    assert narrower("*.example.com", "foo.example.com") == "foo.example.com"
    assert narrower("foo.example.com", "*") == "foo.example.com"
    assert narrower("a.com", "b.com") is None


@pytest.mark.parametrize(
    ("host", "namespace", "wanted"),
    [
        (
            "a.ns.svc.cluster.local",
            "ns",
            ("a.ns.svc.cluster.local.", "a", "a.ns.svc", "a.ns"),
        ),
        ("a.ns.svc.cluster.local", "other", ("a.ns.svc.cluster.local.", "a.ns.svc", "a.ns")),
        ("example.com", "ns", ("example.com.",)),
        ("*.example.com", "ns", ()),
        ("10.0.0.1", "ns", ()),
    ],
)
def test_other_names(host: str, namespace: str, wanted: tuple[str, ...]) -> None:
    assert aliases(host, namespace, "cluster.local") == wanted


def test_an_ipv6_address_has_brackets() -> None:
    assert with_port("::1", 80) == "[::1]:80"
