"""What a rule allows and what covers what, as Kubernetes has it."""

from __future__ import annotations

import pytest

from weft.control.api.rules import EVERYTHING, Ask, Rule, uncovered


def rule(verbs: str, groups: str = "", resources: str = "", names: str = "", urls: str = "") -> Rule:
    def split(text: str) -> tuple[str, ...]:
        return tuple("" if word == "core" else word for word in text.split())

    return Rule(
        verbs=split(verbs), groups=split(groups), resources=split(resources), names=split(names),
        urls=split(urls),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("held", "ask", "allowed"),
    [
        (rule("get", "core", "pods"), Ask(verb="get", resource="pods"), True),
        (rule("get", "core", "pods"), Ask(verb="list", resource="pods"), False),
        (rule("get", "core", "pods"), Ask(verb="get", group="apps", resource="pods"), False),
        (rule("get", "core", "pods"), Ask(verb="get", resource="pods", subresource="log"), False),
        (rule("get", "core", "pods/log"), Ask(verb="get", resource="pods", subresource="log"), True),
        (rule("get", "core", "pods/log"), Ask(verb="get", resource="pods"), False),
        (rule("get", "core", "*/log"), Ask(verb="get", resource="pods", subresource="log"), True),
        (rule("get", "core", "*/log"), Ask(verb="get", resource="pods"), False),
        (rule("get", "core", "pods/*"), Ask(verb="get", resource="pods", subresource="log"), False),
        (rule("*", "*", "*"), Ask(verb="x", group="y", resource="z", subresource="w"), True),
        (rule("*", "*", "*"), Ask(verb="get", path="/metrics"), False),
        (rule("get", "core", "pods", "a b"), Ask(verb="get", resource="pods", name="b"), True),
        (rule("get", "core", "pods", "a"), Ask(verb="get", resource="pods", name="b"), False),
        (rule("list", "core", "pods", "a"), Ask(verb="list", resource="pods"), False),
        (rule("get", urls="/metrics"), Ask(verb="get", path="/metrics"), True),
        (rule("get", urls="/metrics"), Ask(verb="get", path="/metrics/x"), False),
        (rule("get", urls="/api/*"), Ask(verb="get", path="/api/v1"), True),
        (rule("get", urls="/api/*"), Ask(verb="get", path="/api"), False),
        (rule("get", urls="/a*b"), Ask(verb="get", path="/axb"), False),
        (rule("*", urls="*"), Ask(verb="post", path="/x"), True),
        (rule("get", "core", "*"), Ask(verb="get", path="/x"), False),
    ],
)
def test_allows(held: Rule, ask: Ask, allowed: bool) -> None:
    assert held.allows(ask) is allowed


@pytest.mark.parametrize(
    ("owned", "wanted", "missing"),
    [
        ([rule("get list", "core", "pods")], rule("get", "core", "pods"), 0),
        ([rule("get", "core", "pods")], rule("get list", "core", "pods svc"), 3),
        # Two rules together cover what neither does alone.
        ([rule("get", "core", "pods"), rule("list", "core", "pods")], rule("get list", "core", "pods"), 0),
        ([rule("get", "core", "pods", "a")], rule("get", "core", "pods"), 1),
        ([rule("get", "core", "pods", "a")], rule("get", "core", "pods", "a b"), 1),
        ([rule("get", "core", "pods")], rule("get", "core", "pods", "a b"), 0),
        ([rule("get", "core", "*")], rule("get", "core", "pods/log"), 0),
        ([rule("get", "core", "*/log")], rule("get", "core", "pods/log"), 0),
        ([rule("get", "core", "*/log")], rule("get", "core", "pods/exec"), 1),
        ([rule("get", "core", "pods")], rule("*", "core", "pods"), 1),
        ([rule("get", "core", "pods")], rule("get", "*", "pods"), 1),
        ([rule("get", "core", "pods")], rule("get", "core", "*"), 1),
        ([rule("get", urls="/a/*")], rule("get", urls="/a/b"), 0),
        ([rule("get", urls="/a/*")], rule("get", urls="/*"), 1),
        ([rule("get", urls="*")], rule("get", urls="/a/*"), 0),
        ([rule("*", "*", "*")], rule("get", urls="/a"), 1),
        (list(EVERYTHING), rule("*", "*", "*"), 0),
        (list(EVERYTHING), rule("*", urls="*"), 0),
        ([], rule("get", "core", "pods"), 1),
    ],
)
def test_covers(owned: list[Rule], wanted: Rule, missing: int) -> None:
    assert len(uncovered(owned, [wanted])) == missing
