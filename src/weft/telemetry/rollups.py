"""Metrics on disk: what each series counted by minute, by quarter of an hour and by hour."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import add
from typing import Any, Final, Literal

import apsw
import msgspec

from weft.telemetry.limits import Limits
from weft.telemetry.series import SeriesKey
from weft.telemetry.tellers import Teller

MINUTE_MS: Final = 60_000
Name = Literal["minute", "quarter", "hour"]
# On disk, times as many series as may be in memory: over time, others.
_SERIES_KEPT: Final = 3
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
_encode: Final = msgspec.msgpack.encode
_decode: Final = msgspec.msgpack.Decoder(list[int]).decode
_key_text: Final = msgspec.json.encode
_read_key: Final = msgspec.json.Decoder(tuple[str, ...]).decode


@dataclass(frozen=True, slots=True)
class Growth:
    """What a series counted in a minute (since the epoch), and its open connections now."""

    key: SeriesKey
    minute: int
    row: Sequence[int]
    open: int = 0


class Rollups:
    """The tables of one database. No method begins a transaction of its own."""

    def __init__(self, database: apsw.Connection, limits: Limits) -> None:
        self._database = database
        self._limits = limits
        self._ids: dict[SeriesKey, int] = {}
        # By series, the rows of the last period of each length: (when it began, row).
        self._last: dict[Name, dict[int, tuple[int, list[int]]]] = {name: {} for name in _NAMES.values()}

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
                began, kept = self._last[name].get(known, (0, []))
                if began != at:
                    kept = self._kept(name, at, known)
                row = list(map(add, kept, one.row)) if kept else list(one.row)
                self._last[name][known] = at, row
                execute(f"INSERT OR REPLACE INTO {name} VALUES (?, ?, ?)", (at, known, _encode(row)))  # noqa: S608
        self._database.executemany(
            "INSERT OR REPLACE INTO teller VALUES (?, ?, ?, ?)",
            (
                (each.principal, each.instance, each.last, msgspec.json.encode(each).decode())
                for each in tellers
            ),
        )

    def _kept(self, name: Name, at: int, series: int) -> list[int]:
        query = f"SELECT row FROM {name} WHERE at = ? AND series = ?"  # noqa: S608 - our own name
        rows: list[tuple[bytes]] = self._rows(query, (at, series))
        return _decode(rows[0][0]) if rows else []

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
        self._database.execute(
            "UPDATE series SET last = ?, open = ? WHERE id = ?", (one.minute, one.open, known)
        )
        return known

    def _rows(self, query: str, parameters: Sequence[Any] = ()) -> list[Any]:
        return self._database.execute(query, parameters).fetchall()

    def restart(self) -> None:
        """Forget what is remembered of the tables: what was written last was rolled back, or things went."""
        self._ids.clear()
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

    def load(self, minute: int) -> Iterator[tuple[SeriesKey, list[tuple[int, list[int]]], int]]:
        """Series that grew since that minute or have open connections: by minute, and what is open."""
        found: dict[int, list[tuple[int, list[int]]]] = {}
        rows = self._database.execute(
            "SELECT series, at, row FROM minute WHERE at >= ? ORDER BY at", (minute,)
        )
        for series, at, row in rows:
            found.setdefault(series, []).append((at, _decode(row)))
        query = "SELECT id, key, open FROM series WHERE last >= ? OR open > 0 ORDER BY last DESC LIMIT ?"
        for series, key, opened in self._database.execute(query, (minute, self._limits.series)):
            yield SeriesKey(*_read_key(key)), found.get(series, []), opened

    def tellers(self) -> list[Teller]:
        """The proxies that were heard."""
        return [
            msgspec.json.decode(body, type=Teller)
            for (body,) in self._database.execute("SELECT body FROM teller")
        ]

    def sums(self, minutes: int, since: int) -> Iterator[tuple[SeriesKey, list[int]]]:
        """What each series counted in the periods of so many minutes that begin at that minute or later."""
        keys = self.keys()
        found: dict[int, list[int]] = {}
        query = f"SELECT series, row FROM {_NAMES[minutes]} WHERE at >= ?"  # noqa: S608 - our own name
        for series, row in self._database.execute(query, (since,)):
            known = found.get(series)
            found[series] = _decode(row) if known is None else list(map(add, known, _decode(row)))
        for series, total in found.items():
            if series in keys:
                yield keys[series], total

    def keys(self) -> dict[int, SeriesKey]:
        """Every series that is kept, by id."""
        return {
            known: SeriesKey(*_read_key(key))
            for known, key in self._database.execute("SELECT id, key FROM series")
        }

    def periods(
        self, minutes: int, since: int, until: int, series: Iterable[int]
    ) -> Iterator[tuple[int, int, list[int]]]:
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
            self._database.execute(f"DELETE FROM {name} WHERE at < ?", (before,))  # noqa: S608
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

    def drop_oldest(self) -> bool:
        """Make room: of the shortest periods that there are the oldest tenth goes. False with none left."""
        for name in _NAMES.values():
            query = f"SELECT coalesce(min(at), 0), coalesce(max(at), 0) FROM {name}"  # noqa: S608
            spans: list[tuple[int, int]] = self._rows(query)
            ((first, last),) = spans
            if last > first:
                cut = first + max(1, (last - first) // 10)
                self._database.execute(f"DELETE FROM {name} WHERE at < ?", (cut,))  # noqa: S608
                return True
        return False
