"""Recent events in memory and whoever reads them: a reader is a place in the feed, not a queue.

A slow reader costs nothing; one that falls behind what is kept is sent to the log on disk, and when that
is gone too, it is told so.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

from weft.store.interface import Event, GoneError

KEEP: Final = 4096

Older = Callable[[int, int], Awaitable[Sequence[Event]]]
"""Events after a revision up to another one, from disk; raises ``GoneError`` when they are not there."""


class Feed:
    """The tail of the log. Lives on one event loop."""

    def __init__(self, revision: int, older: Older, *, keep: int = KEEP) -> None:
        self._older = older
        self._keep = keep
        self._events: list[Event] = []
        self._floor = revision  # events after it are in memory
        self._revision = revision
        self._oldest = 0  # a watch may start here at the earliest
        self._changed = asyncio.Event()
        self._closed = False

    def publish(self, events: Sequence[Event]) -> None:
        """Append events and wake the readers."""
        self._events.extend(events)
        self._revision = events[-1].revision
        if len(self._events) > 2 * self._keep:
            self._floor = self._events[-self._keep - 1].revision
            del self._events[: -self._keep]
        self._wake()

    def forget(self, before: int) -> None:
        """Events up to and including ``before`` are compacted."""
        if before <= self._oldest:
            return
        self._oldest = before
        drop = bisect_right(self._events, before, key=_revision)
        del self._events[:drop]
        self._floor = max(self._floor, before)
        self._wake()

    def close(self) -> None:
        """End every reader's iteration."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def read(self, since: int) -> AsyncIterator[Event]:
        """Events after ``since``, for ever.

        Raises:
            GoneError: when they are no longer kept.
        """
        while not self._closed:
            if since < self._oldest:
                raise GoneError(since, self._oldest)
            changed = self._changed
            if since < self._floor:
                batch: Sequence[Event] = await self._older(since, self._floor)
            else:
                batch = self._events[bisect_right(self._events, since, key=_revision) :]
            for event in batch:
                yield event
                since = event.revision
            if not batch:
                if since < self._floor:
                    since = self._floor  # the log holds nothing in between
                else:
                    await changed.wait()


def _revision(event: Event) -> int:
    return event.revision
