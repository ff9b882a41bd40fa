"""Rate limits that a service keeps: it is asked about each request (Envoy's rate limit protocol)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from weft.emit.filters.limit_descriptors import actions
from weft.emit.scalars import duration, fraction
from weft.ir.listener import HttpHandler
from weft.ir.rate_limit import LimitService, RateLimit
from weft.protos import core_v3, ratelimit_config_v3, ratelimit_v3, type_v3

NAME: Final = "envoy.filters.http.ratelimit"
_ALL: Final = 1_000_000


def each(unit: HttpHandler) -> Iterator[ratelimit_v3.RateLimit]:
    """One filter a resource."""
    for limit in unit.rate_limits:
        if limit.service is not None:
            yield _filter(limit, limit.service)


def _filter(limit: RateLimit, service: LimitService) -> ratelimit_v3.RateLimit:
    made = ratelimit_v3.RateLimit(
        domain=service.domain,
        stat_prefix=limit.name.replace("/", "."),
        timeout=duration(service.timeout),
        failure_mode_deny=not service.fail_open,
        rate_limits=[actions(bucket) for bucket in limit.buckets],
        enable_retry_after_header=limit.tell,
    )
    made.rate_limited_status.code = type_v3.StatusCode.ValueType(limit.status)
    made.rate_limit_service.CopyFrom(
        ratelimit_config_v3.RateLimitServiceConfig(transport_api_version=core_v3.ApiVersion.V3)
    )
    made.rate_limit_service.grpc_service.envoy_grpc.cluster_name = service.cluster
    if limit.tell:
        made.enable_x_ratelimit_headers = ratelimit_v3.RateLimit.DRAFT_VERSION_03
    enforced = 0 if limit.shadow else _ALL
    made.filter_enforced.CopyFrom(core_v3.RuntimeFractionalPercent(default_value=fraction(enforced)))
    return made
