"""How calls went: rows of series added up, and said in the words of docs/reference/telemetry.md."""

from __future__ import annotations

from functools import lru_cache
from operator import add
from typing import Any, Final

from weft.telemetry.histogram import percentile
from weft.telemetry.series import (
    CLOSED,
    DURATION_US,
    FIRST_BUCKET,
    OPENED,
    RECEIVED,
    REQUESTS,
    SENT,
    WIDTH,
    Row,
    SeriesKey,
)

# UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS
_SERVER_FAULTS: Final = frozenset({"2", "4", "12", "13", "14", "15"})
_PERCENTILES: Final = (("p50", 0.50), ("p95", 0.95), ("p99", 0.99))
_NAMES: Final = tuple(name for name, _ in _PERCENTILES)
_NOTHING: Final = {
    "requests": 0, "rps": 0.0, "errors": 0, "refused": 0, "success": None, "mean": None,
    **dict.fromkeys(_NAMES), "mtls": None, "opened": 0, "closed": 0, "connections": 0, "sent": 0,
    "received": 0, "sentPerSecond": 0.0, "receivedPerSecond": 0.0,
}  # fmt: skip
_REFUSED, _FAILED = 400, 500
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
    """A sum of rows. ``row``: as of series; ``errors``, ``refused``, ``secured``: how many of them."""

    __slots__ = ("errors", "last", "open", "refused", "row", "secured")

    def __init__(self) -> None:
        self.row: list[int] = [0] * WIDTH
        self.errors = self.refused = self.secured = self.open = self.last = 0

    def count(self, key: SeriesKey, row: Row, *, opened: int = 0, last: int = 0) -> None:
        """Add what a series counted. ``opened``: its connections that are open now; ``last``: ms."""
        self.row = list(map(add, self.row, row))
        self.open += opened
        self.last = max(self.last, last)
        if row[REQUESTS]:
            how = outcome(key.code, key.grpc)
            if how == "failed":
                self.errors += row[REQUESTS]
            elif how == "refused":
                self.refused += row[REQUESTS]
        if key.secured == "mtls":
            self.secured += row[REQUESTS] + row[OPENED]

    def merge(self, other: Signals) -> None:
        """Add another sum."""
        self.row = list(map(add, self.row, other.row))
        self.errors, self.refused = self.errors + other.errors, self.refused + other.refused
        self.secured, self.open = self.secured + other.secured, self.open + other.open
        self.last = max(self.last, other.last)

    @property
    def calls(self) -> int:
        """Requests and connections."""
        return self.row[REQUESTS] + self.row[OPENED]

    def __bool__(self) -> bool:
        return any(self.row)

    def to_dict(self, window_ms: int) -> dict[str, Any]:
        """As JSON has it; rates are over the window."""
        if not self and not self.open:
            return dict(_NOTHING)
        row, seconds = self.row, max(1, window_ms) / 1_000
        requests, counts = row[REQUESTS], row[FIRST_BUCKET:]
        timed = sum(counts)
        return {
            "requests": requests,
            "rps": round(requests / seconds, 4),
            "errors": self.errors,
            "refused": self.refused,
            "success": round(1 - self.errors / requests, 6) if requests else None,
            "mean": round(row[DURATION_US] / 1_000 / timed, 3) if timed else None,
            **(
                {name: _rounded(percentile(counts, share)) for name, share in _PERCENTILES}
                if timed
                else dict.fromkeys(_NAMES)
            ),
            "mtls": round(self.secured / self.calls, 6) if self.calls else None,
            "opened": row[OPENED],
            "closed": row[CLOSED],
            "connections": self.open,
            "sent": row[SENT],
            "received": row[RECEIVED],
            "sentPerSecond": round(row[SENT] / seconds, 1),
            "receivedPerSecond": round(row[RECEIVED] / seconds, 1),
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
