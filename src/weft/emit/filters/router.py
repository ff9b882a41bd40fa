"""The router: sends a request on. It has no configuration per route."""

from __future__ import annotations

from typing import Final

from weft.protos import router_v3

NAME: Final = "envoy.filters.http.router"


def base() -> router_v3.Router:
    """Envoy's defaults."""
    return router_v3.Router()
