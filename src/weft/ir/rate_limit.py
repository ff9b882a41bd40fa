"""Limits to the requests that a proxy takes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from weft.ir.match import HeaderMatch


class CallerBy(StrEnum):
    """What tells callers apart."""

    PRINCIPAL = "principal"
    ADDRESS = "address"
    HEADER = "header"
    CLAIM = "claim"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerKey:
    """``path`` is the header's name, or leads to the claim, outermost first."""

    by: CallerBy
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """``tokens`` requests in each ``interval`` on average, ``burst`` at once, of those that ``match``.

    Each combination of the values of ``per`` has a count of its own.
    """

    name: str
    tokens: int
    interval: timedelta
    burst: int
    match: tuple[HeaderMatch, ...] = ()
    per: tuple[CallerKey, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitService:
    """Who counts in the proxies' place: a cluster that speaks Envoy's rate limit protocol."""

    cluster: str
    domain: str
    timeout: timedelta
    fail_open: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """``shared``: the buckets are divided among all replicas. ``shadow``: nothing is refused, all counted."""

    name: str
    buckets: tuple[Bucket, ...]
    shared: bool = True
    shadow: bool = False
    status: int = 429
    tell: bool = True
    service: LimitService | None = None
