"""Namespace, ServiceAccount, Secret and ConfigMap of Kubernetes 1.32."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Final, Literal

from weft.model.base import Flaw, Shape
from weft.model.resource import Condition, Resource
from weft.model.scalars import Base64, Bool, Form, Text

_DATA_KEY = Form(r"[-._a-zA-Z0-9]+", "a key: letters, digits, '-', '_' and '.'", longest=253)


# The whole of it has to fit into one object of etcd.
_MOST: Final = 1 << 20


def _bad_keys(field: str, keys: Iterator[str]) -> Iterator[Flaw]:
    for key in keys:
        if key in {".", ".."} or key.startswith(".."):
            yield Flaw((field, key), f"{key!r} is not a key: it would leave the folder", "write another name")
            continue
        try:
            _DATA_KEY.check(key)
        except ValueError as error:
            yield Flaw((field, key), str(error))


_NEEDED: Final = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


class NamespaceSpec(Shape):
    """Who must agree before the namespace goes."""

    finalizers: tuple[Text, ...] | None = None


class NamespaceStatus(Shape):
    """Whether the namespace is going."""

    phase: Literal["Active", "Terminating"] | None = None
    conditions: tuple[Condition, ...] | None = None


class Namespace(Resource):
    """A room for resources: names are unique within it."""

    spec: NamespaceSpec | None = None
    status: NamespaceStatus | None = None


class ObjectReference(Shape):
    """Another object."""

    api_version: Text | None = None
    kind: Text | None = None
    name: Text | None = None
    namespace: Text | None = None
    uid: Text | None = None
    resource_version: Text | None = None
    field_path: Text | None = None


class LocalObjectReference(Shape):
    """Another object of the namespace."""

    name: Text | None = None


class ServiceAccount(Resource):
    """An identity: what a workload proves to be."""

    secrets: tuple[ObjectReference, ...] | None = None
    image_pull_secrets: tuple[LocalObjectReference, ...] | None = None
    automount_service_account_token: Bool | None = None


class Secret(Resource):
    """Something secret, as a certificate and its key. It leaves the store encrypted or not at all."""

    type: Text | None = None
    """What it holds: kubernetes.io/tls has tls.crt and tls.key."""
    data: dict[str, Base64] | None = None
    """Values in base64."""
    string_data: dict[str, Text] | None = None
    """Values as they are; they go before those in data. Never read back."""
    immutable: Bool | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Keys, and what a TLS secret must have."""
        yield from super().flaws()
        yield from _bad_keys("data", iter(self.data or ()))
        yield from _bad_keys("stringData", iter(self.string_data or ()))
        there = {**(self.data or {}), **(self.string_data or {})}
        for key in _NEEDED.get(self.type or "", ()):
            if key not in there:
                yield Flaw(("data",), f"a secret of type {self.type} needs {key!r}", "add it")
        if self.type == "kubernetes.io/basic-auth" and not there.keys() & {"username", "password"}:
            yield Flaw(("data",), f"a secret of type {self.type} needs 'username' or 'password'", "add it")
        account = "kubernetes.io/service-account.name"
        if self.type == "kubernetes.io/service-account-token" and not (self.metadata.annotations or {}).get(
            account
        ):
            path = ("metadata", "annotations", account)
            yield Flaw(path, f"a secret of type {self.type} needs {account}", "name the ServiceAccount")
        size = sum(len(text) * 3 // 4 for text in (self.data or {}).values())
        size += sum(len(text.encode(errors="replace")) for text in (self.string_data or {}).values())
        if size > _MOST:
            yield Flaw(("data",), "a Secret holds 1 MiB at most", "divide it")

    def value(self, key: str) -> bytes | None:
        """The value of a key, decoded; None when there is none."""
        if (text := (self.string_data or {}).get(key)) is not None:
            return text.encode()
        found = (self.data or {}).get(key)
        return None if found is None else base64.b64decode("".join(found.split()))


class ConfigMap(Resource):
    """Plain configuration by key."""

    data: dict[str, Text] | None = None
    """Values as text."""
    binary_data: dict[str, Base64] | None = None
    """Values in base64."""
    immutable: Bool | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Keys are names, and stand in one of the two maps only."""
        yield from super().flaws()
        yield from _bad_keys("data", iter(self.data or ()))
        yield from _bad_keys("binaryData", iter(self.binary_data or ()))
        size = sum(len(text.encode(errors="replace")) for text in (self.data or {}).values())
        size += sum(len(text) * 3 // 4 for text in (self.binary_data or {}).values())
        if size > _MOST:
            yield Flaw(("data",), "a ConfigMap holds 1 MiB at most", "divide it")
        for key in set(self.data or ()) & set(self.binary_data or ()):
            yield Flaw(("binaryData", key), f"the key {key!r} is in data too", "keep one of them")
