"""Kubernetes' label selectors, read as they are written (apimachinery, LabelSelectorAsSelector)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weft.analysis.scene import selects
from weft.analysis.tree import pairs, rows, word, words


def matches(selector: Any, labels: Mapping[str, str]) -> bool:
    """Whether a selector chooses what has these labels. None chooses everything, a broken one nothing."""
    if not isinstance(selector, dict):
        return selector is None
    if not selects(pairs(selector, "matchLabels"), labels):
        return False
    return all(_holds(row, labels) for _, row in rows(selector, "matchExpressions"))


def _holds(demand: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = word(demand, "key"), words(demand, "values")
    match word(demand, "operator"):
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    return False
