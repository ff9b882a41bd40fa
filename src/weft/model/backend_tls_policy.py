"""BackendTLSPolicy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape, twice
from weft.model.resource import Resource, StatusCondition, conditions_differ
from weft.model.route import LocalObjectReference, ParentReference
from weft.model.scalars import (
    ControllerName,
    GroupName,
    Hostname,
    KindName,
    ObjectName,
    PreciseHostname,
    SectionName,
    Text,
    Uri,
    WellKnown,
)


class LocalPolicyTargetReferenceWithSectionName(Shape):
    """The service, and maybe one port of it."""

    group: GroupName
    kind: KindName
    name: ObjectName
    section_name: SectionName | None = None


class SubjectAltName(Shape):
    """A name that the server's certificate may bear."""

    hostname: Hostname | None = None
    type: Literal["Hostname", "URI"]
    uri: Uri | None = None

    def flaws(self) -> Iterator[Flaw]:
        """The field of the type, and no other."""
        for kind, wire, value in (("Hostname", "hostname", self.hostname), ("URI", "uri", self.uri)):
            if (self.type == kind) != bool(value):
                yield Flaw((wire,), f"{wire} goes with type {kind}, and with it only")


class BackendTLSPolicyValidation(Shape):
    """What the server must prove."""

    ca_certificate_refs: Annotated[tuple[LocalObjectReference, ...], Field(max_length=8)] | None = None
    hostname: PreciseHostname
    subject_alt_names: Annotated[tuple[SubjectAltName, ...], Field(max_length=5)] | None = None
    well_known_ca_certificates: WellKnown | None = Field(default=None, alias="wellKnownCACertificates")

    def flaws(self) -> Iterator[Flaw]:
        """Authorities come from one place."""
        if bool(self.ca_certificate_refs) == bool(self.well_known_ca_certificates):
            yield Flaw((), "exactly one of caCertificateRefs and wellKnownCACertificates must be given")


class BackendTLSPolicySpec(Shape):
    """How gateways talk TLS to some services."""

    options: (
        Annotated[dict[str, Annotated[Text, Field(min_length=0, max_length=4096)]], Field(max_length=16)]
        | None
    ) = None
    target_refs: Annotated[
        tuple[LocalPolicyTargetReferenceWithSectionName, ...], Field(min_length=1, max_length=16)
    ]
    validation: BackendTLSPolicyValidation

    def flaws(self) -> Iterator[Flaw]:
        """References to one service name different ports of it, or it is named once."""
        whole = [(item.group, item.kind, item.name) for item in self.target_refs]
        part = [item.section_name or None for item in self.target_refs]
        for number in twice(zip(whole, part, strict=True)):
            yield Flaw(("targetRefs", number), "the same target is there twice", "remove one of them")
        for number, target in enumerate(whole):
            if (part[number] is None) != (part[whole.index(target)] is None):
                path = ("targetRefs", number, "sectionName")
                message = "one reference to this target names a port, another does not"
                yield Flaw(path, message, "write sectionName in both, or one reference without")


class PolicyAncestorStatus(Shape):
    """What became of a policy at one Gateway."""

    ancestor_ref: ParentReference
    conditions: Annotated[tuple[StatusCondition, ...], Field(min_length=1, max_length=8)]
    controller_name: ControllerName

    def flaws(self) -> Iterator[Flaw]:
        """Conditions differ."""
        yield from conditions_differ(self.conditions)


class PolicyStatus(Shape):
    """What became of the policy."""

    ancestors: Annotated[tuple[PolicyAncestorStatus, ...], Field(max_length=16)]


class BackendTLSPolicy(Resource):
    """TLS between gateways and services."""

    spec: BackendTLSPolicySpec
    status: PolicyStatus | None = None
