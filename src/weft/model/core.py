"""Namespace, ServiceAccount, Secret and ConfigMap of Kubernetes 1.32."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Literal

from weft.model.base import Flaw, Shape
from weft.model.resource import Condition, Resource
from weft.model.scalars import Base64, Bool, Form, Text

_DATA_KEY = Form(r"[-._a-zA-Z0-9]+", "a key: letters, digits, '-', '_' and '.'", longest=253)


def _bad_keys(field: str, keys: Iterator[str]) -> Iterator[Flaw]:
    for key in keys:
        try:
            _DATA_KEY.check(key)
        except ValueError as error:
            yield Flaw((field, key), str(error))


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
        if self.type == "kubernetes.io/tls":
            for key in ("tls.crt", "tls.key"):
                if key not in {**(self.data or {}), **(self.string_data or {})}:
                    yield Flaw(("data",), f"a secret of type kubernetes.io/tls needs {key!r}")

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
        for key in set(self.data or ()) & set(self.binary_data or ()):
            yield Flaw(("binaryData", key), f"the key {key!r} is in data too", "keep one of them")
