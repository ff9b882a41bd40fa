"""ListenerSet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from weft.model.base import Flaw, Shape, twice
from weft.model.gateway import Listener
from weft.model.listener import RouteGroupKind, distinct
from weft.model.resource import Resource, StatusCondition, conditions_differ
from weft.model.scalars import (
    DnsLabel,
    GroupName,
    Int,
    KindName,
    ObjectName,
    SectionName,
)


class ListenerEntry(Listener):
    """A port, its protocol, and the routes that may attach."""


class ParentGatewayReference(Shape):
    """The Gateway that the listeners are added to."""

    group: GroupName | None = None
    kind: KindName | None = None
    name: ObjectName
    namespace: DnsLabel | None = None


class ListenerSetSpec(Shape):
    """Listeners that are added to a Gateway."""

    listeners: Annotated[tuple[ListenerEntry, ...], Field(min_length=1, max_length=64)]
    parent_ref: ParentGatewayReference

    def flaws(self) -> Iterator[Flaw]:
        """Listeners differ, and their protocol fits (the rules of the CRD)."""
        yield from distinct(self.listeners)


class ListenerEntryStatus(Shape):
    """What became of a listener."""

    attached_routes: Annotated[Int, Field(ge=-(2**31), le=2**31 - 1)]
    conditions: Annotated[tuple[StatusCondition, ...], Field(max_length=8)]
    name: SectionName
    supported_kinds: Annotated[tuple[RouteGroupKind, ...], Field(max_length=8)] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Conditions differ."""
        yield from conditions_differ(self.conditions)


class ListenerSetStatus(Shape):
    """What became of the listeners."""

    conditions: Annotated[tuple[StatusCondition, ...], Field(max_length=8)] | None = None
    listeners: Annotated[tuple[ListenerEntryStatus, ...], Field(max_length=64)] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Conditions differ, and so do listeners."""
        yield from conditions_differ(self.conditions)
        for number in twice(item.name for item in self.listeners or ()):
            yield Flaw(("listeners", number, "name"), "the listener is there twice", "keep one of them")


class ListenerSet(Resource):
    """Listeners that another team adds to a Gateway."""

    spec: ListenerSetSpec
    status: ListenerSetStatus | None = None
