"""Cross-origin rules: answer preflights, mark answers to allowed origins."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from weft.emit.scalars import boolean, text
from weft.ir.route import Route
from weft.protos import cors_v3

NAME: Final = "envoy.filters.http.cors"


def base() -> cors_v3.Cors:
    """No rule but on routes that have one."""
    return cors_v3.Cors()


def per_route(route: Route) -> cors_v3.CorsPolicy | None:
    """The cross-origin rules of one route."""
    cors = route.cors
    if cors is None:
        return None
    made = cors_v3.CorsPolicy(
        allow_origin_string_match=[text(origin) for origin in cors.origins],
        allow_methods=",".join(cors.methods),
        allow_headers=",".join(cors.headers),
        expose_headers=",".join(cors.expose),
    )
    if cors.max_age is not None:
        made.max_age = str(round(cors.max_age / timedelta(seconds=1)))
    if cors.credentials is not None:
        made.allow_credentials.CopyFrom(boolean(cors.credentials))
    if cors.forward_unmatched_preflights is not None:
        made.forward_not_matching_preflights.CopyFrom(boolean(cors.forward_unmatched_preflights))
    return made
