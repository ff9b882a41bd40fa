"""ReferenceGrant."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from weft.model.base import Shape
from weft.model.resource import Resource
from weft.model.scalars import DnsLabel, GroupName, KindName, ObjectName


class ReferenceGrantFrom(Shape):
    """Objects that may refer."""

    group: GroupName
    kind: KindName
    namespace: DnsLabel


class ReferenceGrantTo(Shape):
    """Objects that may be referred to."""

    group: GroupName
    kind: KindName
    name: ObjectName | None = None


class ReferenceGrantSpec(Shape):
    """Which references from other namespaces are allowed."""

    from_: Annotated[tuple[ReferenceGrantFrom, ...], Field(min_length=1, max_length=16)] = Field(alias="from")
    """Who may refer."""
    to: Annotated[tuple[ReferenceGrantTo, ...], Field(min_length=1, max_length=16)]
    """To what, in the grant's namespace."""


class ReferenceGrant(Resource):
    """Allows references from other namespaces."""

    spec: ReferenceGrantSpec
