"""Metrics on disk: what each series counted by minute, by quarter of an hour and by hour."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import apsw
import msgspec

from weft.telemetry.limits import Limits
from weft.telemetry.rows import Row, pack, unpack
from weft.telemetry.series import SeriesKey
from weft.telemetry.tellers import Teller

MINUTE_MS: Final = 60_000
Name = Literal["minute", "quarter", "hour"]
# On disk, times as many series as may be in memory: over time, others.
_SERIES_KEPT: Final = 3
# Windows of so many lengths are kept added up.
_SUMS_KEPT: Final = 4
_NEVER: Final = 1 << 62
_NAMES: Final[Mapping[int, Name]] = {1: "minute", 15: "quarter", 60: "hour"}
STEPS_MINUTES: Final = tuple(_NAMES)
"""How long the periods are that sums are kept of."""

SCHEMA: Final = """
CREATE TABLE series (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, last INTEGER NOT NULL, open INTEGER NOT NULL
);
CREATE TABLE teller (
  principal TEXT NOT NULL, instance TEXT NOT NULL, last INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (principal, instance)
) WITHOUT ROWID;
""" + "".join(
    f"CREATE TABLE {name} (at INTEGER NOT NULL, series INTEGER NOT NULL, row BLOB NOT NULL,"
    " PRIMARY KEY (at, series)) WITHOUT ROWID;\n"
    for name in _NAMES.values()
)
_numbers: Final = msgspec.msgpack.Decoder(list[int]).decode
_key_text: Final = msgspec.json.encode
_read_key: Final = msgspec.json.Decoder(tuple[str, ...]).decode


def _encode(row: Row) -> bytes:
    return msgspec.msgpack.encode(unpack(row))


def _decode(body: bytes) -> Row:
    return pack(_numbers(body))


@dataclass(frozen=True, slots=True)
class Growth:
    """What a series counted in a minute (since the epoch), and its open connections now."""

    key: SeriesKey
    minute: int
    row: Row
    open: int = 0


@dataclass(slots=True)
class _Sums:
    """What series (by id) counted from one minute until before another, by one of the tables."""

    name: Name
    since: int
    until: int
    rows: dict[int, Row]


class Rollups:
    """The tables of one database. No method begins a transaction of its own."""

    def __init__(self, database: apsw.Connection, limits: Limits) -> None:
        self._database = database
        self._limits = limits
        self._ids: dict[SeriesKey, int] = {}
        self._keys: dict[int, SeriesKey] | None = None
        self._sums: deque[_Sums] = deque(maxlen=_SUMS_KEPT)
        # By series, the rows of the last period of each length: (when it began, row).
        self._last: dict[Name, dict[int, tuple[int, Row]]] = {name: {} for name in _NAMES.values()}

    def write(self, grown: Iterable[Growth], tellers: Iterable[Teller]) -> None:
        """Add what came to what is kept.

        Raises:
            apsw.FullError: there is no room; ``restart`` what is known of ids, as nothing was kept.
        """
        execute = self._database.execute
        for one in grown:
            known = self._id(one)
            for minutes, name in _NAMES.items():
                at = one.minute // minutes * minutes
                began, kept = self._last[name].get(known, (0, 0))
                if began != at:
                    kept = self._kept(name, at, known)
                row = kept + one.row
                self._last[name][known] = at, row
                for sums in self._sums:
                    if sums.name == name and sums.since <= at < sums.until:
                        sums.rows[known] = sums.rows.get(known, 0) + one.row
                execute(f"INSERT OR REPLACE INTO {name} VALUES (?, ?, ?)", (at, known, _encode(row)))  # noqa: S608
        self._database.executemany(
            "INSERT OR REPLACE INTO teller VALUES (?, ?, ?, ?)",
            (
                (each.principal, each.instance, each.last, msgspec.json.encode(each).decode())
                for each in tellers
            ),
        )

    def _kept(self, name: Name, at: int, series: int) -> Row:
        query = f"SELECT row FROM {name} WHERE at = ? AND series = ?"  # noqa: S608 - our own name
        rows: list[tuple[bytes]] = self._rows(query, (at, series))
        return _decode(rows[0][0]) if rows else 0

    def _id(self, one: Growth) -> int:
        known = self._ids.get(one.key)
        if known is None:
            found: list[tuple[int]] = self._rows(
                "INSERT INTO series (key, last, open) VALUES (?, 0, 0)"
                " ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING id",
                (_key_text(one.key).decode(),),
            )
            ((known,),) = found
            if len(self._ids) >= 2 * self._limits.series:
                self.restart()
            self._ids[one.key] = known
            if self._keys is not None:
                self._keys.setdefault(known, one.key)
        self._database.execute(
            "UPDATE series SET last = ?, open = ? WHERE id = ?", (one.minute, one.open, known)
        )
        return known

    def _rows(self, query: str, parameters: Sequence[Any] = ()) -> list[Any]:
        return self._database.execute(query, parameters).fetchall()

    def restart(self) -> None:
        """Forget what is remembered of the tables: what was written last was rolled back, or things went."""
        self._ids.clear()
        self._keys = None
        self._sums.clear()
        for rows in self._last.values():
            rows.clear()

    def since(self, minute: int, most: int) -> int:
        """That minute, or a later one since which there are no more than so many rows by the minute."""
        query = "SELECT at, count(*) FROM minute WHERE at >= ? GROUP BY at ORDER BY at DESC"
        for at, count in self._database.execute(query, (minute,)):
            most -= count
            if most < 0:
                return int(at) + 1
        return minute

    def load(self, minute: int) -> Iterator[tuple[SeriesKey, list[tuple[int, Row]], int]]:
        """Series that grew since that minute or have open connections: by minute, and what is open."""
        found: dict[int, list[tuple[int, Row]]] = {}
        rows = self._database.execute(
            "SELECT series, at, row FROM minute WHERE at >= ? ORDER BY at", (minute,)
        )
        for series, at, row in rows:
            found.setdefault(series, []).append((at, _decode(row)))
        keys = self.keys()
        query = "SELECT id, open FROM series WHERE last >= ? OR open > 0 ORDER BY last DESC LIMIT ?"
        for series, opened in self._database.execute(query, (minute, self._limits.series)):
            yield keys[series], found.get(series, []), opened

    def tellers(self) -> list[Teller]:
        """The proxies that were heard."""
        return [
            msgspec.json.decode(body, type=Teller)
            for (body,) in self._database.execute("SELECT body FROM teller")
        ]

    def sums(self, minutes: int, since: int) -> Iterator[tuple[SeriesKey, Row]]:
        """What each series counted in the periods of so many minutes that begin at that minute or later."""
        name = _NAMES[minutes]
        newest = f"SELECT coalesce(max(at), 0) FROM {name}"  # noqa: S608 - our own name
        spans: list[tuple[int]] = self._rows(newest)
        ((until,),) = spans
        until = max(since, until)
        found = dict(self._closed(name, minutes, since, until))
        for series, row in self._between(name, until, None):
            found[series] = found.get(series, 0) + row
        keys = self.keys()
        for series, row in found.items():
            if series in keys:
                yield keys[series], row

    def _closed(self, name: Name, minutes: int, since: int, until: int) -> dict[int, Row]:
        """The sums from one minute to another: out of those that were asked for last, with what differs."""
        for kept in self._sums:
            moved = abs(kept.since - since) + abs(kept.until - until)
            if kept.name == name and 2 * moved < until - since:
                rows = dict(kept.rows)
                for first, last, sign in (
                    (kept.since, since, -1),
                    (since, kept.since, 1),
                    (kept.until, until, 1),
                    (until, kept.until, -1),
                ):
                    for series, row in self._between(name, first, last) if first < last else ():
                        rows[series] = rows.get(series, 0) + sign * row
                        if not rows[series]:
                            del rows[series]
                kept.since, kept.until, kept.rows = since, until, rows
                return rows
        rows = {}
        for series, row in self._between(name, since, until):
            rows[series] = rows.get(series, 0) + row
        if until - since > minutes and len(rows) <= _SERIES_KEPT * self._limits.series:
            self._sums.append(_Sums(name, since, until, rows))
        return rows

    def _between(self, name: Name, first: int, last: int | None) -> Iterator[tuple[int, Row]]:
        """Series and row of the periods that begin from one minute until before another."""
        query = f"SELECT series, row FROM {name} WHERE at >= ? AND at < ?"  # noqa: S608 - our own name
        ended = last if last is not None else _NEVER
        for series, row in self._database.execute(query, (first, ended)):
            yield series, _decode(row)

    def keys(self) -> dict[int, SeriesKey]:
        """Every series that is kept, by id. Not to be changed."""
        if self._keys is None:
            words: dict[str, str] = {}
            self._keys = {
                known: SeriesKey(*(words.setdefault(word, word) for word in _read_key(key)))
                for known, key in self._database.execute("SELECT id, key FROM series")
            }
        return self._keys

    def periods(
        self, minutes: int, since: int, until: int, series: Iterable[int]
    ) -> Iterator[tuple[int, int, Row]]:
        """(minute, series, what came in the period that began then) of these series, oldest first."""
        query = (
            "WITH RECURSIVE time (at) AS (SELECT ? UNION ALL SELECT at + ? FROM time WHERE at + ? < ?)"  # noqa: S608
            f" SELECT kept.at, series, row FROM time CROSS JOIN {_NAMES[minutes]} AS kept"
            " ON kept.at = time.at AND series IN (SELECT value FROM json_each(?)) ORDER BY kept.at"
        )
        wanted = msgspec.json.encode(list(series)).decode()
        first = since // minutes * minutes
        for at, known, row in self._database.execute(query, (first, minutes, minutes, until, wanted)):
            yield at, known, _decode(row)

    def trim(self, now_minute: int) -> None:
        """Let go of what is too old."""
        limits = self._limits
        for name, age in zip(
            _NAMES.values(), (limits.minute_age, limits.quarter_age, limits.hour_age), strict=True
        ):
            before = now_minute - int(age.total_seconds()) // 60
            self._delete(name, before)
        self._database.execute("DELETE FROM series WHERE last < ?", (before,))
        gone = self._database.changes()
        # Names that come and go all the time must not fill the disk.
        self._database.execute(
            "DELETE FROM series WHERE id IN (SELECT id FROM series ORDER BY last DESC LIMIT -1 OFFSET ?)",
            (_SERIES_KEPT * limits.series,),
        )
        if too_many := self._database.changes():
            for name in _NAMES.values():
                self._database.execute(f"DELETE FROM {name} WHERE series NOT IN (SELECT id FROM series)")  # noqa: S608
        if gone or too_many:
            self.restart()
        self._database.execute("DELETE FROM teller WHERE last < ?", ((now_minute - 60) * MINUTE_MS,))

    def _delete(self, name: Name, before: int) -> None:
        """Delete what began before that minute, and forget what is remembered of it."""
        self._database.execute(f"DELETE FROM {name} WHERE at < ?", (before,))  # noqa: S608 - our own name
        if self._database.changes():
            self._last[name] = {
                series: last for series, last in self._last[name].items() if last[0] >= before
            }
            for sums in [each for each in self._sums if each.name == name and each.since < before]:
                self._sums.remove(sums)

    def drop_oldest(self) -> bool:
        """Make room: of the shortest periods that there are the oldest tenth goes. False with none left."""
        for name in _NAMES.values():
            query = f"SELECT coalesce(min(at), 0), coalesce(max(at), 0) FROM {name}"  # noqa: S608
            spans: list[tuple[int, int]] = self._rows(query)
            ((first, last),) = spans
            if last > first:
                cut = first + max(1, (last - first) // 10)
                self._delete(name, cut)
                return True
        return False
