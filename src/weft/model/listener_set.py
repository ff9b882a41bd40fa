"""ListenerSet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from weft.model.base import Flaw, Shape
from weft.model.gateway import Listener
from weft.model.listener import RouteGroupKind, distinct
from weft.model.resource import Condition, Resource
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

    attached_routes: Int
    conditions: Annotated[tuple[Condition, ...], Field(max_length=8)]
    name: SectionName
    supported_kinds: Annotated[tuple[RouteGroupKind, ...], Field(max_length=8)] | None = None


class ListenerSetStatus(Shape):
    """What became of the listeners."""

    conditions: Annotated[tuple[Condition, ...], Field(max_length=8)] | None = None
    listeners: Annotated[tuple[ListenerEntryStatus, ...], Field(max_length=64)] | None = None


class ListenerSet(Resource):
    """Listeners that another team adds to a Gateway."""

    spec: ListenerSetSpec
    status: ListenerSetStatus | None = None
