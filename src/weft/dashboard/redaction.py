"""Objects as they may be shown: what is secret in them is hidden, what is noise is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

HIDDEN: Final = "(hidden)"
_NOISE: Final = ("kubectl.kubernetes.io/last-applied-configuration",)


def redact(wire: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without values of Secrets, of environments, and of keys that are written inline."""
    shown = {name: value for name, value in wire.items() if name != "status"}
    metadata = {name: value for name, value in shown.get("metadata", {}).items() if name != "managedFields"}
    annotations = {
        name: value for name, value in (metadata.get("annotations") or {}).items() if name not in _NOISE
    }
    metadata.pop("annotations", None)
    shown["metadata"] = {**metadata, **({"annotations": annotations} if annotations else {})}
    if wire.get("kind") == "Secret":
        for field in ("data", "stringData"):
            if isinstance(shown.get(field), Mapping):
                shown[field] = dict.fromkeys(shown[field], HIDDEN)
    if "spec" in shown:
        shown["spec"] = _hidden(shown["spec"])
    return shown


def _hidden(value: Any, name: str = "") -> Any:
    if name == "env" and isinstance(value, list):
        return [{**one, "value": HIDDEN} if _has_value(one) else one for one in value]
    if name == "jwks" and value:
        return HIDDEN
    if isinstance(value, Mapping):
        return {key: _hidden(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_hidden(inner) for inner in value]
    return value


def _has_value(entry: object) -> bool:
    return isinstance(entry, Mapping) and "value" in entry
