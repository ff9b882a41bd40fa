"""Messages whose texts are no UTF-8. Envoy writes what a client sent; protobuf refuses to read all of it.

The remedy is on the wire, where a text and a string of bytes look alike: such a message is read with every
``string`` taken for ``bytes``, its texts are made valid, and it is written again.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

from weft.protos.descriptors import load

_STRING: Final = FieldDescriptorProto.TYPE_STRING
_BYTES: Final = FieldDescriptorProto.TYPE_BYTES


def repaired(body: bytes, name: str) -> bytes:
    """The serialised message ``name`` with a replacement character for whatever is no text.

    Its package may import only packages below the same first name, as ``opentelemetry``.

    Raises:
        google.protobuf.message.DecodeError: the bytes are no such message.
    """
    message = _class(name).FromString(body)
    _repair(message)
    return message.SerializeToString()


def _repair(message: Message) -> None:
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for part in value if _many(field) else (value,):
                _repair(part)
        elif field.type == field.TYPE_BYTES and field.name not in _octets(message.DESCRIPTOR.full_name):
            if _many(field):
                value[:] = [_valid(text) for text in value]
            else:
                setattr(message, field.name, _valid(value))


def _valid(text: bytes) -> bytes:
    return text.decode(errors="replace").encode()


def _many(field: Any) -> bool:
    return bool(field.is_repeated)


@cache
def _files(root: str) -> dict[str, FileDescriptorProto]:
    return {file.name: file for file in load().file if file.package.split(".")[0] == root}


@cache
def _octets(message: str) -> frozenset[str]:
    """The fields that are bytes by themselves: ids."""
    for file in _files(message.split(".")[0]).values():
        for known in file.message_type:
            for path, each in _nested(f"{file.package}.{known.name}", known):
                if path == message:
                    return frozenset(field.name for field in each.field if field.type == _BYTES)
    return frozenset()


def _nested(path: str, message: Any) -> list[tuple[str, Any]]:
    return [(path, message)] + [
        found for inner in message.nested_type for found in _nested(f"{path}.{inner.name}", inner)
    ]


@cache
def _pool(root: str) -> DescriptorPool:
    pool = DescriptorPool()
    waiting = dict(_files(root))
    while waiting:
        for name, file in list(waiting.items()):
            if any(needed in waiting for needed in file.dependency):
                continue
            copy = FileDescriptorProto()
            copy.CopyFrom(file)
            for known in copy.message_type:
                for _, message in _nested("", known):
                    for field in message.field:
                        if field.type == _STRING:
                            field.type = _BYTES
            pool.Add(copy)
            del waiting[name]
    return pool


@cache
def _class(name: str) -> type[Message]:
    return message_factory.GetMessageClass(_pool(name.split(".")[0]).FindMessageTypeByName(name))
