"""The router: sends a request on. It has no configuration per route."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from weft.protos import router_v3

if TYPE_CHECKING:
    from weft.ir.listener import HttpHandler

NAME: Final = "envoy.filters.http.router"


def each(unit: HttpHandler) -> Iterable[router_v3.Router]:
    """The one that there is: Envoy's defaults, but that it may add no headers of its own."""
    yield router_v3.Router(suppress_envoy_headers=not unit.headers.debug)
