"""The SQL of the SQLite store. Everything here runs in the store's one thread."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import apsw

from weft.model.resource import Key
from weft.store.database import explain, hold, open_database
from weft.store.interface import (
    Action,
    AlreadyExistsError,
    Change,
    ConflictError,
    Delete,
    Event,
    GoneError,
    NotFoundError,
    Operation,
    Put,
    Stored,
)
from weft.store.seal import Seal, open_key

_SEALED_KINDS: Final = frozenset({"/Secret"})
_KEEP_EVENTS: Final = 10_000
_KEEP_HISTORY: Final = 10_000
_TRIM_EVERY: Final = 1_000


class Engine:
    """One database directory, held by one process."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "store.db"
        self._lock = hold(directory)
        try:
            self._seal: Seal = open_key(directory / "store.key")
            self._db = open_database(self.path)
        except BaseException:
            os.close(self._lock)
            raise
        self._revision = self._counter("revision")
        self.oldest = self._counter("oldest")
        self._untrimmed = 0

    def close(self) -> None:
        """Release files and lock."""
        self._db.close()
        os.close(self._lock)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what runs inside together, durably; nothing of it when it raises."""
        before = self._revision, self.oldest
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            self._revision, self.oldest = before
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, apsw.Error):
                raise explain(error, self.path) from error
            raise

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """A part of a transaction that may fail alone."""
        before = self._revision, self.oldest
        self._db.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            self._revision, self.oldest = before
            # A full disk ends the whole transaction by itself.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK TO part; RELEASE part")
            raise
        self._db.execute("RELEASE part")

    def _counter(self, name: str) -> int:
        return int(self._db.execute("SELECT value FROM counter WHERE name = ?", (name,)).get)

    @property
    def revision(self) -> int:
        """The last one given."""
        return self._revision

    def objects(self) -> Iterator[Stored]:
        """Everything, by kind, namespace and name."""
        rows = self._db.execute(
            "SELECT kind, namespace, name, uid, revision, owner, source, body FROM object ORDER BY 1, 2, 3"
        )
        for kind, namespace, name, *rest in rows:
            yield self._stored(Key(kind, namespace, name), *rest)

    def _stored(
        self, key: Key, uid: str, revision: int, owner: str | None, source: str, body: bytes
    ) -> Stored:
        return Stored(
            key=key, uid=uid, revision=revision, body=self._unsealed(key, body), owner=owner, source=source
        )

    def _sealed(self, key: Key, body: bytes) -> bytes:
        return self._seal.close(body, str(key)) if key.kind in _SEALED_KINDS else body

    def _unsealed(self, key: Key, body: bytes) -> bytes:
        return self._seal.open(body, str(key)) if key.kind in _SEALED_KINDS else body

    def find(self, key: Key) -> Stored | None:
        """One object, or None."""
        row = self._db.execute(
            "SELECT uid, revision, owner, source, body FROM object"
            " WHERE kind = ? AND namespace = ? AND name = ?",
            (key.kind, key.namespace, key.name),
        ).fetchone()
        return self._stored(key, *row) if row else None

    def transact(self, operations: Sequence[Operation], actor: str) -> tuple[tuple[Event, ...], list[Stored]]:
        """The events, and the objects of which only ``source`` changed (no event)."""
        now = datetime.now(UTC).isoformat()
        events: list[Event] = []
        moved: list[Stored] = []
        records: list[tuple[Event, bool]] = []
        for operation in operations:
            found = self.find(operation.key)
            event = (
                self._put(operation, found, moved)
                if isinstance(operation, Put)
                else self._delete(operation, found)
            )
            if event is not None:
                events.append(event)
                records.append((event, operation.record))
        if events:
            final = events[-1] = replace(events[-1], last=True)
            records[-1] = (final, records[-1][1])
            for event, record in records:
                self._write_log(event)
                if record:
                    self._write_history(event, final.revision, now, actor)
            self._db.execute("UPDATE counter SET value = ? WHERE name = 'revision'", (self._revision,))
            self._trim(len(events))
        return tuple(events), moved

    def _put(self, put: Put, found: Stored | None, moved: list[Stored]) -> Event | None:
        key = put.key
        _check(put, found)
        if found and (found.body, found.owner) == (put.body, put.owner):
            if found.source != put.source:
                self._db.execute(
                    "UPDATE object SET source = ? WHERE kind = ? AND namespace = ? AND name = ?",
                    (put.source, key.kind, key.namespace, key.name),
                )
                moved.append(replace(found, source=put.source))
            return None
        self._revision += 1
        stored = Stored(
            key=key, uid=put.uid, revision=self._revision, body=put.body, owner=put.owner, source=put.source
        )
        self._db.execute(
            "INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key.kind, key.namespace, key.name, put.uid, self._revision, put.owner, put.source,
                self._sealed(key, put.body),
            ),
        )  # fmt: skip
        action = Action.UPDATED if found else Action.CREATED
        return Event(action=action, revision=self._revision, stored=stored, previous=found, last=False)

    def _delete(self, delete: Delete, found: Stored | None) -> Event:
        key = delete.key
        if found is None:
            raise NotFoundError(key)
        if delete.expect is not None and delete.expect != found.revision:
            raise ConflictError(key, delete.expect, found.revision)
        self._revision += 1
        self._db.execute(
            "DELETE FROM object WHERE kind = ? AND namespace = ? AND name = ?",
            (key.kind, key.namespace, key.name),
        )
        gone = replace(found, revision=self._revision)
        return Event(action=Action.DELETED, revision=self._revision, stored=gone, previous=found, last=False)

    def _write_log(self, event: Event) -> None:
        key, stored, previous = event.stored.key, event.stored, event.previous
        self._db.execute(
            "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                event.revision, key.kind, key.namespace, key.name, event.action, event.last,
                stored.uid, stored.owner, stored.source, self._sealed(key, stored.body),
                previous.revision if previous else None, previous.owner if previous else None,
                self._sealed(key, previous.body) if previous else None,
            ),
        )  # fmt: skip

    def _write_history(self, event: Event, transaction: int, now: str, actor: str) -> None:
        key = event.stored.key
        body = None if event.action is Action.DELETED else event.stored.body
        if body is not None and key.kind in _SEALED_KINDS:
            body = self._seal.redact(body)
        self._db.execute(
            "INSERT INTO history VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (event.revision, key.kind, key.namespace, key.name, transaction, now, actor, event.action, body),
        )

    def _trim(self, events: int) -> None:
        self._untrimmed += events
        if self._untrimmed < _TRIM_EVERY:
            return
        self._untrimmed = 0
        self.compact(self._revision - _KEEP_EVENTS)
        self._db.execute(
            "DELETE FROM history WHERE revision <="
            " (SELECT revision FROM history ORDER BY revision DESC LIMIT 1 OFFSET ?)",
            (_KEEP_HISTORY,),
        )

    def compact(self, before: int) -> None:
        """Delete the events up to and including ``before``."""
        before = min(before, self._revision)
        if before <= self.oldest:
            return
        self.oldest = before
        self._db.execute("DELETE FROM log WHERE revision <= ?", (before,))
        self._db.execute("UPDATE counter SET value = ? WHERE name = 'oldest'", (before,))

    def events(self, after: int, until: int, limit: int = 1_000) -> list[Event]:
        """Events with after < revision <= until, at most ``limit``.

        Raises:
            GoneError: when some of them are compacted.
        """
        if after < self.oldest:
            raise GoneError(after, self.oldest)
        rows = self._db.execute(
            "SELECT * FROM log WHERE revision > ? AND revision <= ? ORDER BY revision LIMIT ?",
            (after, until, limit),
        )
        return [self._event(*row) for row in rows]

    def _event(
        self, revision: int, kind: str, namespace: str, name: str, action: str, last: int, uid: str,
        owner: str | None, source: str, body: bytes, previous_revision: int | None,
        previous_owner: str | None, previous_body: bytes | None,
    ) -> Event:  # fmt: skip
        key = Key(kind, namespace, name)
        previous = (
            self._stored(key, uid, previous_revision, previous_owner, source, previous_body)
            if previous_revision is not None and previous_body is not None
            else None
        )
        stored = self._stored(key, uid, revision, owner, source, body)
        return Event(
            action=Action(action), revision=revision, stored=stored, previous=previous, last=bool(last)
        )

    def history(self, key: Key | None, limit: int) -> list[Change]:
        """Recorded changes, the newest first."""
        which, values = "", []
        if key is not None:
            which, values = "WHERE kind = ? AND namespace = ? AND name = ?", [*_parts(key)]
        rows = self._db.execute(
            f"SELECT kind, namespace, name, revision, txn, time, actor, action, body FROM history {which}"  # noqa: S608 (a constant)
            " ORDER BY revision DESC LIMIT ?",
            (*values, limit),
        )
        return [
            Change(
                key=Key(kind, namespace, name), revision=revision, transaction=transaction,
                time=datetime.fromisoformat(time), actor=actor, action=Action(action), body=body,
            )
            for kind, namespace, name, revision, transaction, time, actor, action, body in rows
        ]  # fmt: skip

    def private_get(self, space: str, name: str) -> bytes | None:
        """One private value."""
        row = self._db.execute(
            "SELECT value FROM private WHERE space = ? AND name = ?", (space, name)
        ).fetchone()
        return self._seal.open(row[0], f"{space}/{name}") if row else None

    def private_put(self, space: str, name: str, value: bytes | None) -> bool:
        """Set a private value, or delete it (None); whether there was one."""
        there = self._db.execute(
            "SELECT 1 FROM private WHERE space = ? AND name = ?", (space, name)
        ).fetchone()
        if value is None:
            self._db.execute("DELETE FROM private WHERE space = ? AND name = ?", (space, name))
        else:
            sealed = self._seal.close(value, f"{space}/{name}")
            self._db.execute("INSERT OR REPLACE INTO private VALUES (?, ?, ?)", (space, name, sealed))
        return there is not None

    def private_swap(self, space: str, name: str, old: bytes | None, new: bytes | None) -> bool:
        """Replace a private value if it is ``old``."""
        if self.private_get(space, name) != old:
            return False
        self.private_put(space, name, new)
        return True

    def private_list(self, space: str, prefix: str) -> dict[str, bytes]:
        """Private values by name."""
        rows = self._db.execute(
            "SELECT name, value FROM private WHERE space = ? AND substr(name, 1, ?) = ? ORDER BY name",
            (space, len(prefix), prefix),
        )
        return {name: self._seal.open(value, f"{space}/{name}") for name, value in rows}


def _parts(key: Key) -> tuple[str, str, str]:
    return key.kind, key.namespace, key.name


def _check(put: Put, found: Stored | None) -> None:
    if put.expect is None:
        return
    if put.expect == 0:
        if found:
            raise AlreadyExistsError(put.key)
    elif found is None:
        raise NotFoundError(put.key)
    elif put.expect != found.revision:
        raise ConflictError(put.key, put.expect, found.revision)
