"""SQLite files that several processes open at once, the first time too."""

from __future__ import annotations

import sqlite3
import time

_PATIENCE_SECONDS = 60.0


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
