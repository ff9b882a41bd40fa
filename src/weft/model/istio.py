"""Shapes that several of Istio's kinds have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape
from weft.model.scalars import GroupName, IntOrString, KindName, Text, Time, UInt


class PortSelector(Shape):
    """A port by its number."""

    number: UInt | None = None


class LabelsSelector(Shape):
    """Workloads of the namespace that bear these labels."""

    match_labels: (
        Annotated[dict[str, Annotated[Text, Field(max_length=63)]], Field(max_length=4096)] | None
    ) = None

    def flaws(self) -> Iterator[Flaw]:
        """No wildcards."""
        for key, value in (self.match_labels or {}).items():
            if not key:
                yield Flaw(("matchLabels",), "a label's key must not be empty")
            if "*" in key or "*" in value:
                yield Flaw(("matchLabels", key), "a selector takes no wildcards", "write the whole label")


class IstioCondition(Shape):
    """One thing that is true of a resource, false, or not known."""

    last_probe_time: Time | None = None
    last_transition_time: Time | None = None
    message: Text | None = None
    observed_generation: IntOrString | None = None
    reason: Text | None = None
    status: Text | None = None
    type: Text | None = None


class MessageType(Shape):
    """Code and name of a finding."""

    code: Text | None = None
    name: Text | None = None


class ValidationMessage(Shape):
    """A finding of the analysis."""

    documentation_url: Text | None = None
    level: Literal["UNKNOWN", "ERROR", "WARNING", "INFO"] | None = None
    type: MessageType | None = None


class IstioStatus(Shape):
    """What became of the resource."""

    conditions: tuple[IstioCondition, ...] | None = None
    observed_generation: IntOrString | None = None
    validation_messages: tuple[ValidationMessage, ...] | None = None


class PolicyTargetReference(Shape):
    """The resource that a policy is attached to."""

    group: GroupName | None = None
    kind: KindName
    name: Annotated[Text, Field(min_length=1, max_length=253)]
    namespace: Text | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Only within the namespace."""
        if self.namespace:
            yield Flaw(("namespace",), "a policy cannot be attached across namespaces", "remove it")


class WorkloadSelector(Shape):
    """Workloads of the namespace that bear these labels."""

    labels: Annotated[dict[str, Annotated[Text, Field(max_length=63)]], Field(max_length=256)] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """No wildcards."""
        for key, value in (self.labels or {}).items():
            if "*" in key or "*" in value:
                yield Flaw(("labels", key), "a selector takes no wildcards", "write the whole label")


class Destination(Shape):
    """A service, and maybe one port or subset of it."""

    host: Text
    """The service: a short name means one of the rule's namespace."""
    port: PortSelector | None = None
    """Needed when the service has several."""
    subset: Text | None = None
    """A subset of its DestinationRule."""
