"""Merging one message into another, as Istio does for EnvoyFilter (pkg/proto/merge)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError, Message

from weft.emit.patches.value import PatchError, value_of
from weft.ir.patch import Operation, Patch
from weft.protos import well_known
from weft.protos.wire import from_any, pack

if TYPE_CHECKING:
    from google.protobuf.descriptor import FieldDescriptor

# Values rather than objects: the new one holds alone.
_WHOLE: Final = frozenset(
    f"google.protobuf.{name}"
    for name in (
        "Duration", "BoolValue", "StringValue", "BytesValue", "UInt32Value", "UInt64Value", "Int32Value",
        "Int64Value", "FloatValue", "DoubleValue",
    )
)  # fmt: skip


MERGES: Final = (Operation.MERGE, Operation.MERGE_AND_REPLACE_LIST)


def merge_value(into: Message, patch: Patch) -> None:
    """Merge the value of a patch, if it has one, into a message.

    Raises:
        PatchError: the value cannot be read, or is of another type.
    """
    value = value_of(patch)
    if value is not None:
        merge(into, value, replace_lists=patch.operation is Operation.MERGE_AND_REPLACE_LIST)


def merge(into: Message, other: Message, *, replace_lists: bool = False) -> None:
    """Set in ``into`` what is set in ``other``: objects are merged, entries of maps are replaced, lists are
    appended to, or replaced at every depth with ``replace_lists``.

    Raises:
        PatchError: the messages are of two types.
    """
    if into.DESCRIPTOR.full_name != other.DESCRIPTOR.full_name:
        raise PatchError(
            f"a {other.DESCRIPTOR.full_name} cannot be merged into a {into.DESCRIPTOR.full_name}"
        )
    for field, value in other.ListFields():
        if _is_map(field):
            _merge_map(getattr(into, field.name), value)
        elif field.is_repeated:
            if replace_lists:
                del getattr(into, field.name)[:]
            getattr(into, field.name).extend(value)
        elif field.message_type is None:
            setattr(into, field.name, value)
        elif field.message_type.full_name in _WHOLE:
            getattr(into, field.name).CopyFrom(value)
        else:
            part = getattr(into, field.name)
            part.SetInParent()
            merge(part, value, replace_lists=replace_lists)


def _is_map(field: FieldDescriptor) -> bool:
    kind = field.message_type
    return kind is not None and bool(kind.GetOptions().map_entry)


def _merge_map(into: Any, other: Mapping[Any, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, Message):
            into[key].CopyFrom(value)
        else:
            into[key] = value


def merged_any(into: well_known.Any, other: well_known.Any) -> well_known.Any:
    """The message in ``into`` with that in ``other`` merged into it.

    Raises:
        PatchError: they hold two types, or what this Envoy does not know.
    """
    try:
        whole, part = (from_any(one.SerializeToString()) for one in (into, other))
    except (KeyError, DecodeError) as error:
        raise PatchError(f"this Envoy cannot read it: {error}") from error
    merge(whole, part)
    return pack(whole)
