"""SQLite files that several processes open at once, the first time too."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import ClassVar

from fingerprint_dagster.errors import UsageError

_PATIENCE_SECONDS = 60.0


class HomeDatabase:
    """One SQLite file in a home. Safe for many processes; every change is one transaction.

    file: its name. schema: what makes its tables, safe to repeat. pragmas: settings of every connection.
    """

    file: ClassVar[str]
    schema: ClassVar[str]
    pragmas: ClassVar[str] = ""

    def __init__(self, home: Path) -> None:
        """Raises `UsageError` where the home cannot be made or written."""
        self.path = home / self.file
        try:
            home.mkdir(parents=True, exist_ok=True)
            with self._db() as db:
                prepare(db, self.schema)
                self._made(db)
        except (OSError, sqlite3.Error) as error:
            raise UsageError(f"home {str(home)!r} cannot be used: {error}; set FINGERPRINT_HOME to another") from None

    def _made(self, db: sqlite3.Connection) -> None:
        """What is to be done when the file is opened."""

    @contextmanager
    def _db(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction: committed at the end, rolled back on an error."""
        with closing(sqlite3.connect(self.path, timeout=_PATIENCE_SECONDS)) as db, db:
            if self.pragmas:
                db.execute(self.pragmas)
            yield db


def prepare(db: sqlite3.Connection, schema: str) -> None:
    """Put a database into WAL mode and make what is missing of its schema, which must be safe to repeat.

    SQLite's own waiting does not cover the change of the journal mode: it fails at once where another process makes
    the same change, so it is tried again here.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            # Not in files: SQLite chooses their folder once in a process, and a confined one may not write there.
            db.execute("PRAGMA temp_store = MEMORY")
            db.executescript(schema)
            return
        except sqlite3.OperationalError as error:
            # The message and not the code: "locked" comes with several codes.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)
