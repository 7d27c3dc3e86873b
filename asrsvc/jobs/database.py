"""The table of jobs: SQLite in WAL mode on a local disk, used by all workers, of old and new code.

`about` says which schema the file has and the oldest one whose code may go on using it. Code of an
older schema works on beside newer code as long as that allows it: changes add columns with a default.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from asrsvc.errors import AsrError, JobsUnavailable, NoSpace, OutOfDescriptors
from asrsvc.jobs.rows import VIEW
from asrsvc.jobs.uploads import make_private_folder
from asrsvc.jobs.webhook_table import TABLE as WEBHOOK_TABLE
from asrsvc.release.files import sync_folder
from asrsvc.system.disk import lacks_descriptors

SCHEMA: Final = 3
"""what this code makes and knows"""
READABLE_FROM: Final = 1
"""the oldest schema whose code can work with what this code makes"""
_BUSY_SECONDS: Final = 10.0  # for another process's transaction, which takes milliseconds
_PAUSE_SECONDS: Final = 0.005
_PRIMARY: Final = 0xFF  # the bits of an error's code that hold its kind (sqlite.org/rescode.html)
_CREATING: Final = threading.Lock()
_FULL: Final = frozenset({sqlite3.SQLITE_FULL})

_TABLES: Final = """
CREATE TABLE about (schema INTEGER NOT NULL, readable_from INTEGER NOT NULL);
CREATE TABLE jobs (
  number INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again: segments of another job stay its own
  id TEXT NOT NULL UNIQUE,
  client TEXT NOT NULL,
  state TEXT NOT NULL,               -- receiving, or one of asrsvc.jobs.types.State
  options TEXT NOT NULL DEFAULT '{}',
  bytes INTEGER NOT NULL,            -- on disk: of the upload while it is needed, then of the result
  created REAL NOT NULL,             -- seconds of the epoch, like all times here
  started REAL,
  claimed REAL,
  ended REAL,
  claim INTEGER NOT NULL DEFAULT 0,  -- counts the workers that took it: what an earlier one writes is void
  deaths INTEGER NOT NULL DEFAULT 0, -- workers that took it and were not heard of since the last progress
  reached INTEGER NOT NULL DEFAULT 0,
  duration REAL,
  version TEXT,                      -- of the model that last worked on it
  error TEXT
);
CREATE INDEX jobs_by_state ON jobs (state, number);
CREATE INDEX jobs_by_client ON jobs (client, number);
CREATE INDEX jobs_by_turn ON jobs (client, claimed);
CREATE TABLE segments (
  job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  version TEXT NOT NULL,
  content TEXT NOT NULL,
  PRIMARY KEY (job, number)
) WITHOUT ROWID;
"""
_CHANGES: Final[dict[int, tuple[str, ...]]] = {
    2: ("ALTER TABLE jobs ADD COLUMN warnings TEXT NOT NULL DEFAULT '[]'",),  # see rows.warnings_of
    3: WEBHOOK_TABLE,
}
"""what makes each schema of the one before; code that is older works on with the result"""


class Database:
    """One process's connection, opened when it is first needed; used by several threads in turn."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    def exists(self) -> bool:
        """Whether there is anything: the first job makes the file."""
        return self._path.exists()

    @contextmanager
    def transaction(self, *, writes: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it happens, and alone, or nothing.

        Args:
            writes: False sees one state of the table and waits for nobody.

        Raises:
            NoSpace: the disk is full; nothing has changed.
            JobsUnavailable: the file cannot be opened, is damaged, of newer code, or locked for too long.
        """
        with self._lock, self._told():
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            try:
                self._check_about(connection)
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Let the file go."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        make_private_folder(self._path.parent)
        _create(self._path)
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # heeded while the file is empty
            if _journal_mode(connection) != "wal":
                raise JobsUnavailable(f"{self._path}: SQLite cannot use WAL there: a local disk is right")
            connection.execute("PRAGMA synchronous = FULL")  # what has been answered survives a power cut
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute("BEGIN IMMEDIATE")
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'about'").fetchone():
                for statement in _TABLES.split(";\n"):
                    connection.execute(statement)
                connection.execute("INSERT INTO about VALUES (1, ?)", (READABLE_FROM,))
            _bring_up_to_date(connection)
            connection.execute("COMMIT")
            connection.execute(VIEW)
        except BaseException:
            connection.close()
            raise
        sync_folder(self._path.parent)
        self._connection = connection
        return connection

    def _check_about(self, connection: sqlite3.Connection) -> None:
        schema, readable_from = connection.execute("SELECT schema, readable_from FROM about").fetchone()
        if readable_from > SCHEMA:
            raise JobsUnavailable(
                f"{self._path} has schema {schema}, made by newer code; this code knows {SCHEMA}: "
                "ask a newer worker, or let the new code finish these jobs"
            )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What SQLite and the disk refuse, in words of ours."""
        try:
            yield
        except AsrError:
            raise
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) in _FULL:
                raise NoSpace("the disk that jobs are kept on (ASR_STATE_DIR) is full") from error
            raise JobsUnavailable(f"{self._path} cannot be used: {error}") from error
        except OSError as error:
            if lacks_descriptors(error):
                raise OutOfDescriptors(f"{self._path} cannot be used: {error.strerror}") from error
            raise JobsUnavailable(f"{self._path} cannot be used: {error.strerror or error}") from error


def _create(path: Path) -> None:
    """Make an empty file, if there is none; SQLite gives its other files the same mode.

    One that is there is not opened: to close it again would take away the locks that another connection of
    this process holds on it (fcntl(2)), and two processes would then change it at the same time.
    """
    with _CREATING, suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _journal_mode(connection: sqlite3.Connection) -> str:
    """Ask for a write-ahead log, and say what there is then.

    SQLite does not wait here for another connection that does the same, whatever the timeout of this one.
    """
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & _PRIMARY == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return str(mode)


def _bring_up_to_date(connection: sqlite3.Connection) -> None:
    """In a transaction: what older code has made gets what is new since then."""
    (made,) = connection.execute("SELECT schema FROM about").fetchone()
    for schema in range(made + 1, SCHEMA + 1):
        for statement in _CHANGES[schema]:
            connection.execute(statement)
        connection.execute("UPDATE about SET schema = ?", (schema,))
