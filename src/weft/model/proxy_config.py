"""ProxyConfig."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from weft.model.base import Shape
from weft.model.istio import IstioResource, IstioStatus, LabelsSelector
from weft.model.scalars import ProtoInt, Text


class ProxyImage(Shape):
    """Which build of the proxy."""

    image_type: Text | None = None


class ProxyConfigSpec(Shape):
    """Settings of proxies that hold from their start."""

    concurrency: Annotated[ProtoInt, Field(ge=0)] | None = None
    environment_variables: dict[str, Annotated[Text, Field(max_length=2048)]] | None = None
    image: ProxyImage | None = None
    selector: LabelsSelector | None = None


class ProxyConfig(IstioResource):
    """Settings of proxies that hold from their start."""

    spec: ProxyConfigSpec = Field(default_factory=lambda: ProxyConfigSpec())
    status: IstioStatus | None = None
