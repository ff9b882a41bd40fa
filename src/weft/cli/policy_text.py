"""Suggested policies as YAML with the evidence in comments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from weft.analysis.policy.suggest import Suggestion


def documents(suggestions: Iterable[Suggestion], since: str) -> str:
    """YAML documents. Text from traffic is in comments only as one line, which YAML cannot read as more."""
    lines = [f"# What was seen in the last {since}. ALLOW policies add up: remove wider ones that stand."]
    for suggestion in suggestions:
        lines.append("---")
        lines += [f"# {_plain(note)}" for note in suggestion.notes]
        lines += _policy(suggestion)
    return "\n".join(lines) + "\n"


def _policy(suggestion: Suggestion) -> Iterator[str]:
    policy = dict(suggestion.policy)
    spec = dict(policy.pop("spec"))
    rules = spec.pop("rules", None)
    yield from _dump(policy)
    if not spec and rules is None:
        yield "spec: {}"
        return
    yield "spec:"
    yield from (f"  {line}" for line in _dump(spec))
    yield "  rules:"
    for rule, count in zip(rules or (), suggestion.counts, strict=True):
        yield f"  # {_plain(count)}"
        yield from (f"  {line}" for line in _dump([rule]))


def _dump(value: Any) -> list[str]:
    return yaml.safe_dump(value, sort_keys=False, width=1_000_000, allow_unicode=False).splitlines()


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)
