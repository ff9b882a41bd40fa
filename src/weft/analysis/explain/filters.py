"""HTTP filters, each as Envoy would run it: an answer of its own, or on to the next.

A row of ``FILTERS`` is a filter by the type of its configuration. Those without a row are named in the
trace unless they cannot change what becomes of a request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from weft.analysis import match
from weft.analysis.explain import authorization, external, jwt, limits
from weft.analysis.explain.passage import Passage, Reply, duration
from weft.analysis.match import MILLION, Values, fraction
from weft.names import GRPC_MESSAGES_FILTER

if TYPE_CHECKING:
    from weft.protos import hcm_v3

Filter = Callable[[Passage, Any, list[Any]], Reply | None]


def run(rows: list[hcm_v3.HttpFilter], passage: Passage) -> Reply | None:
    """Pass through all filters but the router; the first answer of one ends it."""
    for row in rows:
        base = passage.open(row.typed_config)
        if base is None:
            continue
        overrides = passage.overrides(row.name)
        off = row.disabled
        configs = []
        for override in overrides:
            if override.DESCRIPTOR.full_name == "envoy.config.route.v3.FilterConfig":
                off = override.disabled
                inner = passage.open(override.config) if override.config.type_url else None
                if inner is not None:
                    configs.append(inner)
            else:
                off = False
                configs.append(override)
        if off:
            continue
        kind = base.DESCRIPTOR.full_name
        known = FILTERS.get(kind)
        if known is not None:
            reply = known(passage, base, configs)
            if reply is not None:
                return reply
        elif kind not in _HARMLESS and row.name not in _OURS:
            passage.answer.say("filter", f"{row.name} runs here; what it does is not evaluated")
    return None


def _percent(millionths: int) -> float:
    return millionths / 10_000


def _fault(passage: Passage, base: Any, overrides: list[Any]) -> Reply | None:
    config = overrides[-1] if overrides else base
    if not (config.HasField("delay") or config.HasField("abort")):
        return None
    if not all(match.header(test, passage.scene.headers) for test in config.headers):
        return None
    shown: dict[str, Any] = {"abort": None, "delay": None}
    if config.HasField("delay") and config.delay.HasField("fixed_delay"):
        share = fraction(config.delay.percentage)
        shown["delay"] = {"duration": duration(config.delay.fixed_delay), "percent": _percent(share)}
        passage.answer.say("fault", f"{_percent(share):g}% wait {shown['delay']['duration']}", passage.cause)
    reply = None
    kind = config.abort.WhichOneof("error_type") if config.HasField("abort") else None
    if kind in {"http_status", "grpc_status"}:
        share = fraction(config.abort.percentage)
        status = config.abort.http_status if kind == "http_status" else 200
        shown["abort"] = {"status": status, "percent": _percent(share)}
        if kind == "grpc_status":
            shown["abort"]["grpcStatus"] = config.abort.grpc_status
        passage.answer.say("fault", f"{_percent(share):g}% are answered {status}", passage.cause)
        if share >= MILLION:
            reply = Reply(
                status=status,
                detail=f"an injected fault answers {status}",
                step="fault",
                grpc_status=config.abort.grpc_status if kind == "grpc_status" else None,
            )
    passage.answer.fault = shown
    return reply


def _cors(passage: Passage, base: Any, overrides: list[Any]) -> Reply | None:
    """Preflights are answered here; other answers to an allowed origin are marked."""
    policies = list(reversed(overrides))
    if not passage.forwards or not policies or not _enabled(policies[0]):
        return None
    headers = passage.scene.headers
    origin = passage.scene.first("origin")
    if not origin:
        return None
    tests = next((p.allow_origin_string_match for p in policies if p.allow_origin_string_match), ())
    allowed = any(match.text(test, "*") or match.text(test, origin) for test in tests)
    credentials = next(
        (p.allow_credentials.value for p in policies if p.HasField("allow_credentials")), False
    )
    asked = passage.scene.first("access-control-request-method")
    word = "allowed" if allowed else "not allowed"
    if allowed:  # what answers a preflight passes here as well on its way back
        expose = _first(policies, "expose_headers")
        passage.on_answer.append(lambda values: _mark(values, origin, credentials, expose))
    if passage.scene.first(":method") != "OPTIONS" or not asked:
        passage.answer.say("cors", f"the origin {origin} is {word}", passage.cause)
        return None
    forward = next(
        (
            p.forward_not_matching_preflights.value
            for p in policies
            if p.HasField("forward_not_matching_preflights")
        ),
        True,
    )
    if not allowed and forward:
        passage.answer.say("cors", f"a preflight whose origin {origin} is not allowed goes on", passage.cause)
        return None
    made: dict[str, str] = {}
    if allowed:
        made["access-control-allow-origin"] = origin
    if credentials:
        made["access-control-allow-credentials"] = "true"
    methods, names = _first(policies, "allow_methods"), _first(policies, "allow_headers")
    if methods:
        made["access-control-allow-methods"] = asked if methods == "*" else methods
    if names:
        said = ",".join(headers.get("access-control-request-headers", ()))
        made["access-control-allow-headers"] = said if names == "*" else names
    if age := _first(policies, "max_age"):
        made["access-control-max-age"] = age
    return Reply(
        status=200,
        detail=f"a preflight is answered: the origin {origin} is {word}",
        step="cors",
        headers=tuple(made.items()),
        local=False,
    )


def _enabled(policy: Any) -> bool:
    return not policy.HasField("filter_enabled") or fraction(policy.filter_enabled.default_value) > 0


def _first(policies: list[Any], field: str) -> str:
    return next((getattr(policy, field) for policy in policies if getattr(policy, field)), "")


def _mark(values: Values, origin: str, credentials: bool, expose: str) -> None:
    values["access-control-allow-origin"] = [origin]
    if credentials:
        values["access-control-allow-credentials"] = ["true"]
    if expose:
        values["access-control-expose-headers"] = [expose]


def _local_limit(passage: Passage, base: Any, overrides: list[Any]) -> Reply | None:
    limits.local(passage, base, overrides)
    return None


def _remote_limit(passage: Passage, base: Any, overrides: list[Any]) -> Reply | None:
    limits.remote(passage, base, overrides)
    return None


_HTTP: Final = "envoy.extensions.filters.http"


def _discovery(passage: Passage, base: Any, overrides: list[Any]) -> None:
    passage.asks = (overrides[-1] if overrides else base).HasField("odcds")


def _router(passage: Passage, base: Any, overrides: list[Any]) -> None:
    passage.silent = bool((overrides[-1] if overrides else base).suppress_envoy_headers)


FILTERS: Final[dict[str, Filter]] = {
    f"{_HTTP}.ext_authz.v3.ExtAuthz": external.ask,
    f"{_HTTP}.fault.v3.HTTPFault": _fault,
    f"{_HTTP}.cors.v3.Cors": _cors,
    f"{_HTTP}.jwt_authn.v3.JwtAuthentication": jwt.authenticate,
    f"{_HTTP}.local_ratelimit.v3.LocalRateLimit": _local_limit,
    f"{_HTTP}.on_demand.v3.OnDemand": _discovery,
    f"{_HTTP}.ratelimit.v3.RateLimit": _remote_limit,
    f"{_HTTP}.rbac.v3.RBAC": authorization.pass_request,
    f"{_HTTP}.router.v3.Router": _router,
}
# Filters of ours that only look on.
_OURS: Final = frozenset({GRPC_MESSAGES_FILTER})
_HARMLESS: Final = frozenset(
    {
        f"{_HTTP}.dynamic_forward_proxy.v3.FilterConfig",
        f"{_HTTP}.grpc_stats.v3.FilterConfig",
        f"{_HTTP}.grpc_web.v3.GrpcWeb",
        f"{_HTTP}.set_filter_state.v3.Config",
        f"{_HTTP}.stateful_session.v3.StatefulSession",
        f"{_HTTP}.upstream_codec.v3.UpstreamCodec",
    }
)
