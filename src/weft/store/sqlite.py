"""The embedded store: SQLite behind one thread, all objects also in memory.

Reads never touch the disk. Writes queue for the thread, which commits what has gathered as one SQLite
transaction (each request alone may still fail), so that many small writers share one fsync.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from weft.errors import WeftError
from weft.model.resource import Key
from weft.store.engine import Engine
from weft.store.feed import KEEP, Feed
from weft.store.interface import Action, Change, Delete, Event, NotFoundError, Operation, Put, Stored, Witness

_T = TypeVar("_T")
_GROUP: Final = 64


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a job did to the objects; ``oldest`` is where watches may start after it."""

    result: Any
    events: tuple[Event, ...] = ()
    moved: Sequence[Stored] = ()
    oldest: int = 0


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[Engine], _Outcome]
    done: asyncio.Future[Any]


class SqliteStore:
    """``Store`` in a directory (0700): ``store.db``, ``store.key``, ``store.lock``. One process at a time."""

    def __init__(self, engine: Engine, keep: int) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._objects: dict[str, dict[tuple[str, str], Stored]] = {}
        for stored in engine.objects():
            self._show(stored)
        self._revision = engine.revision
        self._feed = Feed(self._revision, self._older, keep=keep)
        self._feed.forget(engine.oldest)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="store", daemon=True)
        self._thread.start()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, directory: Path, *, keep: int = KEEP) -> AsyncIterator[Self]:
        """Open or make the store in ``directory``; ``keep`` events stay in memory.

        Raises:
            WeftError: when another process holds it, or its files cannot be used.
        """
        store = cls(await asyncio.to_thread(Engine, directory), keep)
        try:
            yield store
        finally:
            await store.close()

    async def close(self) -> None:
        """Finish what is queued and release the files."""
        if self._closed:
            return
        self._closed = True
        self._feed.close()
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    # the store's thread

    def _work(self) -> None:
        open_ = True
        while open_:
            group = [self._jobs.get()]
            while len(group) < _GROUP and not self._jobs.empty():
                group.append(self._jobs.get())
            jobs = [job for job in group if job is not None]
            open_ = len(jobs) == len(group)
            done = self._run(jobs)
            with contextlib.suppress(RuntimeError):  # the loop ended without close(): nobody listens
                self._loop.call_soon_threadsafe(self._deliver, done)
        self._engine.close()

    def _run(self, jobs: Sequence[_Job]) -> list[tuple[_Job, _Outcome | BaseException]]:
        done: list[tuple[_Job, _Outcome | BaseException]] = []
        try:
            with self._engine.transaction():
                for job in jobs:
                    try:
                        with self._engine.savepoint():
                            done.append((job, job.work(self._engine)))
                    except WeftError as error:
                        done.append((job, error))
        except Exception as error:  # nothing was committed: everybody is told
            return [(job, error) for job in jobs]
        return done

    # the event loop

    def _deliver(self, done: Sequence[tuple[_Job, _Outcome | BaseException]]) -> None:
        for job, outcome in done:
            if isinstance(outcome, BaseException):
                if not job.done.done():
                    job.done.set_exception(outcome)
                continue
            for stored in outcome.moved:
                self._show(stored)
            for event in outcome.events:
                if event.action is Action.DELETED:
                    self._hide(event.stored.key)
                else:
                    self._show(event.stored)
            if outcome.events:
                self._revision = outcome.events[-1].revision
                self._feed.publish(outcome.events)
            if outcome.oldest:
                self._feed.forget(outcome.oldest)
            if not job.done.done():
                job.done.set_result(outcome.result)

    def _show(self, stored: Stored) -> None:
        key = stored.key
        self._objects.setdefault(key.kind, {})[key.namespace, key.name] = stored

    def _hide(self, key: Key) -> None:
        del self._objects[key.kind][key.namespace, key.name]

    async def _do(self, work: Callable[[Engine], _Outcome]) -> Any:
        if self._closed:
            raise WeftError("the store is closed")
        job = _Job(work, self._loop.create_future())
        self._jobs.put(job)
        return await job.done

    # reads

    @property
    def revision(self) -> int:
        """The last revision that reads show."""
        return self._revision

    async def get(self, key: Key) -> Stored | None:
        """One object, or None."""
        return self._objects.get(key.kind, {}).get((key.namespace, key.name))

    async def list(self, kind: str | None = None, namespace: str | None = None) -> Sequence[Stored]:
        """Objects of a kind (None for all), by kind, namespace and name."""
        kinds = sorted(self._objects) if kind is None else [kind]
        return [
            stored
            for name in kinds
            for (at, _), stored in sorted(self._objects.get(name, {}).items(), key=_place)
            if namespace is None or at == namespace
        ]

    def watch(self, since: int) -> AsyncIterator[Event]:
        """Every change after ``since``; raises ``GoneError`` when they are compacted."""
        return self._feed.read(since)

    async def _older(self, after: int, until: int) -> Sequence[Event]:
        events: Sequence[Event] = await self._do(lambda engine: _Outcome(engine.events(after, until)))
        return events

    async def history(self, key: Key | None = None, *, limit: int = 100) -> Sequence[Change]:
        """Recorded changes, the newest first."""
        changes: Sequence[Change] = await self._do(lambda engine: _Outcome(engine.history(key, limit)))
        return changes

    # writes

    async def transact(
        self, operations: Sequence[Operation], *, actor: str = "", witness: Witness | None = None
    ) -> int:
        """Do all or nothing; the revision after it. Raises as the operation that failed."""
        operations = tuple(operations)

        def work(engine: Engine) -> _Outcome:
            events, moved = engine.transact(operations, actor)
            if witness is not None:
                witness(engine.revision)
            return _Outcome(engine.revision, events, moved, engine.oldest)

        revision: int = await self._do(work)
        return revision

    async def create(self, put: Put, *, actor: str = "") -> Stored:
        """Store a new object; ``AlreadyExistsError`` when it is there."""
        return await self._put(replace(put, expect=0), actor)

    async def update(self, put: Put, *, actor: str = "") -> Stored:
        """Replace an object; ``NotFoundError``, ``ConflictError``."""
        return await self._put(put, actor)

    async def _put(self, put: Put, actor: str) -> Stored:
        def work(engine: Engine) -> _Outcome:
            if put.expect != 0 and engine.find(put.key) is None:
                raise NotFoundError(put.key)
            events, moved = engine.transact([put], actor)
            return _Outcome(engine.find(put.key), events, moved, engine.oldest)

        stored: Stored = await self._do(work)
        return stored

    async def delete(self, key: Key, *, expect: int | None = None, actor: str = "") -> Stored:
        """Remove an object; its last state. Raises ``NotFoundError``, ``ConflictError``."""

        def work(engine: Engine) -> _Outcome:
            events, moved = engine.transact([Delete(key=key, expect=expect)], actor)
            return _Outcome(events[0].stored, events, moved, engine.oldest)

        stored: Stored = await self._do(work)
        return stored

    async def compact(self, before: int) -> None:
        """Forget the events up to and including revision ``before``."""

        def work(engine: Engine) -> _Outcome:
            engine.compact(before)
            return _Outcome(None, oldest=engine.oldest)

        await self._do(work)

    def private(self, namespace: str) -> PrivateTable:
        """A private table."""
        return PrivateTable(self._do, namespace)


class PrivateTable:
    """``Private`` in the store's database."""

    def __init__(self, do: Callable[[Callable[[Engine], _Outcome]], Any], space: str) -> None:
        self._run = do
        self._space = space

    async def _do(self, work: Callable[[Engine], _T]) -> _T:
        result: _T = await self._run(lambda engine: _Outcome(work(engine)))
        return result

    async def get(self, name: str) -> bytes | None:
        """The value, or None."""
        return await self._do(lambda engine: engine.private_get(self._space, name))

    async def put(self, name: str, value: bytes) -> None:
        """Set the value, durably."""
        await self._do(lambda engine: engine.private_put(self._space, name, value))

    async def swap(self, name: str, old: bytes | None, new: bytes | None) -> bool:
        """Replace ``old`` by ``new`` in one step; False when it was not ``old``."""
        return await self._do(lambda engine: engine.private_swap(self._space, name, old, new))

    async def delete(self, name: str) -> bool:
        """Remove it; False when it was not there."""
        return await self._do(lambda engine: engine.private_put(self._space, name, None))

    async def list(self, prefix: str = "") -> dict[str, bytes]:
        """All values whose name starts so, by name."""
        return await self._do(lambda engine: engine.private_list(self._space, prefix))


def _place(item: tuple[tuple[str, str], Stored]) -> tuple[str, str]:
    return item[0]
