"""The private descriptor pool and its message classes. Nothing is read before a message is used."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from weft.errors import InternalError, did_you_mean
from weft.protos.descriptors import load
from weft.protos.packages import PACKAGES

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from google.protobuf.message import Message


class _Database:
    """Answers the pool's questions; files go into it only once something needs them."""

    def __init__(self, files: Mapping[str, FileDescriptorProto]) -> None:
        self._files = files
        self._by_package: dict[str, list[FileDescriptorProto]] = {}
        for file in files.values():
            self._by_package.setdefault(file.package, []).append(file)

    def FindFileByName(self, name: str) -> FileDescriptorProto:  # noqa: N802 - the pool's interface
        return self._files[name]

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptorProto:  # noqa: N802
        """The file that declares the top-level name which begins ``symbol``."""
        package = symbol
        while package:
            package = package.rpartition(".")[0]
            top = symbol[len(package) :].lstrip(".").partition(".")[0]
            for file in self._by_package.get(package, ()):
                if any(item.name == top for kind in (file.message_type, file.enum_type) for item in kind):
                    return file
        raise KeyError(symbol)


@cache
def pool() -> DescriptorPool:
    """The pool that every message of weft's belongs to; apart from protobuf's default pool.

    Raises:
        InternalError: when the Envoy binary cannot be read.
    """
    files = {file.name: file for file in load().file}
    return DescriptorPool(descriptor_db=_Database(files))  # type: ignore[no-untyped-call, unused-ignore]


@cache
def message_class(name: str) -> type[Message]:
    """The class of a message by its full name, as ``envoy.config.cluster.v3.Cluster``.

    Raises:
        KeyError: when Envoy knows no such message.
    """
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(name))


class Package:
    """The messages and enums of one protobuf package, as attributes."""

    def __init__(self, alias: str, name: str) -> None:
        self._alias, self._name = alias, name

    def __getattr__(self, name: str) -> object:
        if name.startswith("_"):
            raise AttributeError(name)
        full = f"{self._name}.{name}"
        value: object
        try:
            value = message_class(full)
        except KeyError:
            try:
                value = EnumTypeWrapper(pool().FindEnumTypeByName(full))
            except KeyError:
                raise AttributeError(f"Envoy's schema has no {full}") from None
        setattr(self, name, value)
        return value

    def __repr__(self) -> str:
        return f"<protobuf package {self._name}>"


def package(alias: str) -> Package:
    """The package that ``packages.PACKAGES`` lists as ``alias``.

    Raises:
        InternalError: when it lists none.
    """
    if alias not in PACKAGES:
        raise InternalError(
            f"weft.protos has no package {alias!r}",
            hint=did_you_mean(alias, PACKAGES) or "add a row to weft/protos/packages.py",
        )
    return Package(alias, PACKAGES[alias])
