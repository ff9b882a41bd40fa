"""Conditions as Kubernetes words them, and a status laid over an earlier one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from weft.compile.gatewayapi.facts import GROUP
from weft.model.resource import Metadata

Status = dict[str, Any]

KEYS_FETCHED: Final = "KeysFetched"
ANALYSED: Final = "PassedAnalysis"
"""Istio's: what is found in a resource holds no error."""

# Types that are weft's to set and to take away; conditions of any other type belong to somebody else.
_OURS: Final = frozenset(
    {
        "Accepted",
        "Conflicted",
        "InsecureFrontendValidationMode",
        KEYS_FETCHED,
        ANALYSED,
        "OverlappingTLSConfig",
        "PartiallyInvalid",
        "Programmed",
        "ResolvedRefs",
        "SupportedVersion",
    }
)
# Fields that weft sets, or takes away when it has nothing to say; any other stays as it is.
_FIELDS: Final = frozenset(
    {
        "addresses",
        "ancestors",
        "attachedListenerSets",
        "conditions",
        "listeners",
        "parents",
        "supportedFeatures",
        "validationMessages",
    }
)
# Entries that several controllers write side by side, and what tells those of one controller apart.
# The API takes so many of them.
_SHARED: Final = {"parents": ("parentRef", 32), "ancestors": ("ancestorRef", 16)}


LONGEST: Final = 32_768
"""Characters that the API takes in a message."""


def condition(metadata: Metadata, kind: str, holds: bool, reason: str, message: str = "") -> Status:
    """One condition, without the time at which it last changed.

    An object without a generation is at its first, as the API would give it.
    """
    return {
        "type": kind,
        "status": "True" if holds else "False",
        "reason": reason,
        "message": message[:LONGEST],
        "observedGeneration": generation(metadata),
    }


def generation(metadata: Metadata) -> int:
    """The generation that a status speaks of."""
    return 1 if metadata.generation is None else metadata.generation


def merged(
    new: Status, old: Mapping[str, Any] | None, now: str, controllers: Iterable[str], namespace: str
) -> Status:
    """``new``, laid over what the object bears so far.

    A condition whose ``status`` is the same keeps its ``lastTransitionTime``; all others get ``now``
    (RFC 3339). Conditions of types that are not weft's stay, and so does what other controllers than
    ``controllers`` say; the order stays, too. ``namespace`` is the object's: references may leave it out.
    """
    old = old or {}
    result = {**{name: value for name, value in old.items() if name not in _FIELDS}, **new}
    conditions = _conditions(new.get("conditions") or (), old.get("conditions") or (), now)
    if conditions or "conditions" in new:
        result["conditions"] = conditions
    if "listeners" in new:
        before = {item.get("name"): item for item in old.get("listeners") or ()}
        result["listeners"] = [_dated(item, before.get(item["name"]), now) for item in new["listeners"]]
    for name, (reference, most) in _SHARED.items():
        if name in new:
            known = frozenset(word for one in controllers for word in (one, mesh_controller(one)))
            entries = _entries(new[name], old.get(name) or (), reference, now, known, namespace)
            result[name] = entries[:most]
    return result


def mesh_controller(controller: str) -> str:
    """Who speaks for the mesh where ``controller`` speaks for Gateways, named as Istio names its own."""
    return f"{controller.partition('/')[0]}/mesh-controller"


def _dated(item: Status, before: Mapping[str, Any] | None, now: str) -> Status:
    return {
        **item,
        "conditions": _conditions(item["conditions"], (before or {}).get("conditions") or (), now),
    }


def _conditions(new: Iterable[Status], old: Iterable[Mapping[str, Any]], now: str) -> list[Status]:
    wanted = {item["type"]: item for item in new}
    result: list[Status] = []
    for item in old:
        kind = item.get("type")
        made = wanted.pop(kind, None)
        if made is not None:
            since = item.get("lastTransitionTime", now) if item.get("status") == made["status"] else now
            result.append({**made, "lastTransitionTime": since})
        elif kind not in _OURS:
            result.append(dict(item))
    return result + [{**item, "lastTransitionTime": now} for item in wanted.values()]


def _entries(
    new: Iterable[Status],
    old: Iterable[Mapping[str, Any]],
    reference: str,
    now: str,
    controllers: frozenset[str],
    namespace: str,
) -> list[Status]:
    """One list that several controllers write: theirs stay in their places, ours are ours to change."""
    wanted = {_identity(item, reference, namespace): item for item in new}
    result: list[Status] = []
    for item in old:
        key = _identity(item, reference, namespace)
        made = wanted.pop(key, None)
        if made is not None:
            result.append(_dated(made, item, now))
        elif item.get("controllerName") not in controllers:
            result.append(dict(item))
    return result + [_dated(item, None, now) for item in wanted.values()]


def _identity(item: Mapping[str, Any], reference: str, namespace: str) -> tuple[object, ...]:
    """Who says something of what; a reference means the same with its defaults written out."""
    ref = item.get(reference) or {}
    group = ref.get("group")
    return (
        item.get("controllerName"),
        GROUP if group is None else group,
        ref.get("kind") or "Gateway",
        ref.get("namespace") or namespace,
        ref.get("name"),
        ref.get("sectionName"),
        ref.get("port"),
    )
