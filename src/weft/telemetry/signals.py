"""How calls went: rows of series added up, and said in the words of docs/reference/telemetry.md."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from weft.telemetry.histogram import percentiles
from weft.telemetry.rows import OPENED, REQUESTS, Row, column, unpack
from weft.telemetry.series import SeriesKey

# UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS
_SERVER_FAULTS: Final = frozenset({"2", "4", "12", "13", "14", "15"})
_SHARES: Final = (0.50, 0.95, 0.99)
_NOTHING: Final = {
    "requests": 0, "rps": 0.0, "errors": 0, "refused": 0, "success": None, "mean": None,
    "p50": None, "p95": None, "p99": None, "mtls": None, "opened": 0, "closed": 0, "connections": 0,
    "sent": 0, "received": 0, "sentPerSecond": 0.0, "receivedPerSecond": 0.0,
}  # fmt: skip
_REFUSED, _FAILED = 400, 500
UNSENT: Final = "unsent"
"""In the place of how a call was secured, for what its caller's proxy never sent on."""
# Envoy's flags of a request that its caller's proxy answered, and which went nowhere: no healthy upstream,
# no connection, overflow, no route, no cluster, a fault, limits, authorization, a direct answer.
_NEVER_SENT: Final = frozenset({"UH", "UF", "UO", "NR", "NC", "FI", "RL", "RLSE", "UAEX", "NFCF", "DF", "OM"})


@lru_cache(maxsize=4096)
def outcome(code: str, grpc: str) -> str:
    """``ok``, ``refused`` (the caller's fault) or ``failed`` (the server's).

    Without a status the caller went away before there was one.
    """
    if grpc:
        return "ok" if grpc == "0" else "failed" if grpc in _SERVER_FAULTS else "refused"
    number = int(code) if code.isascii() and code.isdecimal() and len(code) < 6 else 0
    return "failed" if number >= _FAILED else "refused" if number >= _REFUSED or number == 0 else "ok"


@lru_cache(maxsize=4096)
def went_nowhere(flags: str) -> bool:
    """Whether a caller's proxy says by these flags that it never sent the request on."""
    return not _NEVER_SENT.isdisjoint(flags.split(","))


class Signals:
    """A sum of rows. ``errors``, ``refused``, ``secured``, ``unsent``: how many of them; ``last``: the newest
    (ms). What was never sent on was over no connection, neither a secured nor another one.
    """

    __slots__ = ("errors", "last", "open", "refused", "secured", "sum", "unsent")

    def __init__(self) -> None:
        self.sum: Row = 0
        self.errors = self.refused = self.secured = self.unsent = self.open = self.last = 0

    def count(self, key: SeriesKey, row: Row, *, opened: int = 0, last: int = 0) -> None:
        """Add what a series counted. ``opened``: its connections that are open now; ``last``: ms."""
        self.sum += row
        self.open += opened
        if last > self.last:
            self.last = last
        how = outcome(key.code, key.grpc)
        if how == "failed":
            self.errors += column(row, REQUESTS)
        elif how == "refused":
            self.refused += column(row, REQUESTS)
        if key.secured == "mtls":
            self.secured += column(row, REQUESTS) + column(row, OPENED)
        elif key.secured == UNSENT:
            self.unsent += column(row, REQUESTS) + column(row, OPENED)

    def merge(self, other: Signals) -> None:
        """Add another sum."""
        self.sum += other.sum
        self.errors, self.refused = self.errors + other.errors, self.refused + other.refused
        self.secured, self.unsent = self.secured + other.secured, self.unsent + other.unsent
        self.open += other.open
        if other.last > self.last:
            self.last = other.last

    @property
    def row(self) -> tuple[int, ...]:
        """The sum as its columns."""
        return unpack(self.sum)

    @property
    def calls(self) -> int:
        """Requests and connections."""
        return column(self.sum, REQUESTS) + column(self.sum, OPENED)

    @property
    def sent(self) -> int:
        """Those of them that were over some connection."""
        return max(0, self.calls - self.unsent)

    @property
    def mtls(self) -> float | None:
        """The share of those over mutual TLS; None without any."""
        sent = self.sent
        return round(self.secured / sent, 6) if sent else None

    def __bool__(self) -> bool:
        return self.sum != 0

    def to_dict(self, window_ms: int) -> dict[str, Any]:
        """As JSON has it; rates are over the window."""
        if not self and not self.open:
            return dict(_NOTHING)
        requests, lasted, opened, closed, sent, received, *counts = unpack(self.sum)
        timed, seconds = sum(counts), max(1, window_ms) / 1_000
        p50, p95, p99 = percentiles(counts, _SHARES)
        return {
            "requests": requests,
            "rps": round(requests / seconds, 4),
            "errors": self.errors,
            "refused": self.refused,
            "success": round(1 - self.errors / requests, 6) if requests else None,
            "mean": round(lasted / 1_000 / timed, 3) if timed else None,
            "p50": p50 if p50 is None else round(p50, 3),
            "p95": p95 if p95 is None else round(p95, 3),
            "p99": p99 if p99 is None else round(p99, 3),
            "mtls": self.mtls,
            "opened": opened,
            "closed": closed,
            "connections": self.open,
            "sent": sent,
            "received": received,
            "sentPerSecond": round(sent / seconds, 1),
            "receivedPerSecond": round(received / seconds, 1),
        }
