"""The database of the telemetry process: what survives a restart. Bounded in age, in rows and in bytes.

A limit on its pages makes SQLite itself refuse to grow further; long before that the oldest goes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec

from weft.errors import WeftError
from weft.telemetry import rollups
from weft.telemetry.flows import HOUR_MS, Flow, FlowKey
from weft.telemetry.limits import Limits
from weft.telemetry.otlp import Span
from weft.telemetry.rollups import MINUTE_MS, Growth, Rollups
from weft.telemetry.shares import level
from weft.telemetry.tellers import Teller

_APPLICATION_ID: Final = 0x77667465  # "wfte"
_VERSION: Final = 4
_FULL: Final = 0.85
_SCHEMA: Final = """
CREATE TABLE flow (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, last INTEGER NOT NULL, body TEXT NOT NULL
);
CREATE TABLE flow_hour (
  flow INTEGER NOT NULL, hour INTEGER NOT NULL, count INTEGER NOT NULL, kept INTEGER NOT NULL,
  PRIMARY KEY (flow, hour)
) WITHOUT ROWID;
CREATE TABLE span (
  id INTEGER PRIMARY KEY, owner TEXT NOT NULL, trace BLOB NOT NULL,
  start INTEGER NOT NULL, duration INTEGER NOT NULL,
  namespace TEXT NOT NULL, service TEXT NOT NULL, instance TEXT NOT NULL, failed INTEGER NOT NULL,
  body BLOB NOT NULL
);
CREATE INDEX span_of ON span (trace);
CREATE INDEX span_by ON span (owner);
CREATE TABLE record (
  id INTEGER PRIMARY KEY, owner TEXT NOT NULL, time INTEGER NOT NULL, request TEXT NOT NULL,
  namespace TEXT NOT NULL, workload TEXT NOT NULL, body BLOB NOT NULL
);
CREATE INDEX record_of ON record (request) WHERE request != '';
"""
# What a row costs beyond its body.
_ROW_BYTES: Final = 200
_Encode: Final = msgspec.json.encode
_Decode: Final = msgspec.json.decode


Record = tuple[str, int, str, str, str, Mapping[str, Any]]
"""A single request: whose proxy tells of it, time in ms, request id, namespace, workload, all else."""


def _key_text(key: FlowKey) -> str:
    return _Encode(asdict(key)).decode()


class Archive:
    """One connection, used by one thread at a time."""

    def __init__(self, path: Path, limits: Limits) -> None:
        """Open it, or begin anew where it cannot be read: what is in it can be lost.

        Raises:
            WeftError: the directory cannot be used.
        """
        self._limits = limits
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.chmod(0o700)
            self._database = self._open(path)
            self.rollups = Rollups(self._database, limits)
            self._shrink()
        except OSError as error:
            raise WeftError(f"cannot use {path.parent} for telemetry: {error.strerror}") from error

    def _open(self, path: Path) -> apsw.Connection:
        for again in (True, False):
            # SQLite gives its journal files the mode of the database.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            path.chmod(0o600)
            database = apsw.Connection(str(path))
            try:
                return self._prepare(database)
            except (apsw.CorruptError, apsw.NotADBError, _ForeignError):
                database.close()
                if not again:
                    raise
                for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
                    (path.parent / name).unlink(missing_ok=True)
        raise AssertionError

    def _shrink(self) -> None:
        """Fit into less than there was room for before: no pragma makes a file smaller."""
        page = self._database.pragma("page_size")
        if self._database.pragma("page_count") * page <= self._limits.disk_bytes:
            return
        self._make_room()
        self._database.execute("VACUUM")
        self._database.execute(f"PRAGMA max_page_count = {max(64, self._limits.disk_bytes // page)}")
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _make_room(self) -> None:
        while self.size() > _FULL * self._limits.disk_bytes and self.drop_oldest():
            pass

    def _prepare(self, database: apsw.Connection) -> apsw.Connection:
        database.set_busy_timeout(5_000)
        database.execute("PRAGMA journal_mode = WAL")
        # A crash of the machine may lose the last seconds, never the file.
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA journal_size_limit = 8388608")
        size = database.pragma("page_size")
        database.execute(f"PRAGMA max_page_count = {max(64, self._limits.disk_bytes // size)}")
        if database.pragma("application_id") == 0 and database.pragma("user_version") == 0:
            with database:
                database.execute(_SCHEMA + rollups.SCHEMA)
                database.pragma("application_id", _APPLICATION_ID)
                database.pragma("user_version", _VERSION)
        elif (
            database.pragma("application_id") != _APPLICATION_ID
            or database.pragma("user_version") != _VERSION
        ):
            raise _ForeignError
        return database

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def flows(self) -> list[Flow]:
        """Every flow that was kept."""
        return [Flow.from_dict(_Decode(body)) for (body,) in self._database.execute("SELECT body FROM flow")]

    def counts(self, since_ms: int) -> dict[FlowKey, tuple[int, int]]:
        """(count, kept) of each flow since the beginning of that hour."""
        rows = self._database.execute(
            "SELECT key, sum(count), sum(kept) FROM flow_hour JOIN flow ON flow.id = flow_hour.flow"
            " WHERE hour >= ? GROUP BY flow.id",
            (since_ms // HOUR_MS,),
        )
        return {FlowKey.from_dict(_Decode(key)): (count, kept) for key, count, kept in rows}

    def write(
        self,
        flows: Sequence[tuple[Flow, int, int, int]],
        forgotten: Iterable[FlowKey],
        spans: Sequence[tuple[str, Span]],
        records: Sequence[Record],
    ) -> None:
        """Keep flows with their counts, spans, single requests, in one transaction; the oldest makes room.

        Spans come with the identity that tells of them.

        Raises:
            apsw.FullError: there is no room, on the disk or within the limit.
        """
        execute = self._database.execute
        with self._transaction():
            for key in forgotten:
                text = _key_text(key)
                execute("DELETE FROM flow_hour WHERE flow = (SELECT id FROM flow WHERE key = ?)", (text,))
                execute("DELETE FROM flow WHERE key = ?", (text,))
            for flow, hour, count, kept in flows:
                ((known,),) = execute(
                    "INSERT INTO flow (key, last, body) VALUES (?, ?, ?)"
                    " ON CONFLICT (key) DO UPDATE SET last = excluded.last, body = excluded.body"
                    " RETURNING id",
                    (_key_text(flow.key), flow.last, _Encode(flow.to_dict()).decode()),
                ).fetchall()
                execute(
                    "INSERT INTO flow_hour VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
                    " SET count = count + excluded.count, kept = kept + excluded.kept",
                    (known, hour, count, kept),
                )
            self._database.executemany(
                "INSERT INTO span VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        owner,
                        span.trace,
                        span.start_us,
                        span.duration_us,
                        span.namespace,
                        span.service,
                        span.instance,
                        int(span.failed),
                        span.body,
                    )
                    for owner, span in spans
                ),
            )
            self._database.executemany(
                "INSERT INTO record VALUES (NULL, ?, ?, ?, ?, ?, ?)",
                ((*start, _Encode(body)) for *start, body in records),
            )
        self._make_room()

    def write_metrics(self, grown: Iterable[Growth], tellers: Iterable[Teller]) -> None:
        """Add what series counted to what is kept, in one transaction.

        Raises:
            apsw.FullError: there is no room.
        """
        try:
            with self._transaction():
                self.rollups.write(grown, tellers)
        except apsw.Error:
            self.rollups.restart()
            raise

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of it or nothing. A database that is full has rolled back by itself."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if not self._database.getautocommit():
                self._database.execute("ROLLBACK")
            raise

    def trim(self, now_ms: int) -> None:
        """Let go of what is too old or too many."""
        limits = self._limits
        hour = (now_ms - _ms(limits.flow_age)) // HOUR_MS
        with self._transaction():
            self._database.execute("DELETE FROM flow_hour WHERE hour < ?", (hour,))
            self.rollups.trim(now_ms // MINUTE_MS)
            for table, column, unit, age, most in (
                ("span", "start", 1_000, limits.span_age, limits.spans),
                ("record", "time", 1, limits.record_age, limits.records),
            ):
                newest = self._newest(table)
                counts = dict(self.ask(f"SELECT owner, count(*) FROM {table} GROUP BY owner"))  # noqa: S608
                fair = level(counts.values(), most)
                for owner, count in counts.items():
                    self._drop(table, owner, count - fair)
                # In the order in which they came: ids, not times, which proxies' clocks make.
                self._database.execute(
                    f"DELETE FROM {table} WHERE id < coalesce("  # noqa: S608
                    f"(SELECT min(id) FROM {table} WHERE {column} >= ?), ?)",
                    ((now_ms - _ms(age)) * unit, newest + 1),
                )
        with contextlib.suppress(apsw.BusyError):
            self._database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def drop_oldest(self) -> bool:
        """Make room: a tenth of the spans, of the records and of the minutes goes. False with none left.

        Of spans and records the oldest of those who have the most.
        """
        with self._transaction():
            dropped = self.rollups.drop_oldest()
            for table in ("span", "record"):
                query = f"SELECT owner, sum(length(body)), count(*) FROM {table} GROUP BY owner"  # noqa: S608
                held = {owner: (size + count * _ROW_BYTES, count) for owner, size, count in self.ask(query)}
                sizes = [size for size, _ in held.values()]
                fair = level(sizes, sum(sizes) * 9 // 10)
                for owner, (size, count) in held.items():
                    if size > fair:
                        self._drop(table, owner, -(-count * (size - fair) // size))
                        dropped = True
        return dropped

    def _drop(self, table: str, owner: str, number: int) -> None:
        """Delete so many rows of one identity, the oldest."""
        if number > 0:
            oldest = f"SELECT id FROM {table} WHERE owner = ? ORDER BY id LIMIT ?"  # noqa: S608
            self._database.execute(f"DELETE FROM {table} WHERE id IN ({oldest})", (owner, number))  # noqa: S608

    def size(self) -> int:
        """Bytes in use in the database."""
        used = self._database.pragma("page_count") - self._database.pragma("freelist_count")
        return int(used * self._database.pragma("page_size"))

    def _newest(self, table: str) -> int:
        query = f"SELECT coalesce(max(id), 0) FROM {table}"  # noqa: S608 - one of two names of ours
        ((newest,),) = self.ask(query)
        return int(newest)

    def ask(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a SELECT; for ``answers``."""
        return self._database.execute(query, parameters).fetchall()


class _ForeignError(Exception):
    """The file is no database of this version's."""


def _ms(age: Any) -> int:
    return int(age.total_seconds() * 1_000)
