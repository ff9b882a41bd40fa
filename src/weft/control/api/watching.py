"""A watch: the store's events as Kubernetes' stream of JSON lines."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from weft.control.api.metadata import Wire, present
from weft.control.api.selectors import Predicate
from weft.control.api.status import expired
from weft.model.catalog import KindRow
from weft.store.interface import Action, Event, GoneError, Store, Stored

BOOKMARK_SECONDS: Final = 60.0
_ENDS_INITIAL: Final = "k8s.io/initial-events-end"

Render = Callable[[Wire, bool], Mapping[str, Any]]
"""An object in the form that the client wants; the flag is set for the first one of a stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """One watch. ``since`` None begins with everything that is there.

    ``seconds`` is how long it lasts (None: until the client goes); ``mark_initial`` ends the first state
    with a bookmark. ``allowed`` is asked now and then: a watch ends with the right to it.
    """

    row: KindRow
    version: str
    namespace: str | None
    selects: Predicate
    since: int | None
    render: Render
    bookmarks: bool = False
    mark_initial: bool = False
    seconds: float | None = None
    allowed: Callable[[], Awaitable[bool]] | None = None


async def lines(store: Store, watch: Watch, stop: asyncio.Event) -> AsyncIterator[bytes]:
    """The body of the answer, until its time is over, ``stop`` is set, or it fell behind (410)."""
    stream = _Stream(watch)
    since = watch.since
    if since is None:
        since = store.revision
        for stored in await store.list(watch.row.id, watch.namespace):
            wire = present(stored, watch.row, watch.version)
            if watch.selects(wire):
                yield stream.line("ADDED", wire)
        if watch.mark_initial:
            yield stream.bookmark(since, {_ENDS_INITIAL: "true"})
    try:
        async for event in _timed(store.watch(since), watch, stop):
            if event is None:
                if watch.allowed is not None and not await watch.allowed():
                    return
                if watch.bookmarks:
                    yield stream.bookmark(since)
                continue
            since = event.revision
            line = stream.event(event)
            if line:
                yield line
    except GoneError as gone:
        yield msgspec.json.encode({"type": "ERROR", "object": expired(gone.message).body()}) + b"\n"


async def _timed(
    events: AsyncIterator[Event], watch: Watch, stop: asyncio.Event
) -> AsyncIterator[Event | None]:
    """The events, and None whenever a bookmark is due."""
    loop = asyncio.get_running_loop()
    end = loop.time() + watch.seconds if watch.seconds is not None else None
    due = loop.time() + BOOKMARK_SECONDS
    stopping = asyncio.ensure_future(stop.wait())
    following: asyncio.Future[Event] = asyncio.ensure_future(anext(events))
    try:
        while True:
            until = due if end is None else min(due, end)
            either: set[asyncio.Future[Any]] = {stopping, following}
            await asyncio.wait(
                either,
                timeout=max(0.0, until - loop.time()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if following.done():
                try:
                    event = following.result()
                except StopAsyncIteration:  # the store closes
                    return
                following = asyncio.ensure_future(anext(events))
                yield event
            if stopping.done():
                return
            now = loop.time()
            if end is not None and now >= end:
                yield None
                return
            if now >= due:
                due = now + BOOKMARK_SECONDS
                yield None
    finally:
        stopping.cancel()
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, GoneError):
            await following


class _Stream:
    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._kind = watch.row.id
        self._first = True

    def line(self, kind: str, wire: Wire) -> bytes:
        shown = self._watch.render(wire, self._first)
        self._first = False
        return msgspec.json.encode({"type": kind, "object": shown}) + b"\n"

    def bookmark(self, revision: int, annotations: Mapping[str, str] | None = None) -> bytes:
        metadata: Wire = {"resourceVersion": str(revision), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = dict(annotations)
        row = self._watch.row
        group_version = row.api_version_of(self._watch.version)
        wire = {"apiVersion": group_version, "kind": row.kind, "metadata": metadata}
        return msgspec.json.encode({"type": "BOOKMARK", "object": wire}) + b"\n"

    def event(self, event: Event) -> bytes | None:
        key = event.stored.key
        if key.kind != self._kind or self._watch.namespace not in (None, key.namespace):
            return None
        wire = self._selected(event.stored) if event.action is not Action.DELETED else None
        before = self._selected(event.previous) if event.previous else None
        if wire is not None:
            return self.line("ADDED" if before is None else "MODIFIED", wire)
        if before is None:
            return None
        # It is gone, or no longer selected: the client learns the last state, at the new revision.
        before["metadata"]["resourceVersion"] = str(event.revision)
        return self.line("DELETED", before)

    def _selected(self, stored: Stored) -> Wire | None:
        wire = present(stored, self._watch.row, self._watch.version)
        return wire if self._watch.selects(wire) else None
