"""What of an EnvoyFilter this Envoy does not take: the messages in it are Envoy's own."""

from __future__ import annotations

from collections.abc import Callable

from weft.compile.istio.envoy_filter import every_patch
from weft.emit.patches.check import flaws_of
from weft.errors import Origin, Problem
from weft.model.envoy_filter import EnvoyFilter
from weft.model.resource import Resource
from weft.yaml import Path


def unfit(resource: Resource, where: Callable[[Path], Origin | None] | None = None) -> tuple[Problem, ...]:
    """Errors and warnings about the values of patches; nothing for another kind."""
    return flaws_of(every_patch(resource), where) if isinstance(resource, EnvoyFilter) else ()
