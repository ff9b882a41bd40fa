"""Rate limits that the proxies keep themselves: a token bucket for each limit and each caller."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from weft.emit.filters.limit_descriptors import LIMIT, MATCHED, actions, caller
from weft.emit.scalars import duration, fraction, uint32
from weft.ir.listener import HttpHandler
from weft.ir.rate_limit import Bucket, RateLimit
from weft.protos import core_v3, local_ratelimit_v3, ratelimit_common_v3, type_v3

NAME: Final = "envoy.filters.http.local_ratelimit"
# Callers that each bucket remembers; the one that was not heard of for longest is forgotten.
_CALLERS: Final = 10_000
_ALL: Final = 1_000_000


def each(unit: HttpHandler) -> Iterator[local_ratelimit_v3.LocalRateLimit]:
    """One filter a resource: they are told apart in statistics, and each may be a shadow."""
    for limit in unit.rate_limits:
        if limit.service is None:
            yield _filter(limit)


def _filter(limit: RateLimit) -> local_ratelimit_v3.LocalRateLimit:
    made = local_ratelimit_v3.LocalRateLimit(
        stat_prefix="ratelimit." + limit.name.replace("/", "."),
        status=type_v3.HttpStatus(code=type_v3.StatusCode.ValueType(limit.status)),
        rate_limits=[actions(bucket) for bucket in limit.buckets],
        descriptors=[_descriptor(bucket) for bucket in limit.buckets],
        max_dynamic_descriptors=uint32(_CALLERS),
        enable_retry_after_header=limit.tell,
    )
    enforced = 0 if limit.shadow else _ALL
    made.filter_enabled.CopyFrom(core_v3.RuntimeFractionalPercent(default_value=fraction(_ALL)))
    made.filter_enforced.CopyFrom(core_v3.RuntimeFractionalPercent(default_value=fraction(enforced)))
    made.always_consume_default_token_bucket.value = False
    if limit.tell and not limit.shadow:
        made.enable_x_ratelimit_headers = ratelimit_common_v3.XRateLimitHeadersRFCVersion.DRAFT_VERSION_03
    if limit.shared:
        made.local_cluster_rate_limit.SetInParent()
    return made


def _descriptor(bucket: Bucket) -> ratelimit_common_v3.LocalRateLimitDescriptor:
    entry = ratelimit_common_v3.RateLimitDescriptor.Entry
    entries = [entry(key=LIMIT, value=bucket.name)]
    if bucket.match:
        entries.append(entry(key=MATCHED, value="yes"))
    entries += (entry(key=caller(number, key)) for number, key in enumerate(bucket.per))
    return ratelimit_common_v3.LocalRateLimitDescriptor(
        entries=entries,
        token_bucket=type_v3.TokenBucket(
            max_tokens=bucket.burst,
            tokens_per_fill=uint32(bucket.tokens),
            fill_interval=duration(bucket.interval),
        ),
    )
