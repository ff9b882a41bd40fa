"""Shapes that several of Istio's kinds have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from weft.model.base import Flaw, Shape
from weft.model.hosts import is_label, wildcard
from weft.model.resource import Resource
from weft.model.scalars import GroupName, IntOrString, KindName, Text, Time, UInt

DRY_RUN: Final = "istio.io/dry-run"
# What says yes in an annotation (Go's strconv.ParseBool).
TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_REFUSED: Final = frozenset(
    {
        "internal.istio.io/webhook-always-reject",
        "internal.istio.io/parents",
        "internal.istio.io/parent-namespace",
    }
)


class PortSelector(Shape):
    """A port by its number."""

    number: UInt | None = None


class LabelsSelector(Shape):
    """Workloads of the namespace that bear these labels."""

    match_labels: (
        Annotated[dict[str, Annotated[Text, Field(max_length=63)]], Field(max_length=4096)] | None
    ) = None

    def flaws(self) -> Iterator[Flaw]:
        """No wildcards; a selector of nothing selects all."""
        yield from _selected("matchLabels", self.match_labels)


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
    """What became of the resource; the CRDs leave room for fields of others here."""

    model_config = ConfigDict(extra="allow")

    conditions: tuple[IstioCondition, ...] | None = None
    observed_generation: IntOrString | None = None
    validation_messages: tuple[ValidationMessage, ...] | None = None


class IstioResource(Resource):
    """A resource of Istio's: some annotations are not for everybody."""

    def flaws(self) -> Iterator[Flaw]:
        """Annotations that Istio refuses."""
        yield from super().flaws()
        for name in self.metadata.annotations or {}:
            if name in _REFUSED or (name == DRY_RUN and self.kind != "AuthorizationPolicy"):
                yield Flaw(("metadata", "annotations", name), f"{name} is not for this resource", "remove it")


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
        """No wildcards; a selector of nothing selects all."""
        yield from _selected("labels", self.labels)


def _selected(field: str, labels: dict[str, str] | None) -> Iterator[Flaw]:
    if not labels:
        hint = "add labels, or leave the selector out"
        yield Flaw((field,), "the selector names no labels: it means all workloads", hint, warns=True)
    for key, value in (labels or {}).items():
        if not key:
            yield Flaw((field,), "a label's key must not be empty")
        if "*" in key or "*" in value:
            yield Flaw((field, key), "a selector takes no wildcards", "write the whole label")


_ATTACHABLE: Final = (
    ("", "Service"),
    ("core", "Service"),
    ("networking.istio.io", "ServiceEntry"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
)


def attached(
    one: PolicyTargetReference | None, several: tuple[PolicyTargetReference, ...] | None
) -> Iterator[Flaw]:
    """Policies are attached to services and gateways, and to nothing else."""
    found = [(("targetRefs", number), reference) for number, reference in enumerate(several or ())]
    for path, reference in [*found, *([(("targetRef",), one)] if one else [])]:
        if ((reference.group or ""), reference.kind) not in _ATTACHABLE:
            about = f"a policy cannot be attached to {reference.kind} of {reference.group or 'core'}"
            yield Flaw(
                (*path, "kind"), about, "write Service, ServiceEntry, Gateway or GatewayClass, and its group"
            )


def exported(namespaces: tuple[str, ...] | None, own: str, *, hidden: bool = False) -> Iterator[Flaw]:
    """Who sees a resource. ``hidden``: ``~``, nobody, is allowed too (ServiceEntry)."""
    seen: set[str] = set()
    for number, name in enumerate(namespaces or ()):
        path = ("exportTo", number)
        whole = own if name == "." else name
        if whole in seen:
            yield Flaw(path, f"{name!r} is there twice", "remove it")
        elif whole == "~" and not hidden:
            yield Flaw(path, "only a ServiceEntry may be seen by nobody", "write '.', '*' or a namespace")
        elif whole not in {"*", "~"} and not is_label(whole):
            yield Flaw(path, f"{name!r} is not a namespace", "write '.', '*' or a namespace")
        else:
            seen.add(whole)
    for word, meaning in (("*", "all"), ("~", "nobody")):
        if word in seen and len(namespaces or ()) > 1:
            yield Flaw(
                ("exportTo",), f"{word!r} means {meaning}: nothing may stand beside it", "keep one of them"
            )


class Destination(Shape):
    """A service, and maybe one port or subset of it."""

    host: Text
    """The service: a short name means one of the rule's namespace."""
    port: PortSelector | None = None
    """Needed when the service has several."""
    subset: Text | None = None
    """A subset of its DestinationRule."""

    def flaws(self) -> Iterator[Flaw]:
        """A host, a port and a subset as they can exist."""
        if self.host == "*":
            yield Flaw(("host",), "a destination cannot be '*'", "write the name of a service")
        elif wrong := wildcard(self.host):
            yield Flaw(
                ("host",), wrong, "write a service, as 'reviews' or 'reviews.default.svc.cluster.local'"
            )
        if self.subset and not is_label(self.subset):
            yield Flaw(("subset",), f"{self.subset!r} cannot be a subset's name", "letters, digits and '-'")
        if self.port is not None and not 1 <= (self.port.number or 0) <= 65535:
            yield Flaw(("port", "number"), f"{self.port.number or 0} is not a port: write 1 to 65535")
