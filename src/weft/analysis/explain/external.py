"""Authorizers on the way of a request: whether one is asked, and what it is shown.

What it answers nobody knows, so that a request is taken to be let through. Rules: the comments of
envoy/extensions/filters/http/ext_authz/v3/ext_authz.proto and source/extensions/filters/common/ext_authz.
"""

from __future__ import annotations

from typing import Any, Final

from weft.analysis import match
from weft.analysis.explain import authorization
from weft.analysis.explain.answer import Action, Answer
from weft.analysis.explain.origins import Cause, Origins
from weft.analysis.explain.passage import Passage, Reply
from weft.analysis.explain.upstream import Upstreams
from weft.analysis.match import Scene
from weft.names import ClusterName

_FORBIDDEN: Final = 403
# What an authorizer by HTTP is always shown; the rest of a request stands in fields of its own.
_ALWAYS: Final = frozenset({"authorization"})


def ask(passage: Passage, base: Any, overrides: list[Any]) -> Reply | None:
    """Say who is asked about the request, and about what; a reply when it cannot be asked."""
    settings = overrides[-1] if overrides else None
    if settings is not None and settings.disabled:
        return None
    fitting = _fitting(base, passage.scene)
    if fitting is None:
        return None
    by_grpc = base.HasField("grpc_service")
    cluster = base.grpc_service.envoy_grpc.cluster_name if by_grpc else base.http_service.server_uri.cluster
    provider = base.stat_prefix if fitting else _place(cluster)
    passage.answer.checks.append(_question(base, cluster, provider, passage))
    cause = passage.cause if not fitting else None
    refusal = _consult(
        base, cluster, provider, fitting, cause, passage.answer, passage.origins, passage.upstreams
    )
    if refusal is None:
        return None
    status = int(base.status_on_error.code) or _FORBIDDEN
    return Reply(status=status, detail=refusal, step="authz", action=Action.DENY)


def ask_of_connection(
    base: Any, scene: Scene, answer: Answer, origins: Origins, upstreams: Upstreams
) -> str | None:
    """The same of a connection: what is told of a refusal, None when it is taken to pass."""
    fitting = _fitting(base, scene)
    if fitting is None:
        return None
    cluster = base.grpc_service.envoy_grpc.cluster_name
    provider = base.stat_prefix.removeprefix("tcp.")
    answer.checks.append({"provider": provider, "protocol": "grpc", "cluster": cluster} | _NO_REQUEST)
    return _consult(base, cluster, provider, fitting, None, answer, origins, upstreams)


_NO_REQUEST: Final[dict[str, Any]] = {
    "method": None,
    "host": None,
    "path": None,
    "headers": {},
    "bodyBytes": 0,
}


def _consult(
    base: Any,
    cluster: str,
    provider: str,
    fitting: str,
    cause: Cause | None,
    answer: Answer,
    origins: Origins,
    upstreams: Upstreams,
) -> str | None:
    answer.decision, answer.provider = "external", provider
    by = "gRPC" if base.HasField("grpc_service") else "HTTP"
    words = f"{provider} decides, asked by {by} at {cluster}"
    if fitting:
        title, cause = authorization.named(fitting, origins)
        answer.policy, answer.policy_rule = authorization.parts(fitting)
        words += f", as {title} wants it"
    answer.say("authz", words, cause)
    missing = upstreams.target(cluster).failure
    if missing is None:
        return None
    unreachable = f"{provider} cannot be asked ({missing.value})"
    if base.failure_mode_allow:
        answer.say("authz", f"{unreachable}, so it passes: failOpen", cause)
        return None
    answer.decision = "deny"
    return unreachable


def _fitting(base: Any, scene: Scene) -> str | None:
    """The rule whose fitting makes the filter run; empty where it always does, None where it does not."""
    if not base.HasField("filter_enabled_metadata"):
        return ""
    matcher = base.filter_enabled_metadata
    if not match.metadata(matcher, scene.metadata):
        return None
    found: Any = scene.metadata.get(matcher.filter)
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
