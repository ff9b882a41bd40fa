"""VirtualService ``corsPolicy``."""

from __future__ import annotations

from weft import ir
from weft.compile.istio.request_match import text_match
from weft.model.virtual_service import CorsPolicy


def cors(policy: CorsPolicy | None) -> ir.Cors | None:
    """Cross-origin rules. Unmatched preflights reach the service unless ``IGNORE`` is said."""
    if policy is None:
        return None
    origins = tuple(text_match(origin) for origin in policy.allow_origins or ())
    if policy.allow_origins is None:
        origins = tuple(
            ir.TextMatch(test=ir.TextTest.EXACT, value=origin) for origin in policy.allow_origin or ()
        )
    return ir.Cors(
        origins=origins,
        methods=tuple(policy.allow_methods or ()),
        headers=tuple(policy.allow_headers or ()),
        expose=tuple(policy.expose_headers or ()),
        max_age=policy.max_age,
        credentials=policy.allow_credentials,
        forward_unmatched_preflights=policy.unmatched_preflights != "IGNORE",
    )
