"""Durations as Go writes them, which Istio reads in EnvoyFilters: ``1m`` is ``60s`` in JSON of protobuf."""

from __future__ import annotations

from typing import Any, Final

from weft.protos.pool import message_class
from weft.units import nanoseconds

Descriptor = Any
"""Of a message or a field: protobuf has several implementations of them, and no common type."""

_DURATION: Final = "google.protobuf.Duration"
_ANY: Final = "google.protobuf.Any"
# They hold JSON of their own.
_FREE: Final = frozenset({"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"})
_SECOND: Final = 1_000_000_000


def in_seconds(value: Any, kind: Descriptor) -> Any:
    """The JSON form of a message with all its durations in seconds; what is none stays as it is."""
    if kind.full_name == _DURATION:
        return _seconds(value)
    if not isinstance(value, dict) or kind.full_name in _FREE:
        return value
    if kind.full_name == _ANY:
        inner = _type(value.get("@type"))
        if inner is None:
            return value
        said = {key: part for key, part in value.items() if key != "@type"}
        return {"@type": value["@type"], **in_seconds(said, inner)}
    fields: dict[str, Descriptor] = {}
    for field in kind.fields:
        fields[field.name] = fields[field.json_name] = field
    return {key: _field(part, fields.get(key)) for key, part in value.items()}


def _field(value: Any, field: Descriptor | None) -> Any:
    kind = field.message_type if field is not None else None
    if kind is None:
        return value
    if kind.GetOptions().map_entry:
        inner = kind.fields_by_name["value"].message_type
        if inner is None or not isinstance(value, dict):
            return value
        return {key: in_seconds(part, inner) for key, part in value.items()}
    if isinstance(value, list):
        return [in_seconds(part, kind) for part in value]
    return in_seconds(value, kind)


def _type(url: Any) -> Descriptor | None:
    if not isinstance(url, str):
        return None
    try:
        return message_class(url.rpartition("/")[2]).DESCRIPTOR
    except KeyError:
        return None


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        found = nanoseconds(value)
    except ValueError:
        return value
    whole, rest = divmod(abs(found), _SECOND)
    return f"{'-' if found < 0 else ''}{whole}.{rest:09}s"
