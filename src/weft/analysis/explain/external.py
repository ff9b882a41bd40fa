"""Authorizers on the way of a request: whether one is asked, and what it is shown.

What it answers nobody knows, so that a request is taken to be let through. Rules: the comments of
envoy/extensions/filters/http/ext_authz/v3/ext_authz.proto and source/extensions/filters/common/ext_authz.
"""

from __future__ import annotations

from typing import Any, Final

from weft.analysis import match
from weft.analysis.explain.answer import Action
from weft.analysis.explain.passage import Passage, Reply
from weft.names import ClusterName

_FORBIDDEN: Final = 403
# What an authorizer by HTTP is always shown; the rest of a request stands in fields of its own.
_ALWAYS: Final = frozenset({"authorization"})


def ask(passage: Passage, base: Any, overrides: list[Any]) -> Reply | None:
    """Say who is asked about the request, and about what; a reply when it cannot be asked."""
    settings = overrides[-1] if overrides else None
    if settings is not None and settings.disabled:
        return None
    scene, answer = passage.scene, passage.answer
    policy = ""
    if base.HasField("filter_enabled_metadata"):
        if not match.metadata(base.filter_enabled_metadata, scene.metadata):
            return None
        policy = _policy(base.filter_enabled_metadata, scene.metadata)
    by_grpc = base.HasField("grpc_service")
    cluster = base.grpc_service.envoy_grpc.cluster_name if by_grpc else base.http_service.server_uri.cluster
    provider = base.stat_prefix if base.HasField("filter_enabled_metadata") else _place(cluster)
    answer.decision, answer.provider = "external", provider
    answer.checks.append(_question(base, cluster, provider, passage))
    words = f"{provider} decides, asked by {'gRPC' if by_grpc else 'HTTP'} at {cluster}"
    answer.say("authz", f"{words}, for {policy} fits" if policy else words, passage.cause)
    missing = passage.upstreams.target(cluster).failure
    if missing is None:
        return None
    if base.failure_mode_allow:
        answer.say("authz", f"{provider} cannot be asked ({missing.value}): the request passes (failOpen)")
        return None
    answer.decision = "deny"
    status = int(base.status_on_error.code) or _FORBIDDEN
    return Reply(
        status=status,
        detail=f"{provider} cannot be asked ({missing.value})",
        step="authz",
        action=Action.DENY,
    )


def _policy(matcher: Any, metadata: Any) -> str:
    """The rule whose fitting made it run."""
    found = metadata.get(matcher.filter)
    for part in matcher.path:
        found = found.get(part.key) if isinstance(found, dict) else None
    return found if isinstance(found, str) else ""


def _place(cluster: str) -> str:
    parts = ClusterName.parse(cluster)
    return f"{parts.host}:{parts.port}" if parts is not None else cluster


def _question(base: Any, cluster: str, provider: str, passage: Passage) -> dict[str, Any]:
    """What the authorizer is shown: ``headers`` without those that stand in fields of their own."""
    scene = passage.scene
    patterns = base.allowed_headers.patterns
    by_http = base.HasField("http_service")

    def shown(name: str) -> bool:
        if by_http and name in _ALWAYS:
            return True
        if not patterns:
            return not by_http
        return any(match.text(pattern, name) for pattern in patterns)

    headers = {
        name: list(values) for name, values in scene.headers.items() if name[:1] != ":" and shown(name)
    }
    prefix = ""
    if by_http:
        prefix = base.http_service.path_prefix
        added = base.http_service.authorization_request.headers_to_add
        headers |= {header.key.lower(): [header.value] for header in added}
    return {
        "provider": provider,
        "protocol": "http" if by_http else "grpc",
        "cluster": cluster,
        "method": scene.first(":method"),
        "host": scene.first(":authority"),
        "path": prefix + scene.path,
        "headers": headers,
        "bodyBytes": int(base.with_request_body.max_request_bytes),
    }
