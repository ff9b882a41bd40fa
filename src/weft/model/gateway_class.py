"""GatewayClass."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from weft.model.base import Shape
from weft.model.resource import Condition, Resource
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

    conditions: Annotated[tuple[Condition, ...], Field(max_length=8)] | None = None
    supported_features: Annotated[tuple[SupportedFeature, ...], Field(max_length=64)] | None = None


class GatewayClass(Resource):
    """A class of Gateways, served by one controller."""

    spec: GatewayClassSpec
    status: GatewayClassStatus | None = None
