"""GatewayClass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from weft.model.base import Flaw, Shape, twice
from weft.model.resource import Resource, StatusCondition, conditions_differ
from weft.model.scalars import ControllerName, DnsLabel, GroupName, KindName, ObjectName, Text


class ParametersReference(Shape):
    """An object that configures the class."""

    group: GroupName
    kind: KindName
    name: ObjectName
    namespace: DnsLabel | None = None


class GatewayClassSpec(Shape):
    """Who serves the Gateways of a class."""

    controller_name: ControllerName
    """Who serves the class: weft.dev/gateway-controller is weft."""
    description: Annotated[Text, Field(max_length=64)] | None = None
    parameters_ref: ParametersReference | None = None


class SupportedFeature(Shape):
    """A feature of the Gateway API, by its name."""

    name: Text


class GatewayClassStatus(Shape):
    """What became of the class."""

    conditions: Annotated[tuple[StatusCondition, ...], Field(max_length=8)] | None = None
    supported_features: Annotated[tuple[SupportedFeature, ...], Field(max_length=64)] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Conditions differ, and so do features."""
        yield from conditions_differ(self.conditions)
        for number in twice(item.name for item in self.supported_features or ()):
            yield Flaw(("supportedFeatures", number, "name"), "it is there twice", "keep one of them")


class GatewayClass(Resource):
    """A class of Gateways, served by one controller."""

    spec: GatewayClassSpec
    status: GatewayClassStatus | None = None
