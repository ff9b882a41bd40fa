"""``externalAuth`` filters of HTTPRoutes: who is asked about a request, and what it is shown (GEP-1494)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from weft import ir
from weft.compile.gatewayapi.backends import UNKNOWN, Backends
from weft.model.http_route import HTTPExternalAuthFilter
from weft.names import ClusterName

# The specification has no limit; somebody who never answers must not hold requests for ever.
_TIMEOUT: Final = timedelta(seconds=10)


def authorizers_of(
    filters: Iterable[HTTPExternalAuthFilter], owner: str, backends: Backends
) -> tuple[ir.Authorizer, ...] | None:
    """All that are asked, each once; None when one cannot be: nobody may get past it."""
    found: dict[str, ir.Authorizer] = {}
    for rule in filters:
        cluster = backends.find(rule.backend_ref, owner).cluster
        if cluster == UNKNOWN:
            return None
        made = _authorizer(rule, cluster)
        found.setdefault(made.name, made)
    return tuple(found.values())


def _authorizer(rule: HTTPExternalAuthFilter, cluster: str) -> ir.Authorizer:
    """Equal filters are one authorizer, whichever routes have them: the name is made of what they say."""
    reached = ClusterName.parse(cluster)
    host, port = (reached.host, reached.port) if reached is not None else (cluster, 0)
    digest = hashlib.sha256(rule.model_dump_json(exclude={"backend_ref"}).encode()).hexdigest()[:8]
    http, grpc = rule.http, rule.grpc
    shown = (http.allowed_headers if http else None) or (grpc.allowed_headers if grpc else None) or ()
    copied = (http.allowed_response_headers if http else None) or ()
    size = rule.forward_body.max_size if rule.forward_body is not None else None
    return ir.Authorizer(
        name=f"{host}:{port}-{digest}",
        cluster=cluster,
        host=host,
        protocol=ir.AuthorizerProtocol(rule.protocol.lower()),
        timeout=_TIMEOUT,
        path_prefix=_prefix(http.path) if http is not None and http.path else "",
        headers=_names(shown),
        upstream_headers=_names(copied),
        any_upstream_headers=rule.protocol == "HTTP" and not copied,
        # An authorizer that sees a part of a body only can be told anything in the rest.
        body=ir.ShownBody(max_bytes=size, as_bytes=True) if size else None,
    )


def _names(headers: Iterable[str]) -> tuple[ir.TextMatch, ...]:
    return tuple(
        ir.TextMatch(test=ir.TextTest.EXACT, value=name, ignore_case=True) for name in dict.fromkeys(headers)
    )


def _prefix(path: str) -> str:
    """What stands before the request's path, which brings its own slash; no segment leads out of it."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in {"", "."}:
            parts.append(part)
    return "".join(f"/{part}" for part in parts)
