"""What all resources have: a kind, a name, and who they belong to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import Field

from weft.model.base import Flaw, Shape, twice
from weft.model.hosts import labels
from weft.model.scalars import (
    LABEL,
    QUALIFIED,
    SUBDOMAIN,
    Annotations,
    AnyText,
    Bool,
    Form,
    Int,
    Json,
    Labels,
    Text,
    Time,
)

_PREFIX: Final = re.compile(rf"{SUBDOMAIN}-*")
_FINALIZER: Final = re.compile(rf"(?:{SUBDOMAIN}/)?{QUALIFIED}")
_MOST: Final = 256 << 10

NamespaceName = Annotated[
    Text,
    Form(
        f"(?:{LABEL})?", "a namespace: lower-case letters, digits and '-', as 'shop'", longest=63, shortest=0
    ),
]
ResourceName = Annotated[
    Text,
    Form(
        r"[^/%]*", "a name without '/' and '%'", longest=253, shortest=0
    ),  # each kind adds its own rule: see catalog
]


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Which resource. ``kind`` is "group/Kind", "/Service" for core; no ``namespace`` if it has none."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """``VirtualService default/reviews``."""
        kind = self.kind.rpartition("/")[2]
        return f"{kind} {self.namespace}/{self.name}" if self.namespace else f"{kind} {self.name}"


class OwnerReference(Shape):
    """The object that this one is removed with."""

    api_version: AnyText
    kind: AnyText
    name: AnyText
    uid: Text
    controller: Bool | None = None
    block_owner_deletion: Bool | None = None


class Metadata(Shape):
    """Who a resource is."""

    name: ResourceName = ""
    """Unique among the resources of its kind and namespace."""
    generate_name: Text | None = None
    """A prefix: the API appends what makes the name unique."""
    namespace: NamespaceName = ""
    """Where it belongs; ``default`` when none is given."""
    labels: Labels | None = None
    """What selectors look at."""
    annotations: Annotations | None = None
    """Anything else to remember about it."""
    uid: Text | None = None
    """Given by the API."""
    resource_version: Text | None = None
    """Given by the API: changes with each write."""
    generation: Annotated[Int, Field(ge=0)] | None = None
    """Given by the API: counts the changes of the spec."""
    creation_timestamp: Time | None = None
    """Given by the API."""
    deletion_timestamp: Time | None = None
    """Given by the API once deletion was asked for."""
    deletion_grace_period_seconds: Int | None = None
    finalizers: tuple[AnyText, ...] | None = None
    """Who must agree before the resource goes."""
    owner_references: tuple[OwnerReference, ...] | None = None
    """Objects that this one is removed with."""
    managed_fields: tuple[Json, ...] | None = None
    """Who wrote which field."""
    self_link: Text | None = None
    """Kept for old clients."""

    def flaws(self) -> Iterator[Flaw]:
        """What Kubernetes asks of all objects (apimachinery, ValidateObjectMeta)."""
        if self.generate_name and not _PREFIX.fullmatch(self.generate_name):
            hint = "lower-case letters, digits, '-' and '.'"
            yield Flaw(("generateName",), f"{self.generate_name!r} cannot begin a name", hint)
        size = sum(
            len(key) + len(text.encode(errors="replace")) for key, text in (self.annotations or {}).items()
        )
        if size > _MOST:
            yield Flaw(("annotations",), "annotations hold 256 KiB together", "keep less")
        for number, name in enumerate(self.finalizers or ()):
            if not _FINALIZER.fullmatch(name):
                yield Flaw(("finalizers", number), f"{name!r} is not a finalizer", "as 'example.com/name'")
        if {"orphan", "foregroundDeletion"} <= set(self.finalizers or ()):
            yield Flaw(("finalizers",), "orphan and foregroundDeletion exclude each other", "keep one")
        owners = self.owner_references or ()
        for number, owner in enumerate(owners):
            if not owner.uid:
                yield Flaw(("ownerReferences", number, "uid"), "the uid is missing", "add it")
        if sum(owner.controller is True for owner in owners) > 1:
            yield Flaw(("ownerReferences",), "only one owner is the controller", "keep one")


class Resource(Shape):
    """An object of the API. Subclasses add ``spec`` or what they have instead, and ``status``."""

    api_version: Text
    """The group and version of this kind."""
    kind: Text
    """The kind."""
    metadata: Metadata
    """Who it is."""

    @property
    def key(self) -> Key:
        """Which resource this is."""
        from weft.model.catalog import by_kind

        row = by_kind(self.api_version, self.kind)
        group = row.group if row else self.api_version.rpartition("/")[0]
        return Key(f"{group}/{self.kind}", self.metadata.namespace, self.metadata.name)

    def flaws(self) -> Iterator[Flaw]:
        """A resource needs a name."""
        if not self.metadata.name and not self.metadata.generate_name:
            yield Flaw(("metadata", "name"), "a name is missing", "add metadata.name")


class Condition(Shape):
    """One thing that is true of a resource, false, or not known."""

    type: AnyText
    status: Annotated[Text, Form("True|False|Unknown", "True, False or Unknown in quotes")]
    reason: Text | None = None
    message: Text | None = None
    last_transition_time: Time | None = None
    last_probe_time: Time | None = None
    observed_generation: Annotated[Int, Field(ge=0)] | None = None


class StatusCondition(Shape):
    """One thing that is true of a resource, false, or not known; whole, as Kubernetes' own kinds have it."""

    type: Annotated[Text, Form(rf"(?:{SUBDOMAIN}/)?{QUALIFIED}", "a condition's type", longest=316)]
    status: Annotated[Text, Form("True|False|Unknown", "True, False or Unknown in quotes")]
    reason: Annotated[
        Text, Form(r"[A-Za-z](?:[A-Za-z0-9_,:]*[A-Za-z0-9_])?", "a reason in CamelCase", longest=1024)
    ]
    message: Annotated[Text, Field(max_length=32768)]
    last_transition_time: Time
    observed_generation: Annotated[Int, Field(ge=0)] | None = None


def conditions_differ(conditions: tuple[StatusCondition, ...] | None, *path: str | int) -> Iterator[Flaw]:
    """Conditions are told apart by their types."""
    for number in twice(condition.type for condition in conditions or ()):
        yield Flaw((*path, "conditions", number, "type"), "the type is there twice", "keep one of them")


class LabelSelectorRequirement(Shape):
    """One demand on a label."""

    key: Text
    operator: Text
    values: tuple[Text, ...] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Operators that exist, values where they are needed; what breaks this selects nothing."""
        if self.operator in {"In", "NotIn"}:
            if not self.values:
                yield Flaw(("values",), f"{self.operator} needs at least one value", warns=True)
        elif self.operator not in {"Exists", "DoesNotExist"}:
            hint = "write In, NotIn, Exists or DoesNotExist"
            yield Flaw(("operator",), f"{self.operator!r} is not an operator", hint, warns=True)
        elif self.values:
            yield Flaw(("values",), f"{self.operator} takes no values", "remove them", warns=True)


class LabelSelector(Shape):
    """Which objects, by their labels; all demands must hold."""

    match_labels: dict[str, Text] | None = None
    match_expressions: tuple[LabelSelectorRequirement, ...] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Labels as they can be; no object bears others."""
        for key, wrong in labels(self.match_labels):
            yield Flaw(("matchLabels", key), wrong, warns=True)


def dump(resource: Resource) -> dict[str, Any]:
    """The resource as JSON: what was given, durations as they were written, nothing added."""
    return resource.model_dump(mode="json", by_alias=True, exclude_unset=True)
