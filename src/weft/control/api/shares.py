"""Callers share the API: so many requests at once and so many bytes of bodies each.

A request of a caller who has too many waits for one of that caller's own to end. Watches, and requests that
wait for convergence, last as long as they like and are limited by the number of connections alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from weft.control.api.status import ApiError

AT_ONCE: Final = 32
BODIES_BYTES: Final = 32 << 20
ALL_BODIES_BYTES: Final = 256 << 20
PATIENCE_S: Final = 30.0


@dataclass(slots=True)
class _Caller:
    free: asyncio.Semaphore
    users: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Share:
    """One request's part."""

    shares: Shares
    caller: _Caller
    bytes: int = 0

    def take(self, count: int) -> None:
        """Hold so many more bytes of a body.

        Raises:
            ApiError: 429 when the caller, or all together, hold too many.
        """
        if (
            self.caller.bytes + count > self.shares.bodies
            or self.shares.held + count > self.shares.all_bodies
        ):
            raise too_many("too many large requests at once")
        self.bytes += count
        self.caller.bytes += count
        self.shares.held += count


@dataclass(slots=True)
class Shares:
    """All callers. ``held``: bytes of bodies that are being read."""

    at_once: int = AT_ONCE
    bodies: int = BODIES_BYTES
    all_bodies: int = ALL_BODIES_BYTES
    patience: float = PATIENCE_S
    held: int = 0
    _callers: dict[str, _Caller] = field(default_factory=dict)

    @asynccontextmanager
    async def of(self, caller: str, *, lasts: bool) -> AsyncIterator[Share]:
        """A place for one request; one that ``lasts`` does not wait for it.

        Raises:
            ApiError: 429 when none became free in time.
        """
        known = self._callers.setdefault(caller, _Caller(asyncio.Semaphore(self.at_once)))
        known.users += 1
        share = Share(self, known)
        try:
            if lasts:
                yield share
                return
            try:
                async with asyncio.timeout(self.patience):
                    await known.free.acquire()
            except TimeoutError:
                raise too_many("too many requests at once") from None
            try:
                yield share
            finally:
                known.free.release()
        finally:
            known.bytes -= share.bytes
            self.held -= share.bytes
            known.users -= 1
            if not known.users:
                del self._callers[caller]


def lasts(path: str, query: Mapping[str, str]) -> bool:
    """Whether a request is meant to stay open."""
    return (
        query.get("watch") in {"true", "1"}
        or bool(query.get("wait"))
        or path.startswith("/weft/v1/convergence/")
    )


def too_many(what: str) -> ApiError:
    """429."""
    return ApiError(429, f"{what}: try again", reason="TooManyRequests", details={"retryAfterSeconds": 1})
