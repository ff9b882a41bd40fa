"""Which namespaces may attach: ``from`` and ``selector`` of allowedRoutes and allowedListeners."""

from __future__ import annotations

from collections.abc import Mapping

from weft.model.gateway import ListenerNamespaces
from weft.model.listener import RouteNamespaces
from weft.model.resource import LabelSelector


def admits(
    rule: RouteNamespaces | ListenerNamespaces | None,
    default: str,
    home: str,
    namespace: str,
    labels: Mapping[str, str],
) -> bool:
    """Whether ``namespace``, which bears ``labels``, may attach to what lives in ``home``.

    ``default`` holds where the rule says nothing: ``Same`` for routes, ``None`` for ListenerSets.
    """
    match str(rule.from_ or default) if rule is not None else default:
        case "All":
            return True
        case "Same":
            return namespace == home
        case "Selector":
            return rule is not None and selected(rule.selector, labels)
    return False


def selected(selector: LabelSelector | None, labels: Mapping[str, str]) -> bool:
    """Kubernetes' label selector; an absent one selects nothing, an empty one everything."""
    if selector is None:
        return False
    if any(labels.get(name) != value for name, value in (selector.match_labels or {}).items()):
        return False
    for demand in selector.match_expressions or ():
        value = labels.get(demand.key)
        holds = {
            "In": value is not None and value in (demand.values or ()),
            "NotIn": value is None or value not in (demand.values or ()),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }.get(demand.operator, False)
        if not holds:
            return False
    return True
