"""How far a change has come: one type on one proxy, and a revision on all of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Phase(StrEnum):
    """Istio's words for one type on one proxy."""

    NOT_SENT = "NOT SENT"
    STALE = "STALE"
    SYNCED = "SYNCED"
    NACK = "NACK"


@dataclass(slots=True)
class TypeStatus:
    """One type on one proxy. Times are seconds since the epoch, 0 for never.

    ``sent`` and ``acknowledged`` are nonces: equal ones mean that the proxy has what it was sent.
    ``error`` is the proxy's last refusal, empty after it took everything.
    """

    sent: str = ""
    sent_at: float = 0.0
    acknowledged: str = ""
    acknowledged_at: float = 0.0
    resources: int = 0
    error: str = ""
    error_at: float = 0.0

    def phase(self) -> Phase:
        """SYNCED, STALE (sent and not acknowledged), NACK, or NOT SENT."""
        if self.error:
            return Phase.NACK
        if not self.sent:
            return Phase.NOT_SENT
        return Phase.SYNCED if self.sent == self.acknowledged else Phase.STALE


@dataclass(frozen=True, slots=True)
class Rejected:
    """A resource that a proxy refuses. ``sources`` are API paths of the resources that it was made of."""

    proxy: str
    type: str
    name: str
    error: str
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Convergence:
    """How far a revision has come. ``missing`` are the proxies that do not run it yet.

    ``published`` tells whether everything that it changes was made and is on its way, ``latest`` which
    revision is the newest of those.
    """

    revision: int
    published: bool
    total: int
    missing: tuple[str, ...]
    rejected: tuple[Rejected, ...]
    latest: int = 0

    @property
    def done(self) -> bool:
        """Whether every connected proxy has the revision, and none refuses a part that came with it."""
        return self.published and not self.missing and not self.rejected

    def as_json(self) -> dict[str, Any]:
        """For the API."""
        return {
            "revision": self.revision,
            "latest": self.latest,
            "converged": self.done,
            "published": self.published,
            "total": self.total,
            "missing": list(self.missing),
            "rejected": [
                {
                    "proxy": r.proxy,
                    "type": r.type,
                    "name": r.name,
                    "error": r.error,
                    "sources": list(r.sources),
                }
                for r in self.rejected
            ],
        }
