"""Are two versions different, or is it chance? Counts and histograms in, a judgement in words out. Pure.

Success is compared by the two-proportion z-test with pooled variance, and by Fisher's exact test where a side
has too few failures (or successes) to expect for a bell curve. Durations are compared twice: all of
them by the Mann-Whitney test on histograms (values in one bucket are ties, and counted as such), and the
slow ones by the z-test of the share above the bucket that holds the baseline's 95th percentile. Two tests
are wrong more easily than one, so the better p is doubled (Bonferroni). With thousands of requests a
difference of nothing becomes sure: one counts only when it is also large enough to matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

ALPHA: Final = 0.01
FEWEST: Final = 30
# What matters: a thousandth of the requests failing more; one request in fifty slower than before.
_SUCCESS_MATTERS: Final = 0.001
_EFFECT_MATTERS: Final = 0.03
_TAIL_MATTERS: Final = 0.02
_BELL: Final = 5
_ROUNDING: Final = 1 + 1e-7
_QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one version did. ``counts`` has one more than ``bounds`` (ms): the last bucket has no end."""

    name: str
    requests: int
    errors: int
    rps: float = 0.0
    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()

    @property
    def success(self) -> float | None:
        """Share of the requests that are no errors."""
        return 1 - self.errors / self.requests if self.requests else None

    def quantile(self, share: float) -> float | None:
        """In ms, within its bucket by straight line; of the last bucket its beginning."""
        return quantile(self.bounds, self.counts, share)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        found: dict[str, Any] = {
            "name": self.name, "requests": self.requests, "errors": self.errors, "rps": self.rps,
            "success": self.success,
        }  # fmt: skip
        return found | {name: self.quantile(share) for name, share in _QUANTILES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One judgement. ``verdict``: ``worse``, ``better``, ``same`` or ``unknown``; ``p`` None: no test."""

    about: str
    verdict: str
    p: float | None
    method: str
    words: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "about": self.about, "verdict": self.verdict, "p": self.p, "method": self.method,
            "words": self.words,
        }  # fmt: skip


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """The duration that ``share`` of them do not exceed; None without any."""
    total = sum(counts)
    if not total:
        return None
    rank, seen = share * total, 0
    for place, count in enumerate(counts):
        if count and seen + count >= rank:
            low = bounds[place - 1] if place else 0.0
            if place >= len(bounds):
                return low
            return low + (bounds[place] - low) * (rank - seen) / count
        seen += count
    return bounds[-1] if bounds else None


def proportions(first: int, of_first: int, second: int, of_second: int) -> float:
    """Two-sided p that two shares are the same but for chance: z-test (pooled), of few Fisher's."""
    if not of_first or not of_second:
        return 1.0
    if _are_few(first + second, of_first, of_second):
        return fisher(first, of_first, second, of_second)
    pooled = (first + second) / (of_first + of_second)
    variance = pooled * (1 - pooled) * (1 / of_first + 1 / of_second)
    if variance <= 0:
        return 1.0
    return _two_sided((first / of_first - second / of_second) / math.sqrt(variance))


def _are_few(count: int, of_first: int, of_second: int) -> bool:
    """Whether a side can expect less than five of either outcome: a normal distribution is none of theirs."""
    total = of_first + of_second
    return min(count, total - count) * min(of_first, of_second) < _BELL * total


def fisher(first: int, of_first: int, second: int, of_second: int) -> float:
    """Two-sided p by Fisher's exact test: how likely is a split of all hits as unlikely as this one?"""
    hits, total = first + second, of_first + of_second

    def chance(split: int) -> float:
        ways = _log_choose(of_first, split) + _log_choose(of_second, hits - split)
        return math.exp(ways - _log_choose(total, hits))

    seen = chance(first) * _ROUNDING
    splits = range(max(0, hits - of_second), min(hits, of_first) + 1)
    return min(1.0, sum(p for split in splits if (p := chance(split)) <= seen))


def _log_choose(total: int, count: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(count + 1) - math.lgamma(total - count + 1)


def mann_whitney(first: Sequence[int], second: Sequence[int]) -> tuple[float, float]:
    """Of two histograms with the same bounds: two-sided p, and how often the second is larger, from 0 to 1.

    The latter of pairs of one value each, ties counting half. By the normal approximation with
    the variance corrected for ties.
    """
    n, m = sum(first), sum(second)
    if not n or not m:
        return 1.0, 0.5
    below, larger, ties = 0, 0.0, 0
    for one, other in zip(first, second, strict=True):
        larger += other * (below + one / 2)
        below += one
        ties += (one + other) ** 3 - (one + other)
    total = n + m
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance <= 0:
        return 1.0, larger / (n * m)
    return _two_sided((larger - n * m / 2) / math.sqrt(variance)), larger / (n * m)


def _two_sided(z: float) -> float:
    return math.erfc(abs(z) / math.sqrt(2))


def compare(base: Sample, other: Sample, alpha: float = ALPHA) -> tuple[Finding, ...]:
    """How ``other`` does beside ``base``: success, then latency."""
    return (_success(base, other, alpha), _latency(base, other, alpha))


def regressed(findings: Sequence[Finding]) -> bool:
    """Whether any of them is worse."""
    return any(finding.verdict == "worse" for finding in findings)


def _success(base: Sample, other: Sample, alpha: float) -> Finding:
    few = _are_few(base.errors + other.errors, base.requests, other.requests)
    method = "Fisher's exact test" if few else "two-proportion z-test"
    if base.success is None or other.success is None or min(base.requests, other.requests) < FEWEST:
        return _too_few("success", method, base.requests, other.requests)
    p = proportions(base.errors, base.requests, other.errors, other.requests)
    change = other.success - base.success
    requests = f"{base.requests + other.requests:,} requests"
    if p >= alpha or abs(change) < _SUCCESS_MATTERS:
        words = f"no difference in success ({base.success:.2%} and {other.success:.2%}, p{_p(p)}, {requests})"
        return Finding(about="success", verdict="same", p=p, method=method, words=words)
    verdict, word = ("worse", "fails more") if change < 0 else ("better", "fails less")
    words = (
        f"{other.name} {word}: {base.success:.2%} -> {other.success:.2%} of the requests succeed "
        f"(p{_p(p)}, {requests})"
    )
    return Finding(about="success", verdict=verdict, p=p, method=method, words=words)


def _latency(base: Sample, other: Sample, alpha: float) -> Finding:
    method = "Mann-Whitney test and z-test of the slowest twentieth, on histograms"
    n, m = sum(base.counts), sum(other.counts)
    if min(n, m) < FEWEST or base.bounds != other.bounds:
        return _too_few("latency", method, n, m)
    whole, chance = mann_whitney(base.counts, other.counts)
    tail, more = _tail(base, other)
    p = min(1.0, 2 * min(whole, tail))
    shifted = whole < alpha / 2 and abs(chance - 0.5) >= _EFFECT_MATTERS
    stretched = tail < alpha / 2 and abs(more) >= _TAIL_MATTERS
    requests = f"p{_p(p)}, {n + m:,} requests"
    if not shifted and not stretched:
        changes = f"p50 {_change(base, other, 0.5)}, p95 {_change(base, other, 0.95)}"
        words = f"no difference in latency ({changes}, {requests})"
        return Finding(about="latency", verdict="same", p=p, method=method, words=words)
    # The slow ones decide when both speak: they are what people feel.
    slower = more > 0 if stretched else chance > 0.5
    word, verdict = ("slower", "worse") if slower else ("faster", "better")
    share = 0.95 if stretched else 0.5
    shown = f"p{share * 100:.0f} {_change(base, other, share)}"
    return Finding(
        about="latency", verdict=verdict, p=p, method=method,
        words=f"{other.name} is {word}: {shown} ({requests})",
    )  # fmt: skip


def _tail(base: Sample, other: Sample) -> tuple[float, float]:
    """p of a difference in the share of slow ones, and how much larger it is for the other."""
    slow = base.quantile(0.95) or 0.0
    place = next((n for n, bound in enumerate(base.bounds) if bound >= slow), len(base.bounds) - 1)
    n, m = sum(base.counts), sum(other.counts)
    above, others = sum(base.counts[place + 1 :]), sum(other.counts[place + 1 :])
    return proportions(above, n, others, m), others / m - above / n


def _change(base: Sample, other: Sample, share: float) -> str:
    before, after = base.quantile(share) or 0.0, other.quantile(share) or 0.0
    return f"{after - before:+.3g} ms, {before:.3g} -> {after:.3g} ms"


def _too_few(about: str, method: str, first: int, second: int) -> Finding:
    words = f"too few requests to judge {about} ({first:,} and {second:,}; {FEWEST} each are needed)"
    return Finding(about=about, verdict="unknown", p=None, method=method, words=words)


def _p(p: float) -> str:
    return "<0.0001" if p < 0.0001 else f"={p:.2g}" if p < 0.01 else f"={p:.2f}"
