"""Messages to bytes and back: deterministic, so that equal messages always have equal bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf.json_format import MessageToDict, ParseDict

from weft.protos import well_known
from weft.protos.pool import message_class, pool

if TYPE_CHECKING:
    from google.protobuf.message import Message

_MAPS: Final = frozenset(
    {"policies", "providers", "typed_extension_protocol_options", "typed_per_filter_config"}
)
_STRUCTS: Final = frozenset({"filter_metadata", "json_format"})
_PREFIX: Final = "type.googleapis.com/"


def type_url(message: Message) -> str:
    """``type.googleapis.com/envoy.config.cluster.v3.Cluster``."""
    return _PREFIX + message.DESCRIPTOR.full_name


def pack(message: Message) -> well_known.Any:
    """``message`` as an ``Any``, to be put into another message."""
    return well_known.Any(type_url=type_url(message), value=message.SerializeToString(deterministic=True))


def any_of(message: Message) -> bytes:
    """``message`` wrapped as a serialised ``google.protobuf.Any``; equal messages give equal bytes."""
    return pack(message).SerializeToString(deterministic=True)


def from_any(body: bytes) -> Message:
    """The message inside a serialised ``google.protobuf.Any``.

    Raises:
        KeyError: when Envoy knows no such type.
        google.protobuf.message.DecodeError: when the bytes are no such message.
    """
    wrapped = well_known.Any.FromString(body)
    return message_class(wrapped.type_url.removeprefix(_PREFIX)).FromString(wrapped.value)


def to_dict(message: Message) -> dict[str, Any]:
    """``message`` as Envoy's ``/config_dump`` prints it: proto field names, ``@type`` in each ``Any``.

    Messages keep the order of their fields; the entries of maps are sorted, since they come in any order.
    """
    shown: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True, descriptor_pool=pool())
    return {key: _sorted(key, value) for key, value in shown.items()}


def _sorted(field: str, value: Any, inside: bool = False) -> Any:
    """``value`` with sorted maps; all of a ``Struct`` is maps."""
    if isinstance(value, list):
        return [_sorted(field, item, inside) for item in value]
    if not isinstance(value, dict):
        return value
    struct = inside or field in _STRUCTS
    keys = sorted(value) if struct or field in _MAPS else value
    return {key: _sorted(key, value[key], struct) for key in keys}


def from_dict(data: dict[str, Any], full_name: str, *, lenient: bool = False) -> Message:
    """The message ``full_name`` out of its JSON form. Slow: for tests and tools, never for a hot path.

    ``lenient``: fields that Envoy does not know are left out.

    Raises:
        google.protobuf.json_format.ParseError: when the data has another shape.
    """
    message = message_class(full_name)()
    return ParseDict(data, message, ignore_unknown_fields=lenient, descriptor_pool=pool())
