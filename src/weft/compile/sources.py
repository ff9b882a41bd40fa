"""The resource behind a unit, in Istio's form: it names the resource, never a place in a file."""

from __future__ import annotations

import re
from typing import Final

from weft import ir
from weft.model.resource import Key

_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def source(key: Key, rule: int | None = None, match: int | None = None) -> ir.Source:
    """``VirtualService default/x``: ``/apis/networking.istio.io/v1/namespaces/default/virtual-service/x``."""
    group, _, kind = key.kind.partition("/")
    name = _HUMP.sub("-", kind).lower()

    return ir.Source(
        path=f"/apis/{group}/v1/namespaces/{key.namespace}/{name}/{key.name}", rule=rule, match=match
    )
