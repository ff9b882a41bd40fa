"""How a DestinationRule chooses endpoints, and when it sets them aside."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import Field

from weft import units
from weft.model.base import Flaw, Shape, at_most_one, each, wire_name
from weft.model.localities import TOPOLOGY, apart
from weft.model.scalars import (
    Bool,
    Count,
    Float,
    PositiveDuration,
    ProtoDuration,
    ProtoInt,
    Text,
    UInt,
    UInt64,
)

_MAGLEV_LIMIT: Final = 5_000_011


class CookieAttribute(Shape):
    """A further attribute of the cookie, as SameSite."""

    name: Text
    value: Text | None = None


class HTTPCookie(Shape):
    """The cookie that is hashed; made when it is missing and has a ttl."""

    attributes: tuple[CookieAttribute, ...] | None = None
    name: Text
    path: Text | None = None
    ttl: Text | None = None

    def flaws(self) -> Iterator[Flaw]:
        """How long it lives is a duration; attributes differ."""
        names = [item.name for item in self.attributes or ()]
        if not self.name:
            yield Flaw(("name",), "the cookie needs a name")
        for number, name in enumerate(names):
            if not name:
                yield Flaw(("attributes", number, "name"), "the attribute needs a name", "as 'SameSite'")
            elif name in names[:number]:
                yield Flaw(("attributes", number, "name"), f"{name!r} is there twice", "remove it")
        try:
            units.parse_duration("0" if self.ttl is None else self.ttl)
        except ValueError as error:
            yield Flaw(("ttl",), str(error))


class MagLev(Shape):
    """Maglev's table."""

    table_size: UInt64 | None = None

    def flaws(self) -> Iterator[Flaw]:
        """A prime that Envoy can hold."""
        size = self.table_size or 0
        if size >= _MAGLEV_LIMIT:
            yield Flaw(("tableSize",), f"{size} is too large: less than {_MAGLEV_LIMIT}")
        elif not is_prime(size):
            yield Flaw(("tableSize",), f"{size} is not a prime number", "as 65537")


def is_prime(number: int) -> bool:
    """For the sizes of Maglev's tables; Envoy takes 1 too."""
    if number < 4:
        return number > 0
    return number % 2 == 1 and all(number % divisor for divisor in range(3, math.isqrt(number) + 1, 2))


class RingHash(Shape):
    """The hash ring."""

    minimum_ring_size: UInt64 | None = None


class ConsistentHashLB(Shape):
    """Sends requests with the same value to the same endpoint."""

    http_cookie: HTTPCookie | None = None
    http_header_name: Text | None = None
    http_query_parameter_name: Text | None = None
    maglev: MagLev | None = None
    minimum_ring_size: UInt64 | None = None
    ring_hash: RingHash | None = None
    use_source_ip: Bool | None = None

    def flaws(self) -> Iterator[Flaw]:
        """One value is hashed, into one kind of table."""
        keys = ("http_header_name", "http_cookie", "use_source_ip", "http_query_parameter_name")
        yield from at_most_one(self, *keys)
        yield from at_most_one(self, "ring_hash", "maglev")
        if self.minimum_ring_size:
            path = ("minimumRingSize",)
            yield Flaw(path, "minimumRingSize is deprecated", "write ringHash.minimumRingSize", warns=True)
            if self.ring_hash is not None or self.maglev is not None:
                yield Flaw(path, "the table is described elsewhere too", "remove it")
        if not any(getattr(self, key) for key in keys):
            hint = "add httpHeaderName, httpCookie, useSourceIp or httpQueryParameterName"
            yield Flaw((), "nothing is hashed", hint, warns=True)


class Distribute(Shape):
    """How traffic of one place is shared among places."""

    from_: Text | None = Field(default=None, alias="from")
    to: dict[str, UInt] | None = None


class Failover(Shape):
    """Where traffic goes when a region has no healthy endpoint."""

    from_: Text | None = Field(default=None, alias="from")
    to: Text | None = None


def _regions(failovers: tuple[Failover, ...] | None) -> Iterator[Flaw]:
    """Failover is from one region to another."""
    for number, item in enumerate(failovers or ()):
        path = ("failover", number)
        if (item.from_ or "") == (item.to or ""):
            yield Flaw(path, "from and to are the same region", "name another region")
        for name, region in (("from", item.from_ or ""), ("to", item.to or "")):
            if "/" in region or "*" in region:
                yield Flaw((*path, name), f"{region!r} is not a region", "write its name alone, as 'eu-west'")


class LocalityLoadBalancerSetting(Shape):
    """Keeps traffic near, and says where else it may go."""

    distribute: tuple[Distribute, ...] | None = None
    enabled: Bool | None = None
    failover: tuple[Failover, ...] | None = None
    failover_priority: tuple[Text, ...] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Either shares or places to fall back to; places are told apart (Istio's validation)."""
        if self.distribute and self.failover:
            yield Flaw(("failover",), "distribute is there too", "keep one of them")
            return
        labels = set(self.failover_priority or ()) & TOPOLOGY
        if self.failover and labels:
            message = f"failover is there too, and {min(labels)} says the same"
            yield Flaw(("failoverPriority",), message, "keep one of them")
            return
        for number, share in enumerate(self.distribute or ()):
            weights = list((share.to or {}).values())
            if not all(1 <= weight <= 100 for weight in weights) or sum(weights) != 100:
                path = ("distribute", number, "to")
                yield Flaw(path, f"the shares add up to {sum(weights)}", "each from 1 to 100, 100 together")
            yield from each(("distribute", number, "to"), [apart(list(share.to or {}))])
        yield from each(("distribute",), [apart([share.from_ or "" for share in self.distribute or ()])])
        yield from _regions(self.failover)


class WarmupConfiguration(Shape):
    """Gives new endpoints their share little by little."""

    aggression: Annotated[Float, Field(gt=0)] | None = None
    duration: PositiveDuration
    minimum_percent: Annotated[Float, Field(ge=0, le=100)] | None = None


class ZoneAwareLoadBalancerSetting(Shape):
    """Keeps traffic in the zone as long as the zone can carry it."""

    enabled: Bool | None = None
    failover: tuple[Failover, ...] | None = None
    failover_priority: tuple[Text, ...] | None = None
    min_cluster_size: Annotated[UInt, Field(ge=1)] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Envoy knows regions and zones by itself."""
        for number, label in enumerate(self.failover_priority or ()):
            if label in TOPOLOGY:
                yield Flaw(("failoverPriority", number), f"{label} is looked at anyway", "remove it")
        yield from _regions(self.failover)


class BackendUtilization(Shape):
    """Weights endpoints by the load that they report (ORCA)."""

    error_utilization_penalty_percent: UInt | None = None
    metric_names_for_computing_utilization: tuple[Text, ...] | None = None
    weight_expiration_period: ProtoDuration | None = None
    weight_stabilization_period: ProtoDuration | None = None
    weight_update_period: ProtoDuration | None = None


class LoadBalancerSettings(Shape):
    """How an endpoint is chosen."""

    backend_utilization: BackendUtilization | None = None
    consistent_hash: ConsistentHashLB | None = None
    locality_lb_setting: LocalityLoadBalancerSetting | None = None
    simple: (
        Literal["UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"] | None
    ) = None
    """LEAST_REQUEST unless said otherwise."""
    warmup: WarmupConfiguration | None = None
    """Spares new endpoints at first."""
    warmup_duration_secs: PositiveDuration | None = None
    zone_aware_lb_setting: ZoneAwareLoadBalancerSetting | None = None

    def flaws(self) -> Iterator[Flaw]:
        """One way to choose, one way to stay near."""
        yield from at_most_one(self, "simple", "consistent_hash", "backend_utilization")
        yield from at_most_one(self, "locality_lb_setting", "zone_aware_lb_setting")

    def lacking(self, outliers: OutlierDetection | None) -> Iterator[Flaw]:
        """Failover without outlier detection: nobody notices that endpoints fail."""
        for name in ("locality_lb_setting", "zone_aware_lb_setting"):
            found = getattr(self, name)
            if found is not None and (found.failover or found.failover_priority) and outliers is None:
                path = ("loadBalancer", wire_name(self, name))
                yield Flaw(path, "failover does not happen without outlierDetection", "add it", warns=True)


class OutlierDetection(Shape):
    """Sets endpoints aside that fail."""

    base_ejection_time: PositiveDuration | None = None
    """How long the first time; longer each further time; 30s unless said otherwise."""
    consecutive_5xx_errors: UInt | None = Field(default=None, alias="consecutive5xxErrors")
    """Failures in a row that set an endpoint aside; 5 unless said otherwise, 0 for never."""
    consecutive_errors: ProtoInt | None = None
    consecutive_gateway_errors: UInt | None = None
    consecutive_local_origin_failures: UInt | None = None
    interval: PositiveDuration | None = None
    """How often endpoints are looked at; 10s unless said otherwise."""
    max_ejection_percent: Annotated[Count, Field(le=100)] | None = None
    """The share that may be set aside; 10 unless said otherwise."""
    min_health_percent: Annotated[Count, Field(le=100)] | None = None
    outlier_detection_http_error_codes: tuple[Annotated[ProtoInt, Field(ge=100, le=599)], ...] | None = None
    split_external_local_origin_errors: Bool | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Failures to connect are counted apart only where that is asked for."""
        if self.consecutive_errors:
            path = ("consecutiveErrors",)
            hint = "write consecutive5xxErrors or consecutiveGatewayErrors"
            yield Flaw(path, "consecutiveErrors is deprecated", hint, warns=True)
        if self.consecutive_local_origin_failures and not self.split_external_local_origin_errors:
            path = ("consecutiveLocalOriginFailures",)
            yield Flaw(path, "they are not counted apart", "add 'splitExternalLocalOriginErrors: true'")
