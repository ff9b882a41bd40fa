"""The file of the SQLite store: its schema, how it is opened, and that one process holds it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

import apsw

from weft.errors import WeftError

_APPLICATION_ID: Final = 0x77656674  # "weft"
_VERSION: Final = 1

_SCHEMA: Final = """
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counter VALUES ('revision', 0), ('oldest', 0);
CREATE TABLE object (
  kind TEXT, namespace TEXT, name TEXT, uid TEXT NOT NULL, revision INTEGER NOT NULL,
  owner TEXT, source TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (kind, namespace, name)
) WITHOUT ROWID;
CREATE TABLE log (
  revision INTEGER PRIMARY KEY, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  action TEXT NOT NULL, last INTEGER NOT NULL,
  uid TEXT NOT NULL, owner TEXT, source TEXT NOT NULL, body BLOB NOT NULL,
  previous_revision INTEGER, previous_owner TEXT, previous_body BLOB
);
CREATE TABLE history (
  revision INTEGER PRIMARY KEY, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  txn INTEGER NOT NULL, time TEXT NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL, body BLOB
);
CREATE INDEX history_of ON history (kind, namespace, name, revision);
CREATE TABLE private (
  space TEXT, name TEXT, value BLOB NOT NULL, PRIMARY KEY (space, name)
) WITHOUT ROWID;
"""


def hold(directory: Path) -> int:
    """Make the directory (0700) and lock it for this process; the descriptor of the lock.

    Raises:
        WeftError: it cannot be used, or another process holds it.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if directory.stat().st_mode & 0o077:
            directory.chmod(0o700)
        lock = os.open(directory / "store.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise WeftError(
            f"cannot use {directory} for the store: {error.strerror}",
            hint="choose a directory of your own for the state, or run as its owner",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise WeftError(
            f"another control plane uses {directory}",
            hint="stop it, or give this one a directory of its own",
        ) from error
    return lock


def open_database(path: Path) -> apsw.Connection:
    """The database (0600), made if there is none.

    Raises:
        WeftError: it is damaged, or another version's.
    """
    # SQLite gives its journal files the mode of the database: make that 0600 before it is opened.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    path.chmod(0o600)
    try:
        database = apsw.Connection(str(path))
        database.set_busy_timeout(5_000)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        version = database.pragma("user_version")
        if database.pragma("application_id") == 0 and version == 0:
            with database:
                database.execute(_SCHEMA)
                database.pragma("application_id", _APPLICATION_ID)
                database.pragma("user_version", _VERSION)
        elif database.pragma("application_id") != _APPLICATION_ID or version != _VERSION:
            database.close()
            raise WeftError(
                f"{path} was written by another version of weft (form {version}, this one reads {_VERSION})",
                hint="run the version that wrote it, or start with an empty directory",
            )
    except apsw.Error as error:
        raise explain(error, path) from error
    return database


def explain(error: apsw.Error, path: Path) -> WeftError:
    """What went wrong, with its remedy."""
    hints: dict[type[apsw.Error], str] = {
        apsw.FullError: "free some space on that disk",
        apsw.ReadOnlyError: "make the directory writable",
        apsw.CorruptError: "restore it from a backup",
        apsw.NotADBError: "it is no database: restore it from a backup, or start with an empty directory",
    }
    return WeftError(f"the store {path} failed: {error}", hint=hints.get(type(error), ""))
